"""The grid of a surface: axes in units of the directions, and its points in parameter space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.run.bounds import check_memory

AXES = ("x", "y", "z")
Extent = float | Sequence[float] | Sequence[Sequence[float]]


class Grid:
    """
    Points ``w + x d0 + y d1 + z d2`` on a rectangular grid.

    Parameters
    ----------
    w : Tensor
        Shape (W,).
    directions : Tensor
        Shape (W, k) with k at most 3.
    axes : sequence of float64 array
        One a direction: the coordinates along it.
    """

    def __init__(self, w: Tensor, directions: Tensor, axes: Sequence[NDArray[np.float64]]) -> None:
        self.w, self.directions, self.axes = w, directions.to(w), list(axes)
        self.shape = tuple(len(axis) for axis in axes)
        self._rows = self.directions.T.contiguous()
        self._point = torch.empty_like(w)

    def __len__(self) -> int:
        """Count the cells."""
        return math.prod(self.shape)

    def point(self, cell: int) -> Tensor:
        """Give the point of a cell, counted with the last axis fastest; overwritten by the next."""
        self._point.copy_(self.w)
        for coordinate, direction in zip(self.place(cell), self._rows, strict=True):
            if coordinate:  # so that the cell at 0 is w to the last bit
                self._point.add_(direction, alpha=coordinate)
        return self._point

    def place(self, cell: int) -> list[float]:
        """Give the coordinates of a cell."""
        indices = np.unravel_index(cell, self.shape)
        return [float(axis[i]) for axis, i in zip(self.axes, indices, strict=True)]

    def check_reach(self) -> None:
        """
        Refuse a grid that leaves the floating-point numbers.

        Raises
        ------
        InvalidArgument
            If a point would hold an infinite or undefined weight.
        """
        reach = self.w.abs()
        for axis, direction in zip(self.axes, self._rows, strict=True):
            reach = reach + direction.abs() * float(np.abs(axis).max())
        if not bool(torch.isfinite(reach).all()):
            raise InvalidArgument(
                "weights, directions or extents are not finite, or the grid goes beyond the largest"
                f" {self.w.dtype}; give finite ones and a smaller extent."
            )


def axes(extent: Extent, points: int | Sequence[int], dims: int) -> list[NDArray[np.float64]]:
    """
    Lay out the axes of a grid.

    Parameters
    ----------
    extent : float, pair of float, or sequence of pairs
        From -extent to extent, from the first to the second number, or a pair for each axis.
    points : int or sequence of int
        Number of points along every axis, or along each.
    dims : int
        Number of axes.

    Returns
    -------
    list of float64 array
        Increasing and evenly spaced. Where 0 falls on a point it is 0 exactly.

    Raises
    ------
    InvalidArgument
        If numbers do not fit.

    Examples
    --------
    >>> [axis.tolist() for axis in axes([(-1, 1), (0, 0.5)], (5, 2), 2)]
    [[-1.0, -0.5, 0.0, 0.5, 1.0], [0.0, 0.5]]
    """
    numbers = [points] * dims if isinstance(points, int) else list(points)
    pairs = _pairs(extent, dims)
    if len(numbers) != dims or len(pairs) != dims:
        raise InvalidArgument(
            f"extent={extent!r} and points={points!r} do not fit {dims} directions; give one"
            " number for all, or one entry a direction."
        )
    check_cells(numbers)
    return [_axis(low, high, n) for (low, high), n in zip(pairs, numbers, strict=True)]


def check_cells(points: Sequence[int]) -> None:
    """Refuse a grid of more cells than memory holds, each with its quantities and its tasks."""
    shape = " x ".join(map(str, points))
    check_memory(200 * math.prod(points), f"a grid of {shape} points", "Write fewer points.")


def _pairs(extent: Extent, dims: int) -> list[tuple[float, float]]:
    bounds = np.asarray(extent, dtype=np.float64)
    if bounds.ndim == 0:
        return [(-float(bounds), float(bounds))] * dims
    if bounds.shape == (2,):
        return [(float(bounds[0]), float(bounds[1]))] * dims
    if bounds.ndim == 2 and bounds.shape[1] == 2:
        return [(float(low), float(high)) for low, high in bounds]
    raise InvalidArgument(
        f"extent={extent!r}; write a number, (low, high), or such a pair for each direction."
    )


def _axis(low: float, high: float, points: int) -> NDArray[np.float64]:
    if points < 2 or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidArgument(
            f"an axis from {low} to {high} with {points} points; expected a low end below a high"
            " one and at least 2 points."
        )
    axis = np.linspace(low, high, points)
    nearest = int(np.abs(axis).argmin())
    if abs(axis[nearest]) < 1e-9 * (axis[1] - axis[0]):
        axis[nearest] = 0.0
    return axis
