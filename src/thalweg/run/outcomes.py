"""The worker's side of a task: perform it, tell how far it is, and lay down its result."""

from __future__ import annotations

import importlib
import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import DamagedFile, EntryNotFound, InvalidArgument, ThalwegError
from thalweg.run.arrays import read_arrays
from thalweg.run.box import inside
from thalweg.run.digests import checksum, is_sealed_json
from thalweg.run.files import read_json, write_atomic, write_json
from thalweg.run.heartbeat import Reporter, progress_path
from thalweg.run.holes import STEPS
from thalweg.run.store import Run, open_run
from thalweg.run.trust import handed_on

Report = Callable[[int], None]


def perform(spec: dict[str, Any]) -> dict[str, Any]:
    """
    Perform one task and write its result before it counts as done.

    A result that is there is kept: an engine may ask again, as Dask does where the answer of a task
    was lost with the worker that had it.

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
    try:
        run = open_run(spec["run"])
        if is_done(run.tasks, spec["key"]):
            return {"error": None, "trace": "", "passing": False}
        with (
            Reporter(progress_path(run.tasks, spec["key"])) as report,
            run.on_behalf(),
            handed_on(spec["trusted"]),
        ):
            values = _resolve(spec["function"])(run, spec["arguments"], report)
            _write_outcome(run, spec, values)
    except Exception as error:
        passing = isinstance(error, OSError | MemoryError) and not isinstance(error, ThalwegError)
        text = f"{type(error).__name__}: {error}"
        return {"error": text, "trace": traceback.format_exc(), "passing": passing}
    return {"error": None, "trace": "", "passing": False}


def is_done(tasks: Path, key: str) -> bool:
    """Say whether the task has a result."""
    return _json_path(tasks, key).exists()


def read_outcome(tasks: Path, key: str) -> dict[str, Any]:
    """
    Read the result of a task that is done.

    Raises
    ------
    DamagedFile
        If it is not what was written.
    """
    path = _json_path(tasks, key)
    about = read_json(path)
    try:
        values: dict[str, Any] = dict(about["scalars"])
        names, order, sums = about["arrays"], about["order"], about.get("sums")
    except (KeyError, TypeError, ValueError):
        raise DamagedFile(f"{path} is damaged: it is no result of a task.") from None
    if names:
        arrays = read_arrays(_arrays_path(tasks, key))
        for i, name in enumerate(names):
            values[name] = arrays.get(f"arr_{i}")
            if sums is not None and sums[i] != _array_checksum(values[name]):
                raise DamagedFile(f"{_arrays_path(tasks, key)} is damaged: so is its {name}.")
    return {name: values[name] for name in order}


def is_covered(tasks: Path, key: str) -> bool:
    """Say whether a result, known to be whole, carries checksums."""
    return is_sealed_json(_json_path(tasks, key).read_bytes())


def forget_outcome(tasks: Path, key: str) -> None:
    """Remove the result of a task, which is then to be done again."""
    _json_path(tasks, key).unlink(missing_ok=True)
    _arrays_path(tasks, key).unlink(missing_ok=True)


def batch_of_tasks(run: Run) -> int | None:
    """Find the batch of full passes that the tasks of a run were given; None if none is done."""
    for path in run.tasks.glob("*.json"):
        with suppress(ThalwegError):
            batch = read_json(path).get("arguments", {}).get("evaluation_batch")
            if isinstance(batch, int):
                return batch
    return None


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


def _write_outcome(run: Run, spec: dict[str, Any], values: Any) -> None:
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
        path = _arrays_path(run.tasks, spec["key"])
        write_atomic(path, lambda temporary: _save_arrays(temporary, list(arrays.values())))
    about = {name: spec[name] for name in ("function", "arguments", "label", "needs")}
    about |= {"scalars": scalars, "arrays": list(arrays), "order": list(values)}
    about["sums"] = [_array_checksum(array) for array in arrays.values()]
    if trajectory := spec["arguments"].get("trajectory"):
        about[STEPS] = [int(path.stem) for path in run.checkpoints(trajectory)]
    write_json(_json_path(run.tasks, spec["key"]), about)


def _save_arrays(path: Path, arrays: list[np.ndarray[Any, Any]]) -> None:
    # A handle: NumPy would add a suffix to a path.
    with path.open("wb") as file:
        np.savez(file, *arrays)


def _array_checksum(array: np.ndarray[Any, Any] | None) -> str:
    """Hash type, shape and bytes of an array."""
    if array is None:
        return ""
    plain = np.frombuffer(np.ascontiguousarray(array).tobytes(), dtype=np.uint8)
    return f"{checksum(plain, checksum(f'{array.dtype.str}{array.shape}'.encode())):08x}"


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
