"""Problems by name: the built-in ones, data sets of images, and a user's own entry strings."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from thalweg.errors import EntryNotFound, InvalidArgument, InvalidProblem
from thalweg.problems.datasets import cifar10, digits, teacher
from thalweg.problems.makers import check_maker, check_place
from thalweg.problems.problem import Problem
from thalweg.problems.settings import check_settings
from thalweg.run.plugins import PROBLEMS, installed, load_plugin
from thalweg.run.progress import Progress, silent
from thalweg.run.trust import name_entry, require_trust

BUILT_IN: dict[str, Callable[..., Problem]] = {
    "digits": digits,
    "cifar10": cifar10,
    "teacher": teacher,
}
# What a machine may lack of devices that runs are made on.
_DEVICES: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
log = logging.getLogger("thalweg")
_FORMS = "'package.module:make', 'path/file.py:make'"


def load_problem(entry: str, *, progress: Progress = silent, **settings: Any) -> Problem:
    """
    Make a problem.

    Parameters
    ----------
    entry : str
        ``"digits"``, ``"cifar10"`` or ``"teacher"``; the hub name (``"owner/name"``) or folder of
        another data set of images in the layout of CIFAR-10; the name of a problem that an
        installed package adds (entry points ``thalweg.problems``); or an entry string of one's
        own, ``"package.module:make"`` or ``"path/file.py:make"``, where ``make`` returns a
        `Problem`.
    progress : Progress
        Shows the decoding of images, which happens once.
    **settings
        Given on by name: see `thalweg.problems.datasets` for those of the built-in problems.

    Returns
    -------
    Problem
        With a freshly initialized model.

    Raises
    ------
    EntryNotFound
        If the entry names nothing that can be imported; the message says where was looked.
    InvalidArgument
        For unknown or missing settings.
    InvalidProblem
        If ``make`` returns something else.

    Examples
    --------
    >>> problem = load_problem("digits", width=64, activation="relu")
    >>> len(problem.samples("train")), len(problem.samples("test"))
    (1437, 360)
    """
    name_entry(entry)
    return _load(entry, settings, progress)


def load_stored(
    problem: Mapping[str, Any], *, progress: Progress = silent, **settings: Any
) -> Problem:
    """
    Make a problem that a file names: a run, a certificate, or a task of a driver.

    Parameters
    ----------
    problem : mapping
        ``entry`` and ``settings``, as for `load_problem`.
    progress : Progress
        Shows the decoding of images.
    **settings
        Besides those of the file.

    Notes
    -----
    Where the file names a device that this machine lacks, images are evaluated on the CPU, with a
    warning.

    Raises
    ------
    NotTrusted
        If the entry is a function, and the user neither named it in this process nor trusted its
        source (`trust_entry`).
    InvalidArgument
        If ``entry`` is no text, or ``settings`` no mapping; and what `load_problem` raises.
    """
    entry, stored = problem.get("entry"), problem.get("settings", {})
    if not isinstance(entry, str) or not isinstance(stored, dict):
        raise InvalidArgument(
            f"the problem is {dict(problem)!r}; expected an entry (text) and settings by name."
        )
    require_trust(entry)
    if ":" not in entry and not _is_here(stored.get("device", "cpu")):
        stored = stored | {"device": "cpu"}
    return _load(entry, stored | settings, progress)


@lru_cache
def _is_here(device: object) -> bool:
    """Say whether this machine has a device; warn of another, once a process."""
    is_present = _DEVICES.get(str(device).partition(":")[0])
    if is_present is None or is_present():
        return True
    log.warning(
        "made with device=%r, which this machine lacks: evaluated on the CPU. Numbers differ by"
        " rounding, and trainings by more.",
        device,
    )
    return False


def _load(entry: str, settings: dict[str, Any], progress: Progress) -> Problem:
    if entry in BUILT_IN:
        check_settings(f"problem {entry!r}", BUILT_IN[entry], settings)
        shown = {"progress": progress} if entry == "cifar10" else {}
        return BUILT_IN[entry](**settings, **shown).made_by(entry, settings)
    if ":" in entry:
        return _from_entry(entry, settings).made_by(entry, settings)
    if entry in installed(PROBLEMS):
        return _call_maker(entry, load_plugin(PROBLEMS, entry), settings).made_by(entry, settings)
    if Path(entry).is_dir() or is_hub_name(entry):
        check_settings(f"problem {entry!r}", cifar10, settings)
        problem = cifar10(**{"data": entry} | settings, progress=progress)
        return problem.made_by(entry, settings)
    raise not_found(entry)


def not_found(entry: str) -> EntryNotFound:
    """Say that nothing has a name, and what was perhaps meant."""
    names = [*BUILT_IN, *installed(PROBLEMS)]
    near = difflib.get_close_matches(entry, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return EntryNotFound(
        f"no problem is called {entry!r}; {hint}write one of {', '.join(map(repr, names))}, a"
        f" hub name ('owner/name') or folder of images, or an entry string {_FORMS}."
    )


def is_hub_name(entry: str) -> bool:
    """Say whether a text may name a data set on the Hugging Face hub: ``owner/name``."""
    owner, _, name = entry.partition("/")
    return bool(owner and name) and "/" not in name and owner != "." and not name.endswith(".py")


def _from_entry(entry: str, settings: dict[str, Any]) -> Problem:
    place, _, attribute = entry.rpartition(":")
    check_place(entry)
    module = _file(place, attribute) if place.endswith(".py") else _module(place, attribute)
    make = module
    for name in attribute.split("."):
        make = getattr(make, name, None)  # type: ignore[assignment]
    if not callable(make):
        raise EntryNotFound(
            f"{place} has {'no' if make is None else 'no function'} {attribute!r}; callables there:"
            f" {_callables(module)}. Write {place}:NAME."
        )
    return _call_maker(entry, make, settings)


def _call_maker(entry: str, make: Callable[..., Any], settings: dict[str, Any]) -> Problem:
    check_maker(entry, make)
    check_settings(f"{entry}", make, settings)
    problem = make(**settings)
    if not isinstance(problem, Problem):
        raise InvalidProblem(
            f"{entry} returned {type(problem).__name__}, expected a thalweg.Problem; end it with"
            " `return Problem(model, loss, train, test)`."
        )
    return problem


def _module(name: str, attribute: str) -> ModuleType:
    if str(Path.cwd()) not in map(str, map(Path.absolute, map(Path, sys.path))):
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it; commands do not
    try:
        if name and not name.startswith("."):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise EntryNotFound(f"importing {name} failed: {error}; install it.") from error
    file = f"{name.replace('.', '/')}.py"
    raise EntryNotFound(
        f"no module {name!r} can be imported from the working directory {Path.cwd()}; install it,"
        f" go to the folder it lies in, or name the file: '{file}:{attribute}'."
    )


def _file(name: str, attribute: str) -> ModuleType:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        listing = f" Python files there: {', '.join(beside[:10])}." if beside else ""
        raise EntryNotFound(
            f"{name} is not there, seen from the working directory {Path.cwd()}; write the path of"
            f" the file, '/path/to/{path.name}:{attribute}'.{listing}"
        )
    # A name of its own for each path, so that two files problem.py do not meet, and registered, so
    # that what it defines can be pickled.
    unique = f"thalweg_entry_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # a script's own folder is importable, as in Python
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise EntryNotFound(f"{name} cannot be imported: {error}; install it.") from error
    return module


def _callables(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(names) or "none"
