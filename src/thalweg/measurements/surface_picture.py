"""The loss surface over a plane, with points and a way that led there projected onto it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from thalweg.geometry import surface
from thalweg.geometry.points_plane import PointsPlane
from thalweg.measurements.planes import Plane, lay_plane, shown_points
from thalweg.measurements.point import MeasuredPoint
from thalweg.plots.grids import outside
from thalweg.run import Engine, Progress, Run, silent
from thalweg.run.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    import xarray as xr


def picture(
    measured: MeasuredPoint,
    plane: Plane,
    options: dict[str, Any],
    *,
    run: Run | None = None,
    engine: Engine | None = None,
    task_timeout: float | None = None,
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
    run, engine, task_timeout, progress
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
        task_timeout=task_timeout,
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


def kept_plane(
    run: Run, measured: MeasuredPoint, options: dict[str, Any], progress: Progress
) -> Plane:
    """Lay the plane once a run: eigenvectors found anew may differ in the last bits."""
    path = run.inside("plane.safetensors")
    if not path.exists():
        laid = lay_plane(measured, options, progress=progress)
        about = {name: getattr(laid, name) for name in ("rule", "extent", "points", "places")}
        tensors = {"directions": laid.directions.cpu().contiguous()}
        write_tensors(path, tensors, {"plane": json.dumps(about)})
    tensors, metadata = read_tensors(path)
    about, directions = json.loads(metadata["plane"]), tensors["directions"].to(measured.points)
    extent = [(low, high) for low, high in about["extent"]]
    return Plane(directions, about["rule"], extent, about["points"], about["places"])


def _through(measured: MeasuredPoint, plane: Plane) -> Tensor | PointsPlane:
    """Give the directions; of a plane through whole states, with these."""
    if not plane.places:
        return plane.directions
    places = torch.tensor(plane.places, dtype=torch.float64)
    return PointsPlane(measured.centre, plane.directions, places, measured.states)


def _points(measured: MeasuredPoint, plane: Plane, progress: Progress) -> xr.Dataset:
    import xarray as xr

    shown = shown_points(measured, plane)
    fixed = [own for way in measured.ways for own in way.states.fixed]
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
    names = dict.fromkeys(str(name) for name in points["trajectory"].values if name)
    ways = [_trajectory(grid, points, name) for name in names]
    return {
        "directions": grid.attrs["directions"],
        "cells": int(grid["loss"].size),
        "not_finite": int((~grid["finite"]).sum()),
        "extent": {str(d): [float(grid[d][0]), float(grid[d][-1])] for d in grid["loss"].dims},
        "points": {str(dim): grid.sizes[dim] for dim in grid["loss"].dims},
        "measured": {name: _extremes(grid, name) for name in measured},
        "evaluations": int(grid["samples"].sum()),
        "trajectory_variance_share": points.attrs.get("variance_share"),
        "trajectory": next(iter(ways), None),
    } | ({"trajectories": ways} if len(ways) > 1 else {})


def _trajectory(grid: xr.Dataset, points: xr.Dataset, name: str) -> dict[str, Any]:
    """Say how much of a trajectory the picture shows, and how far off it lies, in weights."""
    path = points.sel(point=points["trajectory"].values == name)
    return {
        "name": name,
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
