"""The loss surface around the end of a training, and the way that led there in the same plane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from thalweg.geometry import surface
from thalweg.geometry.directions import PointsPlane
from thalweg.plots.grids import outside
from thalweg.run import Engine, Progress, Report, Run, Task, silent, task_result
from thalweg.studies import trajectories
from thalweg.studies.claim import Claim
from thalweg.studies.dataset_codec import pack, unpack
from thalweg.studies.parents import on_draw
from thalweg.studies.planes import Plane, lay_plane, shown_points
from thalweg.studies.point import MeasuredPoint, load_measured_point
from thalweg.studies.told import Told
from thalweg.studies.trainings import UNITS_AN_EPOCH, trunk_task

if TYPE_CHECKING:
    import xarray as xr

# Every option of a surface, as configurations leave out what is not asked for.
DEFAULTS: dict[str, Any] = {
    "directions": "random",
    "normalize": "filter",
    "dims": 2,
    "extent": None,
    "tolerance": None,
    "relative": True,
    "test": True,
    "seed": 0,
}
RISK: dict[str, Any] = {"split": "train", "batchnorm": "recalibrate", "dtype": "float32"}
POINTS = {1: 51, 2: 25, 3: 11}
_PRINCIPAL: dict[str, Any] = {"directions": "principal", "dims": 2, "test": False}
SIZES: dict[str, dict[str, Any]] = {
    "demo": {**_PRINCIPAL, "points": 11},
    "laptop": {**_PRINCIPAL, "points": 15, "tolerance": 0.01},
    "paper": {**_PRINCIPAL, "points": 51, "tolerance": 0.01},
}
# Two passes forward, one of them for the statistics, when an epoch of training is three.
UNITS_A_CELL = 2 * UNITS_AN_EPOCH // 3


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the picture, which needs the training of the first seed of `trajectories`.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Task
        The training is the same task as that study's.
    """
    trunk = first_trunk(config)
    options = {**DEFAULTS, **config["surface"]}
    units = UNITS_A_CELL * options["points"] ** options["dims"]
    arguments = at_the_end_of(trunk) | {"surface": options}
    label = f"the surface around the end of {trunk.arguments['trajectory']}"
    function = "thalweg.studies.surface:take_picture"
    return [Task(function, arguments, needs=(trunk,), label=label, units=units)]


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Save the picture in the run's results.

    Parameters
    ----------
    run : Run
        Whose tasks are done.
    config : dict
        The one that `tasks` was given.
    progress : callable
        Not used.

    Returns
    -------
    dict
        As `save` gives it.
    """
    result = task_result(run, tasks(config)[0])
    assert result is not None
    return save(run, unpack(result))


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge nothing: a picture is to be looked at, and decides no claim."""
    return []


def first_trunk(config: dict[str, Any]) -> Task:
    """Specify the training of the first seed just as `trajectories` does."""
    sizes = config.get("trajectories") or trajectories.SIZES[config["preset"]]
    seed, length = config["seed"] + sizes["seeds"][0], ("epochs", "checkpoints")
    return trunk_task(on_draw(config, 0), seed, **{key: sizes[key] for key in length})


def at_the_end_of(trunk: Task) -> dict[str, Any]:
    """Specify the viewpoint at the last checkpoint of a training, in its own run."""
    given = trunk.arguments
    problem = given["problem"]
    settings = problem["settings"] | {"seed": given["seed"]}
    return {
        "problem": problem | {"settings": settings},
        "at": {"trajectory": given["trajectory"]},
        "risk": RISK,
        "evaluation_batch": given["evaluation_batch"],
    }


def take_picture(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take the picture, in a worker; cells that a killed one has finished are not done again."""
    options = arguments["surface"]
    measured = load_measured_point(arguments, run)
    plane = lay_plane(measured, options)
    told = Told(report, UNITS_A_CELL)
    return pack(picture(measured, plane, options, run=run, progress=lambda total, label: told))


def picture(
    measured: MeasuredPoint,
    plane: Plane,
    options: dict[str, Any],
    *,
    run: Run | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> dict[str, xr.Dataset]:
    """
    Measure the surface over a plane, and project points and trajectory onto it.

    Parameters
    ----------
    measured : MeasuredPoint
        The risk, and what is projected.
    plane : Plane
        Where.
    options : dict
        ``tolerance``, ``relative``, ``test``, ``seed``.
    run, engine, progress
        As for `thalweg.surface`.

    Returns
    -------
    dict of xarray.Dataset
        ``surface`` as `thalweg.surface` returns it, with the rule of the directions, and
        ``points``: ``position (point, axis)`` in units of the directions, ``distance (point)`` off
        the plane in weights, ``loss (point)`` there, exact; of the trajectory's checkpoints
        (coordinate ``trajectory``) and of the given points (``name``), each with its own frozen
        weights and buffers. Its attribute
        ``variance_share`` is the share of the trajectory's variance that the plane shows.
    """
    kept = {name: options[name] for name in ("tolerance", "relative", "test", "seed")}
    found = surface(
        measured.risk,
        measured.centre,
        directions=_through(measured, plane),
        extent=plane.extent,
        points=plane.points,
        run=run,
        engine=engine,
        progress=progress,
        **kept,
    )
    about = {
        "directions": plane.rule,
        "centre": measured.names[0],
        "weights": measured.risk.space.size,
        "notes": measured.notes,
    }
    return {"surface": found.assign_attrs(about), "points": _points(measured, plane, progress)}


def _through(measured: MeasuredPoint, plane: Plane) -> Tensor | PointsPlane:
    """Give the directions; of a plane through whole states, with these."""
    if not plane.places:
        return plane.directions
    places = torch.tensor(plane.places, dtype=torch.float64)
    return PointsPlane(measured.centre, plane.directions, places, measured.states)


def _points(measured: MeasuredPoint, plane: Plane, progress: Progress) -> xr.Dataset:
    import xarray as xr

    shown = shown_points(measured, plane)
    fixed = [] if measured.along is None else list(measured.along.fixed)
    fixed += measured.states.fixed if measured.given else []
    losses = []
    label = "losses of the points"
    with measured.states.visited(measured.risk), progress(len(fixed), label) as bar:
        for point, own in zip(shown["weights"], fixed, strict=True):
            measured.risk.set_fixed(own)
            losses.append(measured.risk.value(point))
            bar.update()
    data = xr.Dataset(
        {
            "position": (("point", "axis"), shown["position"], {"units": "directions"}),
            "distance": ("point", shown["distance"], {"units": "weights"}),
            "loss": ("point", np.array(losses), {"units": "mean loss a sample"}),
        },
        coords={name: ("point", shown[name]) for name in ("trajectory", "name", "step")},
    )
    share = shown["variance_share"]
    return data if math.isnan(share) else data.assign_attrs(variance_share=share)


def save(run: Run, found: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Save a picture as the results ``surface/...`` of a run, and say in JSON what it shows."""
    for name, data in found.items():
        run.save_result(f"surface/{name}", data)
    grid, points = found["surface"], found["points"]
    measured = [name for name in ("loss", "error", "test_loss", "test_error") if name in grid]
    return {
        "directions": grid.attrs["directions"],
        "cells": int(grid["loss"].size),
        "not_finite": int((~grid["finite"]).sum()),
        "extent": {str(d): [float(grid[d][0]), float(grid[d][-1])] for d in grid["loss"].dims},
        "points": {str(dim): grid.sizes[dim] for dim in grid["loss"].dims},
        "measured": {name: _extremes(grid, name) for name in measured},
        "evaluations": int(grid["samples"].sum()),
        "trajectory_variance_share": points.attrs.get("variance_share"),
        "trajectory": _trajectory(grid, points),
    }


def _trajectory(grid: xr.Dataset, points: xr.Dataset) -> dict[str, Any] | None:
    """Say how much of the trajectory the picture shows, and how far off it lies, in weights."""
    path = points.sel(point=points["trajectory"].values != "")
    if not path.sizes["point"]:
        return None
    return {
        "name": str(path["trajectory"].values[0]),
        "checkpoints": path.sizes["point"],
        "outside": int(outside(grid, path["position"].values).sum()),
        "off_by": float(path["distance"].max()),
    }


def _extremes(grid: xr.Dataset, name: str) -> dict[str, Any]:
    """Give the value at the centre, the lowest and the highest finite one, and where they are."""
    values = grid[name].values
    finite = np.isfinite(values)
    dims = grid[name].dims
    answer: dict[str, Any] = {
        key: None for key in ("centre", "lowest", "lowest_at", "highest", "stderr")
    }
    centre = tuple(int(np.abs(grid[dim].values).argmin()) for dim in dims)
    if finite[centre] and all(grid[d].values[i] == 0 for d, i in zip(dims, centre, strict=True)):
        answer["centre"] = float(values[centre])
    if finite.any():
        place = np.unravel_index(np.where(finite, values, np.inf).argmin(), values.shape)
        answer |= {
            "lowest": float(values[place]),
            "lowest_at": [float(grid[d].values[i]) for d, i in zip(dims, place, strict=True)],
            "highest": float(values[finite].max()),
            "stderr": float(np.nanmax(grid[f"{name}_stderr"].values[finite])),
        }
    return answer
