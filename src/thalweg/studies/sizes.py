"""Other sizes of studies than a preset's: how many parents, copies, epochs, and so on."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.studies.registry import STUDIES
from thalweg.studies.trajectories import SHARED


def with_sizes(config: dict[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """
    Change sizes of a configuration's studies.

    Trunks and branches are trained once for several studies. Their sizes (parents, epochs,
    checkpoints, scale, branch_epochs, branch_checkpoints) change in all of these together.

    Parameters
    ----------
    config : dict
        As `configure` writes it; it is left as it is.
    sizes : mapping
        ``{"perturb_and_return.copies": 5}``; names within names go on with a dot.

    Returns
    -------
    dict
        The configuration with these sizes.

    Raises
    ------
    InvalidArgument
        If there is no such study in the configuration or no such size, if a value is of another
        kind than the preset's, or if two studies ask for different trainings of one trunk.
    """
    changed = copy.deepcopy(config)
    shared: dict[str, tuple[str, Any]] = {}
    for name, value in sizes.items():
        study, _, inner = name.partition(".")
        _place(changed, study, inner, name, value)
        if inner in SHARED and study in _sharing(changed):
            before, size = shared.setdefault(inner, (name, value))
            if size != value:
                raise InvalidArgument(
                    f"{name} is {value!r} and {before} is {size!r}: the networks of both are"
                    " trained once. Write one of the two."
                )
    for inner, (_, value) in shared.items():
        for study in _sharing(changed):
            changed[study][inner] = value
    return changed


def changed_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """
    List the sizes of a configuration that are not its preset's, as `with_sizes` takes them.

    Examples
    --------
    >>> from thalweg.studies import configure
    >>> changed_sizes(configure("demo", sizes={"interpolation.points": 9}))
    {'interpolation.points': 9}
    """
    changes: dict[str, Any] = {}
    for study in config.get("studies", []):
        presets = (
            STUDIES[study].SIZES.get(str(config.get("preset")), {}) if study in STUDIES else {}
        )
        # A run of an older version may have other names, which this one cannot be given.
        for name in presets.keys() & config.get(study, {}).keys():
            changes |= _differences(config[study][name], presets[name], f"{study}.{name}")
    return dict(sorted(changes.items()))


def _differences(size: Any, preset: Any, name: str) -> dict[str, Any]:
    if isinstance(size, Mapping) and isinstance(preset, Mapping) and size.keys() == preset.keys():
        parts = (_differences(size[key], preset[key], f"{name}.{key}") for key in size)
        return {key: value for part in parts for key, value in part.items()}
    return {} if size == preset else {name: size}


def _sharing(config: Mapping[str, Any]) -> list[str]:
    """Which studies of a configuration train the same trunks."""
    return [study for study in config["studies"] if config[study].keys() >= set(SHARED)]


def _place(config: dict[str, Any], study: str, inner: str, name: str, value: Any) -> None:
    if study not in config["studies"]:
        raise InvalidArgument(
            f"size {name!r}: the run has the studies {', '.join(config['studies'])}; write"
            " STUDY.NAME=VALUE with one of them."
        )
    place, *above = reversed(inner.split("."))
    holder = config[study]
    for key in reversed(above):
        holder = _inside(holder, key, name)
    before = _inside(holder, place, name)
    if not _alike(before, value):
        raise InvalidArgument(
            f"size {name} is {value!r}; expected a value like the preset's, {before!r}."
        )
    holder[place] = value


def _inside(holder: Any, key: str, name: str) -> Any:
    if isinstance(holder, dict) and key in holder:
        return holder[key]
    names = list(holder) if isinstance(holder, dict) else []
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) or "none: it is one value"
    raise InvalidArgument(f"size {name!r}: {hint}got {key!r}, expected one of {listed}.")


def _alike(before: Any, value: Any) -> bool:
    """Say whether two values are of one kind; a whole number is a number."""
    if isinstance(before, bool) or isinstance(value, bool):
        return isinstance(before, bool) and isinstance(value, bool)
    if isinstance(before, float):
        return isinstance(value, int | float)
    return isinstance(value, type(before))
