"""Lines, planes and spaces through a landscape, laid by a named rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry import (
    covering_extent,
    principal_directions,
    project,
    random_directions,
    through_points,
    top_eigenvalues,
)
from thalweg.geometry.directions import not_orthogonal
from thalweg.geometry.grid import check_cells
from thalweg.measurements.optimizer_moments import optimizer_moments, orthonormal
from thalweg.measurements.point import MeasuredPoint
from thalweg.run import Progress, silent

RULES = ("random", "principal", "points", "eigen", "moments")


@dataclass(frozen=True)
class Plane:
    """
    What a surface is drawn over.

    Attributes
    ----------
    directions : Tensor
        Shape (W, k), from the viewpoint's centre.
    rule : str
        How they were found, in words.
    extent : list of (low, high)
        One pair an axis.
    points : list of int
        Grid points along each axis.
    places : list of list of float
        Where the given points lie, of a plane that goes through them.
    """

    directions: Tensor
    rule: str
    extent: list[tuple[float, float]]
    points: list[int]
    places: list[list[float]] = field(default_factory=list)


def check_plane(options: dict[str, Any], points: int, trajectory: bool) -> None:
    """
    Check that a rule has what it needs, before anything is computed.

    Parameters
    ----------
    options : dict
        ``directions`` and ``dims`` among them.
    points : int
        Number of points given.
    trajectory : bool
        Whether there is a trajectory.

    Raises
    ------
    InvalidArgument
        If it has not; the message says what to write.
    """
    rule, dims = options["directions"], options["dims"]
    if rule not in RULES or not 1 <= dims <= 3:
        raise InvalidArgument(
            f"directions {rule!r} in {dims} dimensions; write one of {', '.join(RULES)}, and 1 to 3"
            " dimensions."
        )
    if rule == "points" and points != dims + 1:
        raise InvalidArgument(
            f"directions through {points} points in {dims} dimensions; write --checkpoint twice for"
            " a line (--dims 1), three times for a plane (--dims 2)."
        )
    if rule != "points" and points > 1:
        raise InvalidArgument(
            f"{points} checkpoints with {rule} directions; write one, or --directions points."
        )
    if rule == "principal" and not trajectory:
        raise InvalidArgument(
            "principal directions are those of a trajectory; write --run RUN --trajectory NAME."
        )


def lay_plane(
    measured: MeasuredPoint, options: dict[str, Any], *, progress: Progress = silent
) -> Plane:
    """
    Find directions by a rule, and how far to go along them.

    Parameters
    ----------
    measured : MeasuredPoint
        Where they start.
    options : dict
        ``directions`` (one of `RULES`), ``dims``, ``normalize``, ``seed``; ``points``, a number or
        one an axis; ``extent``, None or as `thalweg.surface` takes it.
    progress : Progress
        Shows the search for eigenvectors.

    Returns
    -------
    Plane
        By default it reaches to distance 1 for random directions, shows all of the trajectory for
        its principal directions, all points for directions through these, with as much of a
        trajectory as triples it, and ends where the quadratic model has risen by 1 for
        eigenvectors.
    """
    dims, given = options["dims"], options["points"]
    points = [given] * dims if isinstance(given, int) else list(given)
    if len(points) != dims or min(points) < 3:
        raise InvalidArgument(f"{points} points along {dims} axes; write at least 3 for each.")
    check_cells(points)
    found = _BY_RULE[options["directions"]](measured, options, points, progress)
    if options["extent"] is None:
        return found
    return replace(found, extent=_pairs(options["extent"], dims))


def _pairs(extent: float | Sequence[Any], dims: int) -> list[tuple[float, float]]:
    given = [extent] if isinstance(extent, int | float) else list(extent)
    given = given * dims if len(given) == 1 else given
    if len(given) != dims:
        raise InvalidArgument(f"{len(given)} extents for {dims} axes; write one, or one an axis.")
    return [
        (-float(one), float(one))
        if isinstance(one, int | float)
        else (float(one[0]), float(one[1]))
        for one in given
    ]


def _random(
    measured: MeasuredPoint, options: dict[str, Any], points: list[int], progress: Progress
) -> Plane:
    normalize, seed = options["normalize"], options["seed"]
    directions = random_directions(
        measured.risk.space,
        measured.centre,
        options["dims"],
        normalize=None if normalize == "none" else normalize,
        seed=seed,
    )
    scaled = "not scaled" if normalize == "none" else f"scaled to the weights by {normalize}"
    rule = f"random, Gaussian, {scaled}, biases and norm parameters left out, seed {seed}"
    rule += not_orthogonal(directions)
    # Unscaled entries are of size 1, far beyond any weight.
    reach = 1.0 if normalize != "none" else float(measured.centre.norm() / directions[:, 0].norm())
    return Plane(directions, rule, [(-reach, reach)] * options["dims"], points)


def _points(
    measured: MeasuredPoint, options: dict[str, Any], points: list[int], progress: Progress
) -> Plane:
    found = through_points(*measured.points, risk=measured.risk)
    path = None
    if measured.path is not None:
        path = project(measured.path, measured.centre, found.directions).coordinates.cpu().numpy()
    extent = covering_extent(found.coordinates.cpu().numpy(), points, margin=0.5, path=path)
    rule = f"through {' and '.join(measured.names)}, both as long as the first two are apart"
    if options["dims"] == 1:
        rule = f"from {measured.names[0]} to {measured.names[1]}"
    return Plane(found.directions, rule, extent, points, found.coordinates.tolist())


def _principal(
    measured: MeasuredPoint, options: dict[str, Any], points: list[int], progress: Progress
) -> Plane:
    assert measured.path is not None
    found = principal_directions(measured.path, options["dims"])
    projected = project(measured.path, measured.centre, found.directions).coordinates
    names = " and ".join(way.name for way in measured.ways)
    which = "trajectory" if len(measured.ways) == 1 else "trajectories"
    rule = f"principal components of the {which} {names}, of length 1"
    return Plane(found.directions, rule, covering_extent(projected.cpu().numpy(), points), points)


def _eigen(
    measured: MeasuredPoint, options: dict[str, Any], points: list[int], progress: Progress
) -> Plane:
    dims = options["dims"]
    hessian = measured.risk.hessian(measured.centre)
    found = top_eigenvalues(hessian, dims, seed=options["seed"], progress=progress)
    values = found.values.tolist()
    told = ", ".join(f"{value:.4g}" for value in values)
    longest = 0.5 * float(measured.centre.norm())
    reach = min(longest, math.sqrt(2 / values[0])) if values[0] > 0 else longest
    rule = f"eigenvectors of the Hessian's largest eigenvalues ({told}), of length 1"
    return Plane(found.vectors, rule, [(-reach, reach)] * dims, points)


def _moments(
    measured: MeasuredPoint, options: dict[str, Any], points: list[int], progress: Progress
) -> Plane:
    found = optimizer_moments(measured.file, measured.risk.space)
    directions = torch.stack(found.directions[: options["dims"]], 1).to(measured.centre)
    if directions.shape[1] < options["dims"]:  # of a method with one moment
        slope = measured.risk.gradient(measured.centre)
        directions = torch.cat([directions, slope[:, None]], 1)
        found.names.append("the gradient there")
    if directions.shape[1] < options["dims"]:
        raise InvalidArgument(
            f"{options['dims']} dimensions, and {' and '.join(found.names)} give"
            f" {directions.shape[1]}; write --dims {directions.shape[1]}."
        )
    directions = orthonormal(directions)
    reach = _last_stretch(measured)
    rule = f"along {' and '.join(found.names[: options['dims']])}, made orthogonal, of length 1"
    return Plane(directions, rule, [(-reach, reach)] * options["dims"], points)


def _last_stretch(measured: MeasuredPoint) -> float:
    """Go as far as the training went from its middle, or a tenth of the weights' length."""
    path = None if measured.along is None else measured.along.weights
    if path is not None and len(path) > 1:
        far = float((path[len(path) // 2] - path[-1]).norm())
        if far > 0:
            return far
    return 0.1 * float(measured.centre.norm())


_Layer = Callable[[MeasuredPoint, dict[str, Any], list[int], Progress], Plane]
_BY_RULE: dict[str, _Layer] = {
    "random": _random,
    "points": _points,
    "principal": _principal,
    "eigen": _eigen,
    "moments": _moments,
}


def shown_points(measured: MeasuredPoint, plane: Plane) -> dict[str, Any]:
    """
    Project trajectory and points onto a plane.

    Returns
    -------
    dict
        ``position`` (n, k) and ``distance`` (n,) of the trajectory's points and then of the given
        ones, arrays; ``trajectory`` and ``name`` (n,), text, of which one is empty; ``step``
        (n,), -1 for given points; ``weights`` (n, W); ``variance_share`` of the trajectory.
    """
    path = measured.points[:0] if measured.path is None else measured.path
    given = measured.points if measured.given else measured.points[:0]
    weights = torch.cat([path, given])
    projected = project(weights, measured.centre, plane.directions)
    share = math.nan
    if len(path) > 1:
        share = project(path, measured.centre, plane.directions).variance_share
    n = len(given)
    ways = [(way.name, step) for way in measured.ways for step in way.steps]
    return {
        "position": projected.coordinates.cpu().numpy(),
        "distance": projected.distances.cpu().numpy(),
        "trajectory": [name for name, _ in ways] + [""] * n,
        "name": [""] * len(ways) + list(measured.names[:n]),
        "step": [step for _, step in ways] + [-1] * n,
        "weights": weights,
        "variance_share": share,
    }
