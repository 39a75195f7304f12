"""Looking at a configuration before any work: run.toml may come from anywhere."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from thalweg.dynamics import train
from thalweg.dynamics.settings import Settings
from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.run import Task
from thalweg.studies.registry import STUDIES

# A study may be so many times as large as its largest preset, and no larger.
_TIMES_THE_LARGEST = 1000
_COUNT = " (how many)"
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def check_config(config: Mapping[str, Any]) -> None:
    """
    Check what a reproduction is to do, before any of it is done.

    Parameters
    ----------
    config : mapping
        As `thalweg.studies.configure` writes it, or as a file holds it.

    Raises
    ------
    InvalidArgument
        Naming the setting that no study has, is of another kind, or asks for too much.
    """
    studies = config.get("studies")
    if not isinstance(studies, list) or not studies:
        raise InvalidArgument(f"studies is {studies!r}; expected a list of {', '.join(STUDIES)}.")
    for name in studies:
        if not isinstance(name, str) or name not in STUDIES:
            raise InvalidArgument(f"study {name!r}; write one of {', '.join(STUDIES)}.")
        _check_study(name, config.get(name))
    problem = config.get("problem")
    if not isinstance(problem, dict) or not isinstance(problem.get("entry"), str):
        raise InvalidArgument(f"problem is {problem!r}; expected an entry and settings.")
    _check_training(config.get("training"))


def tasks_of(name: str, config: dict[str, Any]) -> list[Task]:
    """List the tasks of a study; a configuration that lacks something is `InvalidArgument`."""
    try:
        return STUDIES[name].tasks(config)
    except ThalwegError:
        raise
    except _WRONG as error:
        raise InvalidArgument(
            f"the configuration of the study {name} cannot be used: {type(error).__name__} {error}."
        ) from None


def _check_study(name: str, sizes: Any) -> None:
    if not isinstance(sizes, dict):
        raise InvalidArgument(f"{name} is {sizes!r}; expected the sizes of the study.")
    largest: dict[str, float] = {}
    for preset in STUDIES[name].SIZES.values():
        for key, value in _numbers(preset):
            largest[key] = max(largest.get(key, 1), value)
    for key, value in _numbers(sizes):
        limit = _TIMES_THE_LARGEST * largest.get(key, 1000)
        # Seeds are large numbers that cost nothing.
        free = "seed" in key and _COUNT not in key and isinstance(value, int)
        if not abs(value) <= limit and not free:
            raise InvalidArgument(
                f"{name}.{key} is {value}, more than the limit of {limit:g}: a thousand times the"
                " largest preset. Write a smaller number."
            )


def _numbers(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Give all numbers in nested settings, and the lengths of lists, by name."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name + _COUNT, len(value)
            for element in value:
                yield from _numbers({name: element})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _check_training(training: Any) -> None:
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(train).parameters.items()
    }
    names = Settings.__dataclass_fields__.keys()
    if not isinstance(training, dict):
        raise InvalidArgument(f"training is {training!r}; expected its settings.")
    if unknown := sorted(training.keys() - names):
        raise InvalidArgument(f"training.{unknown[0]} is no setting of thalweg.train.")
    settings = {name: defaults[name] for name in names} | {"momentum": 0.0, "epochs": 1} | training
    try:
        Settings(**settings)
    except TypeError as error:
        raise InvalidArgument(f"training cannot be used: {error}.") from None
    if not all(math.isfinite(v) for v in training.values() if isinstance(v, float)):
        raise InvalidArgument(f"training is {training}; expected finite numbers.")
