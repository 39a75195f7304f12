"""Interpolation on a rectangular grid from those of its points that lie nearest Chebyshev's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.float64]


def nodes(points: int, count: int) -> list[int]:
    """
    Choose points of an evenly spaced axis for interpolation by a polynomial.

    Parameters
    ----------
    points : int
        Number of points of the axis.
    count : int
        How many of them to choose, from 2 to ``points``.

    Returns
    -------
    list of int
        Increasing places of distinct points, the ends among them: those nearest the extrema of
        Chebyshev's polynomial. An odd count of an odd number of points has the middle.

    Notes
    -----
    "Mock-Chebyshev" interpolation: stable as long as ``count`` stays of the order of the square
    root of ``points`` (Boyd and Xu 2009, doi:10.1016/j.amc.2009.02.018).

    Examples
    --------
    >>> nodes(51, 5)
    [0, 7, 25, 43, 50]
    """
    extrema = -np.cos(np.pi * np.arange(count) / (count - 1))
    places = np.rint((extrema + 1) / 2 * (points - 1)).astype(int)
    return [int(place) for place in np.unique(places)]


def barycentric(axis: Axis, chosen: Sequence[int]) -> NDArray[np.float64]:
    """
    Give the matrix that interpolates values at some points of an axis to all of them.

    Parameters
    ----------
    axis : float64 array
        Shape (points,).
    chosen : sequence of int
        Places of the nodes.

    Returns
    -------
    float64 array
        Shape (points, nodes): by the polynomial through the values at the nodes, in the second
        barycentric form (Berrut and Trefethen 2004, doi:10.1137/S0036144502417715). Rows of nodes
        are those of the identity.

    Examples
    --------
    >>> axis = np.linspace(-1.0, 1.0, 5)
    >>> barycentric(axis, [0, 2, 4]) @ axis[[0, 2, 4]] ** 2
    array([1.  , 0.25, 0.  , 0.25, 1.  ])
    """
    at = axis[list(chosen)]
    gaps = at[:, None] - at
    np.fill_diagonal(gaps, 1.0)
    # In units of the axis's own length the weights neither overflow nor vanish.
    weights = 1 / np.prod(gaps / (at[-1] - at[0]), axis=1)
    offsets = axis[:, None] - at
    at_node = offsets == 0
    terms = weights / np.where(at_node, 1.0, offsets)
    matrix: NDArray[np.float64] = terms / terms.sum(1, keepdims=True)
    rows = at_node.any(1)
    matrix[rows] = at_node[rows]
    return matrix


class TensorRule:
    """
    Interpolation on a grid from the tensor product of nodes on its axes.

    Parameters
    ----------
    axes : sequence of float64 array
        The grid.
    counts : sequence of int
        Number of nodes along each axis.
    """

    def __init__(self, axes: Sequence[Axis], counts: Sequence[int]) -> None:
        self.shape = tuple(len(axis) for axis in axes)
        self.counts = tuple(counts)
        self.chosen = [nodes(len(a), c) for a, c in zip(axes, counts, strict=True)]
        self._matrices = [
            barycentric(axis, chosen) for axis, chosen in zip(axes, self.chosen, strict=True)
        ]

    @cached_property
    def cells(self) -> list[int]:
        """Cells of the grid that are nodes, the last axis fastest."""
        places = list(itertools.product(*self.chosen))
        cells: list[int] = np.ravel_multi_index(np.transpose(places), self.shape).tolist()
        return cells

    def weights(self, cells: Sequence[int]) -> NDArray[np.float64]:
        """Give the matrix from values at the nodes to those in some cells: (cells, nodes)."""
        places = np.unravel_index(np.asarray(cells, dtype=int), self.shape)
        products = np.ones((len(cells), 1))
        for matrix, place in zip(self._matrices, places, strict=True):
            products = (products[:, :, None] * matrix[place][:, None, :]).reshape(len(cells), -1)
        return products

    def near(self, marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mark the cells between marked nodes and the nodes next to them: (nodes,) to (cells,)."""
        near = np.zeros(self.shape, dtype=bool)
        for node in np.argwhere(marked.reshape(*map(len, self.chosen))):
            box = tuple(
                slice(chosen[max(i - 1, 0)], chosen[min(i + 1, len(chosen) - 1)] + 1)
                for chosen, i in zip(self.chosen, node, strict=True)
            )
            near[box] = True
        return near.reshape(-1)
