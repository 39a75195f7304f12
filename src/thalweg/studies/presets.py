"""The configuration of a reproduction: a preset, and what was asked for instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.problems.load import is_hub_name, not_found
from thalweg.run.plugins import PROBLEMS, installed
from thalweg.run.trust import name_entry
from thalweg.studies.plugins import PLUGINS
from thalweg.studies.registry import STUDIES
from thalweg.studies.sizes import with_sizes

# The paper's: batches of 100, momentum 0.9; our learning rate and schedule.
_TRAINING = {"lr": 0.05, "momentum": 0.9, "batch_size": 100, "schedule": "cosine"}

# What each preset trains on; the sizes of a study stand in its own file, as SIZES. All of it ends
# in run.toml.
PRESETS: dict[str, dict[str, Any]] = {
    "demo": {"entry": "digits", "settings": {}},
    "laptop": {"entry": "cifar10", "settings": {"train_size": 5000, "test_size": 2000}},
    "paper": {"entry": "cifar10", "settings": {}},
}


def configure(
    preset: str = "demo",
    *,
    data: str | None = None,
    studies: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    sizes: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Write out the whole configuration of a reproduction.

    Parameters
    ----------
    preset : {"demo", "laptop", "paper"}
        Its size.
    data : str, optional
        Data set instead of the preset's: ``"digits"``, ``"cifar10"``, an entry string
        ``"path/file.py:make"``, a hub name or a folder of images.
    studies : list of str, optional
        Which studies; by default all of Thalweg's own, and none of other packages'.
    settings : dict, optional
        Given on to `thalweg.load_problem`.
    sizes : dict, optional
        Other sizes than the preset's: ``{"perturb_and_return.copies": 5}``; see `with_sizes`.
    seed : int
        Added to every seed of the studies: another one repeats all of it independently.

    Returns
    -------
    dict
        What goes into ``run.toml``.

    Raises
    ------
    InvalidArgument
        If preset, study or size is unknown.
    EntryNotFound
        If no data set has the name.
    """
    if preset not in PRESETS:
        raise InvalidArgument(f"preset {preset!r}; write one of {', '.join(PRESETS)}.")
    chosen = studies or [name for name in STUDIES if name not in PLUGINS]
    unknown = [name for name in chosen if name not in STUDIES]
    if unknown:
        raise InvalidArgument(f"study {unknown[0]!r}; write one of {', '.join(STUDIES)}.")
    for name in chosen:
        if preset not in STUDIES[name].SIZES:
            presets = ", ".join(STUDIES[name].SIZES)
            raise InvalidArgument(
                f"the study {name!r} has no preset {preset!r}; write one of {presets}."
            )
    config = {
        "preset": preset,
        "seed": seed,
        "studies": chosen,
        "problem": _problem(PRESETS[preset], data, settings or {}),
        "training": _TRAINING,
        **{name: STUDIES[name].SIZES[preset] for name in chosen},
    }
    return with_sizes(config, sizes or {})


def _problem(base: dict[str, Any], data: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    if data is None or data == base["entry"]:
        return {"entry": base["entry"], "settings": base["settings"] | settings}
    if data in ("digits", "teacher") or ":" in data or data in installed(PROBLEMS):
        name_entry(data)
        return {"entry": _whole(data), "settings": settings}
    if not (data == "cifar10" or Path(data).is_dir() or is_hub_name(data)):
        raise not_found(data)
    # Anything else is images: by hub name, or a folder in the layout of one.
    sizes = base["settings"] if base["entry"] == "cifar10" else {}
    place = {} if data == "cifar10" else {"data": _whole(data)}
    return {"entry": "cifar10", "settings": sizes | place | settings}


def _whole(data: str) -> str:
    """Write out the path in an entry, so that a resume from another folder finds it."""
    path, colon, name = data.partition(":")
    return str(Path(path).resolve()) + colon + name if Path(path).exists() else data
