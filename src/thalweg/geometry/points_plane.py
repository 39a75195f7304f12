"""A line, plane or space through given points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.anchors import Anchors
from thalweg.landscape.protocols import Function
from thalweg.problems.between import FixedParts, States
from thalweg.problems.checkpoints import Point
from thalweg.result import Result


@dataclass(frozen=True)
class PointsPlane(Result):
    """
    A line, plane or space through given points.

    Attributes
    ----------
    origin : Tensor
        Shape (W,): the first point.
    directions : Tensor
        Shape (W, k) for k + 1 points, orthogonal, of equal length: the distance of the first two.
    coordinates : Tensor
        Shape (k + 1, k), float64: where the points lie, in units of the directions. The first is at
        0, the second at (1, 0).
    states : States
        The points with their frozen weights and buffers, where whole states were given.
    """

    origin: Tensor
    directions: Tensor
    coordinates: Tensor
    states: States

    @property
    def anchors(self) -> Anchors | None:
        """What gives each place its frozen weights and buffers; None where they do not differ."""
        return Anchors(self.coordinates, self.states.parts) if self.states.parts else None


def through_points(*points: Tensor | Point, risk: Function | None = None) -> PointsPlane:
    """
    Lay a line through two points, a plane through three, or a space through four.

    Angles and ratios of lengths in the plane are true, as all directions are orthogonal and of one
    length.

    Parameters
    ----------
    *points : Tensor or Point
        Flat vectors, shape (W,), or whole states (`open_point`).
    risk : EmpiricalRisk, optional
        Whose weights these are; needed for whole states.

    Returns
    -------
    PointsPlane
        Origin, directions and the coordinates of the points; `surface` takes it as it is.

    Raises
    ------
    InvalidArgument
        If shapes differ, the first two points coincide, or another lies where those before it
        span.

    Examples
    --------
    >>> w0, w1, w2 = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    >>> plane = through_points(w0, w1, w2)
    >>> plane.coordinates.tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.5, 1.5]]
    >>> plane.directions.T.tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """
    states = _states(points, risk)
    return _through(states.weights, states)


def _states(points: Sequence[Tensor | Point], risk: Function | None) -> States:
    if not 2 <= len(points) <= 4:
        raise InvalidArgument(f"{len(points)} points; give two for a line, three for a plane.")
    if risk is None:
        flat = [point for point in points if isinstance(point, Tensor)]
        if len(flat) < len(points):
            raise InvalidArgument(
                "give flat vectors, or whole states of tw.open_point with the risk whose they are:"
                " through_points(*points, risk=risk)."
            )
        return States(flat, [], FixedParts())
    return States.of(risk, points)


def _through(points: list[Tensor], states: States) -> PointsPlane:
    origin = points[0]
    if len({(tuple(p.shape), p.dtype) for p in points}) > 1 or origin.dim() != 1:
        shapes = [(tuple(p.shape), p.dtype) for p in points]
        raise InvalidArgument(f"points of shapes and dtypes {shapes}; give vectors of one space.")
    length = float((points[1].double() - origin.double()).norm())
    if length == 0.0:
        raise InvalidArgument("the first two are the same point, so no line goes through them.")
    longest = max(float(point.double().norm()) for point in points)
    directions: list[Tensor] = []
    coordinates = [[0.0] * (len(points) - 1)]
    for place, point in enumerate(points[1:]):
        remainder, along = point.double() - origin.double(), [0.0] * len(directions)
        for _ in range(2):  # the second pass takes out what rounding left
            for i, direction in enumerate(directions):
                share = float(remainder @ direction) / length**2
                remainder, along[i] = remainder - share * direction, along[i] + share
        height = float(remainder.norm())
        # Below this, what is left is the rounding of the points themselves.
        if height <= 4 * torch.finfo(origin.dtype).eps * longest:
            raise InvalidArgument(
                f"point {place + 2} lies on the line or plane of those before it; give these alone."
            )
        directions.append(remainder * (length / height))
        row = [*along, height / length]
        coordinates.append(row + [0.0] * (len(points) - 1 - len(row)))
    basis = torch.stack(directions, 1).to(origin.dtype)
    places = torch.tensor(coordinates, dtype=torch.float64)
    return PointsPlane(origin, basis, places, states)
