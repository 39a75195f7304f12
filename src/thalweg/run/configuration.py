"""A run's configuration: as run.toml holds it, and compared with another."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from thalweg.errors import InvalidArgument, RunConflict

if TYPE_CHECKING:
    pass


def entry_of(config: Mapping[str, Any]) -> str:
    """Give the entry of a configuration's problem; empty where it has none."""
    problem = config.get("problem")
    entry = problem.get("entry") if isinstance(problem, Mapping) else None
    return entry if isinstance(entry, str) else ""


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a reader of run.toml will see, so that configurations compare equal."""
    written = tomli_w.dumps({key: _plain(value, key) for key, value in _stated(config)})
    return tomllib.loads(written)


def _stated(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in config.items() if value is not None]


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(element, f"{key}.{name}") for name, element in _stated(value)}
    if isinstance(value, list | tuple):
        return [_plain(element, f"{key}[{i}]") for i, element in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, str | bool | int | float):
        raise InvalidArgument(
            f"The configuration's {key} is {value!r} ({type(value).__name__}), which run.toml "
            "cannot hold. Use text, numbers, booleans, lists or dicts of them."
        )
    return value


def check_same(folder: Path, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """
    Compare the configuration of the run in a folder with the one that is wanted.

    Raises
    ------
    RunConflict
        If they differ; the message lists where.
    """
    recorded, asked_for = _leaves(config), _leaves(wanted)
    keys = [
        key
        for key in {**recorded, **asked_for}
        if not _equal(recorded.get(key), asked_for.get(key))
    ]
    if keys:
        lines = [
            f"  {key}: got {_shown(asked_for, key)}, expected {_shown(recorded, key)}"
            for key in keys
        ]
        raise RunConflict(
            f"{folder} is a run of another configuration:\n" + "\n".join(lines) + "\n"
            "Choose another folder for the new run, or ask for the configuration of the old one."
        )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _equal(first: Any, second: Any) -> bool:
    # NaN is unequal to itself, and means the same.
    return bool(first == second) or repr(first) == repr(second)


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "nothing"
