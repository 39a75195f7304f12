"""What is left in the limit of all that was perturbed: networks, zeros, and known landscapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Task
from thalweg.studies.displacement import Copy
from thalweg.studies.known_landscapes import KNOWN
from thalweg.studies.limits import Limit, between, hidden

if TYPE_CHECKING:
    import xarray as xr

MAIN, NARROW, SQUARED = "main", "narrow", "squared"
# What a pair of points is: a copy and its parent, or two copies.
PARENT, SIBLINGS = "parent", "siblings"
_SPLIT = "thalweg.studies.displacement_task:split_displacement"
_ZERO = "thalweg.studies.squared_returns:perturb_zero"
_KNOWN = "thalweg.studies.known_landscapes:perturb_known"
_SIZES = ("weights", "equations", "rank", "top")
Done = Sequence[tuple[Task, dict[str, Any]]]


def gather_limits(outcomes: Done, copies: Sequence[Copy], *, scale: float) -> xr.Dataset:
    """
    Bound what is left of every perturbation of final points in the limit of training.

    Parameters
    ----------
    outcomes : sequence of (Task, dict)
        Tasks of the study with their outcomes.
    copies : sequence of Copy
        Of the networks trained on.
    scale : float
        Of the noise that the claims are about.

    Returns
    -------
    xarray.Dataset
        Along ``pair``: ``landscape`` (``"main"``, ``"narrow"``, ``"squared"`` or a known one),
        ``between`` (``"parent"`` or ``"siblings"``), ``cluster``, `Limit`'s fields and bounds,
        ``top``, the largest curvature at the parent (0 where it was not measured),
        ``parent_error`` of networks that SGD trained,
        and shares of the displacement along curvatures, NaN where they were not measured.
    """
    import xarray as xr

    rows = [*_trained(outcomes, copies, scale), *_flowed(outcomes)]
    names = dict.fromkeys(name for row in rows for name in row)
    dataset = xr.Dataset(
        {name: ("pair", np.array([row.get(name, np.nan) for row in rows])) for name in names}
    )
    for name in ("left", "hidden", "low", "high"):
        dataset[name].attrs["units"] = "lengths of the perturbation"
    return dataset


def _trained(outcomes: Done, copies: Sequence[Copy], scale: float) -> Iterator[dict[str, Any]]:
    """Give the copies that SGD trained on from the ends of trainings, and pairs of siblings."""
    splits = {
        task.arguments["parent"]: figures for task, figures in outcomes if task.function == _SPLIT
    }
    members = [
        copy
        for copy in copies
        if (copy.about["moment"], copy.about["optimizer"]) == ("final", "sgd")
        and math.isclose(copy.about["scale"], scale)
    ]
    limits: list[Limit] = []
    for copy in members:
        parent = copy.about["parent"]
        split = splits.get(parent, {})
        top = split.get("top", 0.0)
        limits.append(_limit_of(copy, top))
        row = _named(copy, PARENT) | limits[-1].to_dict() | {"top": top}
        # Shares are measured of the first copy of each parent.
        yield row | (_flat(split) if copy.about["copy"] == 0 else {})
    for i, j in _disjoint_siblings(members):
        top = splits.get(members[i].about["parent"], {}).get("top", 0.0)
        first, second = members[i], members[j]
        limit = between(
            (first.points[-1], second.points[-1]),
            (first.points[0], second.points[0]),
            (first.figures["end_loss"], second.figures["end_loss"]),
            (limits[i], limits[j]),
            top,
        )
        yield _named(first, SIBLINGS) | limit.to_dict() | {"top": top}


def _named(copy: Copy, kind: str) -> dict[str, Any]:
    about = copy.about
    named = {"landscape": about["network"], "cluster": about["parent"], "between": kind}
    return named | {"parent_error": copy.figures["parent_error"]}


def _limit_of(copy: Copy, top: float) -> Limit:
    row, figures = copy.row(), copy.figures
    return Limit(
        left=row["displacement"],
        hidden=hidden((figures["end_loss"], figures["parent_loss"]), row["perturbation"], top),
        back=copy.returned,
    )


def _disjoint_siblings(copies: Sequence[Copy]) -> Iterator[tuple[int, int]]:
    """Pair copies of one parent; no copy is in two pairs."""
    used: set[int] = set()
    for i, copy in enumerate(copies):
        for j in range(i + 1, len(copies)):
            if not used & {i, j} and copy.is_sibling(copies[j]):
                used |= {i, j}
                yield i, j


def _flowed(outcomes: Done) -> Iterator[dict[str, Any]]:
    """Give the copies that gradient flow brought back, and pairs of siblings."""
    for task, figures in outcomes:
        if task.function not in (_ZERO, _KNOWN):
            continue
        arguments = task.arguments
        name = arguments.get("landscape", SQUARED)
        own: dict[str, Any] = {
            key: figures[key] for key in ("weights", "equations", "rank") if key in figures
        }
        for kind, rows in ((PARENT, figures["copies"]), (SIBLINGS, figures["siblings"])):
            for number, row in enumerate(rows):
                # Every copy of a known landscape says the same of it, whichever its parent.
                cluster = f"draw {arguments['seed']}" if name == SQUARED else f"copy {number}"
                shared: dict[str, Any] = {
                    "landscape": name,
                    "cluster": cluster,
                    "between": kind,
                    **own,
                }
                extra = _flat(figures["shares"]) if kind == PARENT and number == 0 else {}
                naive = figures.get("naive", {}) if kind == PARENT else {}
                named = {f"naive_{key}": figure for key, figure in naive.items()}
                yield shared | row | extra | named


def _flat(split: dict[str, Any]) -> dict[str, float]:
    return {
        f"{of}_{key}": value for of in ("noise", "left") for key, value in split.get(of, {}).items()
    }


def gather_paths(outcomes: Done) -> xr.Dataset:
    """
    Gather how far copies were from their parents while the flow went on.

    Returns
    -------
    xarray.Dataset
        Along ``record``: ``left`` (lengths of the perturbation), ``time`` (in units of one over
        the largest curvature), ``landscape`` and ``copy``.
    """
    import xarray as xr

    paths = [
        (task.arguments.get("landscape", SQUARED), task.arguments["seed"], figures["path"])
        for task, figures in outcomes
        if task.function in (_ZERO, _KNOWN)
    ]
    points = np.concatenate([path for _, _, path in paths])
    names = [name for name, _, path in paths for _ in path]
    copies = [f"{seed}-{copy:.0f}" for _, seed, path in paths for copy in path[:, 0]]
    return xr.Dataset(
        {
            "left": ("record", points[:, 2], {"units": "lengths of the perturbation"}),
            "time": ("record", points[:, 1], {"units": "one over the largest curvature"}),
        },
        coords={"landscape": ("record", names), "copy": ("record", copies)},
    )


def limit_summary(limits: xr.Dataset) -> dict[str, dict[str, float]]:
    """Say for each landscape the mean bounds of copies and parents."""
    from_parent = limits.isel(pair=limits["between"].values == PARENT)
    names = from_parent["landscape"].values
    order = [name for name in (MAIN, NARROW, SQUARED, *KNOWN) if name in names]
    return {
        name: {
            key: float(from_parent[key].values[names == name].mean())
            for key in ("low", "left", "high")
        }
        for name in order
    }
