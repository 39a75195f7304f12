"""The worker's side of a task: perform it, tell how far it is, and lay down its result."""

from __future__ import annotations

import importlib
import json
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import EntryNotFound, InvalidArgument, ThalwegError
from thalweg.run.box import inside
from thalweg.run.files import read_json, write_atomic, write_json
from thalweg.run.store import Run, open_run
from thalweg.run.trust import handed_on

Report = Callable[[int], None]

_SECONDS_BETWEEN_REPORTS = 0.5


def perform(spec: dict[str, Any]) -> dict[str, Any]:
    """
    Perform one task and write its result before it counts as done.

    Parameters
    ----------
    spec : dict
        ``run`` (path), ``key``, ``function``, ``arguments``, ``label``, ``needs`` (keys),
        ``trusted`` (entries that may be called, with their digests).

    Returns
    -------
    dict
        ``error`` (None or text), ``trace`` (text), and ``passing``: whether another attempt may
        succeed. What the function raises is an answer; an exception from here is the engine's.
    """
    begun: Path | None = None
    try:
        run = open_run(spec["run"])
        begun = progress_path(run.tasks, spec["key"])
        report = _Reporter(begun)
        with run.on_behalf(), handed_on(spec["trusted"]):
            values = _resolve(spec["function"])(run, spec["arguments"], report)
        _write_outcome(run.tasks, spec, values)
    except Exception as error:
        passing = isinstance(error, OSError | MemoryError) and not isinstance(error, ThalwegError)
        text = f"{type(error).__name__}: {error}"
        return {"error": text, "trace": traceback.format_exc(), "passing": passing}
    finally:
        if begun is not None:
            begun.unlink(missing_ok=True)
    return {"error": None, "trace": "", "passing": False}


def is_done(tasks: Path, key: str) -> bool:
    """Say whether the task has a result."""
    return _json_path(tasks, key).exists()


def read_outcome(tasks: Path, key: str) -> dict[str, Any]:
    """Read the result of a task that is done."""
    about = read_json(_json_path(tasks, key))
    values: dict[str, Any] = dict(about["scalars"])
    if about["arrays"]:
        with np.load(_arrays_path(tasks, key), allow_pickle=False) as arrays:
            values |= {name: arrays[f"arr_{i}"] for i, name in enumerate(about["arrays"])}
    return {name: values[name] for name in about["order"]}


def progress_path(tasks: Path, key: str) -> Path:
    """Say where a task under way writes how many of its units are done."""
    return inside(tasks, f"{key}.progress")


def read_progress(tasks: Path, key: str) -> int | None:
    """Read how many units of a task are done; None if it has not begun."""
    try:
        return int(progress_path(tasks, key).read_text(encoding="ascii") or 0)
    except FileNotFoundError:
        return None


class _Reporter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written at once: the file says that the task has begun, should its worker die.
        self(0)

    def __call__(self, done: int) -> None:
        if time.monotonic() >= self.next:
            # A torn number is only a smaller one for a moment: no need for an atomic write.
            with suppress(OSError):
                self.path.write_text(str(int(done)), encoding="ascii")
            self.next = time.monotonic() + _SECONDS_BETWEEN_REPORTS


def _resolve(entry: str) -> Callable[[Run, dict[str, Any], Report], Any]:
    module, _, name = entry.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise EntryNotFound(
            f"The task function {entry!r} cannot be imported ({error}). "
            "Write 'package.module:function', importable in the worker."
        ) from None
    return function


def _write_outcome(tasks: Path, spec: dict[str, Any], values: Any) -> None:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InvalidArgument(
            f"{spec['function']} returned {type(values).__name__}; expected a dict of str to JSON "
            "values or NumPy arrays."
        )
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    scalars = {n: _scalar(n, value) for n, value in values.items() if n not in arrays}
    if arrays:
        for name, array in arrays.items():
            _check_array(name, array)
        path = _arrays_path(tasks, spec["key"])
        write_atomic(path, lambda temporary: _save_arrays(temporary, list(arrays.values())))
    about = {name: spec[name] for name in ("function", "arguments", "label", "needs")}
    about |= {"scalars": scalars, "arrays": list(arrays), "order": list(values)}
    write_json(_json_path(tasks, spec["key"]), about)


def _save_arrays(path: Path, arrays: list[np.ndarray[Any, Any]]) -> None:
    # A handle: NumPy would add a suffix to a path.
    with path.open("wb") as file:
        np.savez(file, *arrays)


def _scalar(name: str, value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        json.dumps(plain)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"A task returned {name!r} as {type(value).__name__}; expected a JSON value or a NumPy "
            "array. Of a tensor, return tensor.numpy()."
        ) from None
    return plain


def _check_array(name: str, array: np.ndarray[Any, Any]) -> None:
    if array.dtype.hasobject:
        raise InvalidArgument(
            f"A task returned {name!r} as an array of objects; expected numbers, booleans or text."
        )


def _json_path(tasks: Path, key: str) -> Path:
    return inside(tasks, f"{key}.json")


def _arrays_path(tasks: Path, key: str) -> Path:
    return inside(tasks, f"{key}.npz")
