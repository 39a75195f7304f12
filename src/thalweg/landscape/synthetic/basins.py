"""A convex bowl, basins side by side on a plain, and balls inside balls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.landscape.quadratic import Quadratic
from thalweg.landscape.synthetic.known import KnownLandscape, check, orthonormal
from thalweg.run.seeds import torch_generator

# Of a basin's radius: where the wall of one that holds others begins, how far from its centre
# these have theirs, and their radius. Walls of siblings keep apart, for 0.28 < 0.5 / sqrt(2), and
# inside of what holds them, for 0.5 + 0.28 < 0.8.
_FLOOR, _AWAY, _SHRINK = 0.8, 0.5, 0.28


def convex_bowl(dims: int, *, condition: float = 1.0, seed: int = 0) -> Quadratic:
    """
    Make one convex bowl of random axes.

    Parameters
    ----------
    dims : int
        W.
    condition : float
        Largest over smallest eigenvalue; they are spaced evenly in logarithm, the largest is 1.
    seed : int
        Of the axes.

    Examples
    --------
    >>> bowl = convex_bowl(4, condition=1000.0)
    >>> [round(float(e), 6) for e in torch.linalg.eigvalsh(bowl.curvature)]
    [0.001, 0.01, 0.1, 1.0]
    """
    check(dims >= 1 and condition >= 1, f"dims={dims}, condition={condition}", "1 or more")
    spectrum = torch.logspace(-math.log10(condition), 0, dims, dtype=torch.float64)
    return Quadratic.of_spectrum(spectrum, seed=seed)


class FlatBasins(KnownLandscape):
    """
    Basins side by side on a plain, each with a flat bottom of one dimension.

    The bottom of a basin is a ball of radius 1 in ``flat`` random directions; across it the value
    rises to that of the plain at a distance of 1 from it, and is the plain's farther away.

    Parameters
    ----------
    dims : int
        W.
    count : int
        Number of basins.
    flat : int
        Dimension of the bottoms, below W.
    height : float
        Of the plain: the barrier between any two.
    seed : int
        Of centres and directions.

    Attributes
    ----------
    centres : Tensor
        Shape (count, W), at least 4.5 apart.

    Examples
    --------
    >>> basins = FlatBasins(10, count=3, flat=4, height=2.0)
    >>> basins.value(basins.centres[1]), basins.label(basins.centres[1]), basins.barrier(0, 1)
    (0.0, 1, 2.0)
    """

    def __init__(
        self, dims: int, *, count: int = 3, flat: int = 1, height: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(dims)
        check(0 <= flat < dims and count >= 1, f"flat={flat}, count={count}", "flat below dims")
        check(height > 0, f"height={height}", "a positive number")
        generator = torch_generator(seed, "flat basins")
        self.dimension, self.height = flat, height
        along = orthonormal(dims, 1, generator)[:, 0]
        wide = 0.5 * torch.randn(count, dims, generator=generator, dtype=self.dtype) / dims**0.5
        wide -= torch.outer(wide @ along, along)
        # Along one line, so far apart that balls of radius 2 about them do not meet.
        self.centres = wide + torch.outer(4.5 * torch.arange(count).double(), along)
        frames = [orthonormal(dims, max(flat, 1), generator) for _ in range(count)]
        self._frames = torch.stack(frames)[:, :, :flat]

    def _aside(self, points: Tensor) -> Tensor:
        """Give the squared distance of points, shape (k, W), from each bottom: (k, count)."""
        offsets = points[:, None] - self.centres
        along = torch.einsum("bwf,kbw->kbf", self._frames, offsets)
        squares = along.square().sum(-1)
        across = offsets - torch.einsum("bwf,kbf->kbw", self._frames, along)
        # Of a ball: the root is taken only outside of it, where it has a slope.
        beyond = squares.clamp_min(1).sqrt() - 1
        aside: Tensor = across.square().sum(-1) + beyond.square()
        return aside

    def _values(self, points: Tensor) -> Tensor:
        u = self._aside(points).amin(1).clamp_max(1)
        return self.height * u * (2 - u)

    def label(self, w: Tensor, /) -> int:
        """Say which basin's wall a point is inside of; -1 for the plain."""
        aside = self._aside(self._point(w)[None])[0]
        return int(aside.argmin()) if float(aside.min()) < 1 else -1

    def barrier(self, i: int, j: int, /) -> float:
        """Give the plain's height: whoever leaves a basin comes onto it."""
        return 0.0 if i == j else self.height


class BasinTree(KnownLandscape):
    """
    Basins inside basins: a tree of balls, each with so many smaller ones in it.

    At each level a point pays the height of that level unless it is inside of one of its balls;
    walls are smooth. The lowest points are the centres of the leaves.

    Parameters
    ----------
    dims : int
        W, at least the branching.
    branching : int
        Balls in each ball.
    heights : sequence of float
        Of the walls, outermost first: one a level.
    seed : int
        Of the directions from centre to centre.

    Attributes
    ----------
    centres : Tensor
        Of the leaves, shape (branching ** (levels - 1), W); the outermost ball is one.

    Examples
    --------
    >>> tree = BasinTree(5, branching=2, heights=(4.0, 2.0, 1.0))
    >>> tree.barrier(0, 1), tree.barrier(0, 2), tree.label(tree.centres[2])
    (1.0, 3.0, 2)
    """

    def __init__(
        self,
        dims: int,
        *,
        branching: int = 2,
        heights: tuple[float, ...] = (4.0, 2.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(dims)
        check(2 <= branching <= dims, f"branching={branching}", "from 2 to dims")
        check(bool(heights) and min(heights) > 0, f"heights={heights}", "positive numbers")
        generator = torch_generator(seed, "tree of basins")
        self.branching, self.heights = branching, tuple(heights)
        self._levels = [torch.ones(1, dims, dtype=self.dtype)]
        for level in range(1, len(heights)):
            step = _AWAY * self._radius(level - 1)
            children = [
                centre + step * orthonormal(dims, branching, generator).T
                for centre in self._levels[-1]
            ]
            self._levels.append(torch.cat(children))
        self.centres = self._levels[-1]

    def _radius(self, level: int) -> float:
        return 4.0 * _SHRINK**level

    def _values(self, points: Tensor) -> Tensor:
        total = torch.zeros(len(points), dtype=self.dtype)
        for level, (height, centres) in enumerate(zip(self.heights, self._levels, strict=True)):
            aside = (points[:, None] - centres).square().sum(-1).amin(1)
            share = aside / self._radius(level) ** 2
            if level == len(self.heights) - 1:
                u = share.clamp_max(1)
                total = total + height * u * (2 - u)
            else:
                u = ((share - _FLOOR**2) / (1 - _FLOOR**2)).clamp(0, 1)
                total = total + height * u * u * (3 - 2 * u)
        return total

    def label(self, w: Tensor, /) -> int:
        """Say inside of which leaf's wall a point is; -1 for none."""
        aside = (self._point(w) - self.centres).square().sum(1)
        inside = float(aside.min()) < self._radius(len(self.heights) - 1) ** 2
        return int(aside.argmin()) if inside else -1

    def barrier(self, i: int, j: int, /) -> float:
        """Give the sum of the heights of all walls inside of the smallest ball that holds both."""
        level = len(self.heights)
        while i != j:
            i, j, level = i // self.branching, j // self.branching, level - 1
        return float(sum(self.heights[level:]))
