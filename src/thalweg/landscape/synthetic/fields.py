"""Lattices of wells: all passes alike, or small basins inside of large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.landscape.synthetic.known import KnownLandscape, check, orthonormal
from thalweg.run.seeds import torch_generator


class WellLattice(KnownLandscape):
    """
    Wells at the points of a lattice in random axes, a flat bottom in the directions left.

    The value is the sum of ``height / 2 (1 - cos(2 pi z / spacing))`` over rotated coordinates z,
    each with a height and a spacing of its own. Gradient flow leads every coordinate to the
    nearest multiple of its spacing, so that labels and passes are exact.

    Parameters
    ----------
    dims : int
        W.
    heights, spacings : Tensor
        Shape (m,), of the coordinates that are not flat, m from 1 to W.
    seed : int
        Of the axes.
    """

    def __init__(self, dims: int, heights: Tensor, spacings: Tensor, *, seed: int) -> None:
        super().__init__(dims)
        check(
            bool((heights > 0).all() and (spacings > 0).all()),
            f"heights={heights.tolist()}, spacings={spacings.tolist()}",
            "positive numbers",
        )
        self.dimension = dims - len(heights)
        self._heights, self._spacings = heights.to(self.dtype), spacings.to(self.dtype)
        self._axes = orthonormal(dims, len(heights), torch_generator(seed, "rugged field"))
        self._known: dict[tuple[int, ...], int] = {}

    @property
    def curvature(self) -> float:
        """Largest eigenvalue of the Hessian at any point."""
        return float((self._heights * 2 * (math.pi / self._spacings) ** 2).max())

    def _values(self, points: Tensor) -> Tensor:
        waves = (points @ self._axes * (2 * math.pi / self._spacings)).cos()
        return self._heights.sum() / 2 - waves @ (self._heights / 2)

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        points = points.detach().to(self.device, self.dtype)
        angles = points @ self._axes * (2 * math.pi / self._spacings)
        values = self._heights.sum() / 2 - angles.cos() @ (self._heights / 2)
        slopes = angles.sin() * (math.pi * self._heights / self._spacings)
        return values, slopes @ self._axes.T

    def well(self, *steps: int) -> Tensor:
        """Give a lowest point by its steps along the first axes, shape (W,)."""
        z = torch.zeros(len(self._spacings), dtype=self.dtype)
        z[: len(steps)] = torch.tensor(steps, dtype=self.dtype)
        return self._axes @ (self._spacings * z)

    def label(self, w: Tensor, /) -> int:
        """Number the wells in the order in which they are asked for."""
        cell = self._cell(w)
        return self._known.setdefault(cell, len(self._known))

    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of the highest pass: axes are crossed one after the other."""
        one, other = (torch.tensor(list(self._known)[label]) for label in (i, j))
        crossed = self._heights[one != other]
        return float(crossed.max()) if len(crossed) else 0.0

    def _cell(self, w: Tensor) -> tuple[int, ...]:
        return tuple((self._point(w) @ self._axes / self._spacings).round().long().tolist())


class RuggedField(WellLattice):
    """
    A lattice of wells in random axes, each pass as high as each other: rough without hierarchy.

    With ``flat`` directions, basins side by side of which each has a flat bottom.

    Parameters
    ----------
    dims : int
        W.
    height : float
        Of the pass from a well to a neighbour, and so of the way to any other.
    spacing : float
        Distance of neighbours.
    flat : int
        Dimension of the bottoms, below W.
    seed : int
        Of the axes.

    Examples
    --------
    >>> field = RuggedField(6, height=0.5)
    >>> i, j = field.label(field.well(0)), field.label(field.well(3, -1))
    >>> round(field.value(field.well(3, -1)), 12), field.barrier(i, j)
    (0.0, 0.5)
    """

    def __init__(
        self,
        dims: int,
        *,
        height: float = 1.0,
        spacing: float = 1.0,
        flat: int = 0,
        seed: int = 0,
    ) -> None:
        check(0 <= flat < dims, f"flat={flat}", "a number below dims")
        ones = torch.ones(dims - flat, dtype=self.dtype)
        super().__init__(dims, height * ones, spacing * ones, seed=seed)


class NestedField(WellLattice):
    """
    Basins inside basins: lattices of wells of several sizes, in directions of their own.

    A basin of a wide lattice holds one of each closer lattice, with lower passes: minima are the
    leaves of a tree, and the pass between two is as high as the highest level in which they differ.
    The first of n spacings parts the largest basins, so that the tree has n + 1 levels: the whole,
    and n of basins. What is left of the W directions is flat.

    Parameters
    ----------
    dims : int
        W.
    heights : sequence of float
        Of the passes, of the widest lattice first, falling.
    spacings : sequence of float
        Of the lattices, falling.
    per_level : int
        Directions of each.
    seed : int
        Of the axes.

    Examples
    --------
    >>> field = NestedField(10, heights=(1.0, 0.25), spacings=(4.0, 0.5), per_level=2)
    >>> at = [field.label(field.well(*steps)) for steps in ((0,), (0, 0, 3, 1), (1, 0, 3))]
    >>> field.barrier(at[0], at[1]), field.barrier(at[0], at[2]), field.dimension
    (0.25, 1.0, 6)
    """

    def __init__(
        self,
        dims: int,
        *,
        heights: Sequence[float] = (1.0, 0.25),
        spacings: Sequence[float] = (4.0, 0.5),
        per_level: int = 4,
        seed: int = 0,
    ) -> None:
        got = f"heights={tuple(heights)}, spacings={tuple(spacings)}, per_level={per_level}"
        check(
            len(heights) == len(spacings) >= 1
            and per_level * len(heights) <= dims
            and all(list(values) == sorted(values, reverse=True) for values in (heights, spacings)),
            got,
            f"as many falling spacings as heights, of {dims} directions at most",
        )
        self.per_level = per_level
        tensors = (torch.tensor(tuple(values), dtype=self.dtype) for values in (heights, spacings))
        super().__init__(dims, *(t.repeat_interleave(per_level) for t in tensors), seed=seed)

    def labels(self, w: Tensor, /) -> tuple[tuple[int, ...], ...]:
        """Give the cells of a point, the largest basin's first: equal ones are shared."""
        cell = self._cell(w)
        return tuple(
            cell[start : start + self.per_level] for start in range(0, len(cell), self.per_level)
        )
