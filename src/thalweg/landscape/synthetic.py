"""Landscapes of which basins, barriers and dimensions are known: controls in any dimension."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.quadratic import Quadratic
from thalweg.landscape.space import ParameterSpace
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
    _check(dims >= 1 and condition >= 1, f"dims={dims}, condition={condition}", "1 or more")
    spectrum = torch.logspace(-math.log10(condition), 0, dims, dtype=torch.float64)
    return Quadratic.of_spectrum(spectrum, seed=seed)


class KnownLandscape(ABC):
    """
    A landscape whose basins are known: lowest value 0, float64, on the CPU.

    Parameters
    ----------
    dims : int
        W.

    Attributes
    ----------
    space : ParameterSpace
        One tensor of W weights.
    dtype : torch.dtype
        float64.
    device : torch.device
        The CPU.
    dimension : int
        Of the bottom of each basin: 0 for a point.
    """

    dtype, device = torch.float64, torch.device("cpu")
    dimension: int = 0

    def __init__(self, dims: int) -> None:
        self.space = ParameterSpace.euclidean(dims)

    @abstractmethod
    def _function(self, w: Tensor) -> Tensor:
        """Evaluate at a point of float64: 0-d, with a graph."""

    @abstractmethod
    def label(self, w: Tensor, /) -> int:
        """Say in which basin a point, shape (W,), lies; -1 for none."""

    @abstractmethod
    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of the lowest pass between the bottoms of two basins, by labels."""

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also what it is."""
        kind = type(self).__name__
        return Provenance(dtype=self.dtype, further={"landscape": kind})

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return float(self._function(self._point(w)))

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        Raises
        ------
        InvalidArgument
            If a batch is asked for.
        """
        if batch is not None:
            raise InvalidArgument("this landscape has no samples to take a batch of; leave it out.")
        leaf = self._point(w).requires_grad_()
        return torch.autograd.grad(self._function(leaf), leaf)[0]

    def _point(self, w: Tensor) -> Tensor:
        return self.space.check(w).detach().to(self.device, self.dtype, copy=True)


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
        _check(0 <= flat < dims and count >= 1, f"flat={flat}, count={count}", "flat below dims")
        _check(height > 0, f"height={height}", "a positive number")
        generator = torch_generator(seed, "flat basins")
        self.dimension, self.height = flat, height
        along = _orthonormal(dims, 1, generator)[:, 0]
        wide = 0.5 * torch.randn(count, dims, generator=generator, dtype=self.dtype) / dims**0.5
        wide -= torch.outer(wide @ along, along)
        # Along one line, so far apart that balls of radius 2 about them do not meet.
        self.centres = wide + torch.outer(4.5 * torch.arange(count).double(), along)
        frames = [_orthonormal(dims, max(flat, 1), generator) for _ in range(count)]
        self._frames = torch.stack(frames)[:, :, :flat]

    def _aside(self, w: Tensor) -> Tensor:
        """Give the squared distance from each bottom: shape (count,)."""
        offsets = w - self.centres
        along = torch.einsum("kwf,kw->kf", self._frames, offsets)
        squares = along.square().sum(1)
        across = offsets - torch.einsum("kwf,kf->kw", self._frames, along)
        # Of a ball: the root is taken only outside of it, where it has a slope.
        beyond = squares.clamp_min(1).sqrt() - 1
        aside: Tensor = across.square().sum(1) + beyond.square()
        return aside

    def _function(self, w: Tensor) -> Tensor:
        u = self._aside(w).min().clamp_max(1)
        return self.height * u * (2 - u)

    def label(self, w: Tensor, /) -> int:
        """Say which basin's wall a point is inside of; -1 for the plain."""
        aside = self._aside(self._point(w))
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
        _check(2 <= branching <= dims, f"branching={branching}", "from 2 to dims")
        _check(bool(heights) and min(heights) > 0, f"heights={heights}", "positive numbers")
        generator = torch_generator(seed, "tree of basins")
        self.branching, self.heights = branching, tuple(heights)
        self._levels = [torch.ones(1, dims, dtype=self.dtype)]
        for level in range(1, len(heights)):
            step = _AWAY * self._radius(level - 1)
            children = [
                centre + step * _orthonormal(dims, branching, generator).T
                for centre in self._levels[-1]
            ]
            self._levels.append(torch.cat(children))
        self.centres = self._levels[-1]

    def _radius(self, level: int) -> float:
        return 4.0 * _SHRINK**level

    def _function(self, w: Tensor) -> Tensor:
        total = torch.zeros((), dtype=self.dtype)
        for level, (height, centres) in enumerate(zip(self.heights, self._levels, strict=True)):
            share = (w - centres).square().sum(1).min() / self._radius(level) ** 2
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


class RuggedField(KnownLandscape):
    """
    A lattice of wells in random axes, each pass as high as each other: rough without hierarchy.

    ``height / 2`` times the sum of ``1 - cos(2 pi z / spacing)`` over rotated coordinates z.

    Parameters
    ----------
    dims : int
        W.
    height : float
        Of the pass from a well to a neighbour, and so of the way to any other.
    spacing : float
        Distance of neighbours.
    seed : int
        Of the axes.

    Examples
    --------
    >>> field = RuggedField(6, height=0.5)
    >>> round(field.value(field.well(3, -1)), 12), field.barrier(0, 1)
    (0.0, 0.5)
    """

    def __init__(
        self, dims: int, *, height: float = 1.0, spacing: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(dims)
        _check(min(height, spacing) > 0, f"height={height}, spacing={spacing}", "positive numbers")
        self.height, self.spacing = height, spacing
        self._axes = _orthonormal(dims, dims, torch_generator(seed, "rugged field"))
        self._known: dict[tuple[int, ...], int] = {}

    def _function(self, w: Tensor) -> Tensor:
        z = self._axes.T @ w
        return self.height / 2 * (1 - (2 * math.pi / self.spacing * z).cos()).sum()

    def well(self, *steps: int) -> Tensor:
        """Give a lowest point by its steps along the first axes, shape (W,)."""
        z = torch.zeros(self.space.size, dtype=self.dtype)
        z[: len(steps)] = torch.tensor(steps, dtype=self.dtype)
        return self._axes @ (self.spacing * z)

    def label(self, w: Tensor, /) -> int:
        """Number the wells in the order in which they are asked for."""
        cell = tuple((self._axes.T @ self._point(w) / self.spacing).round().long().tolist())
        return self._known.setdefault(cell, len(self._known))

    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of a pass: one axis after the other, none is crossed with another."""
        return 0.0 if i == j else self.height


class Valley(KnownLandscape):
    """
    One connected valley with a winding floor of any dimension.

    ``steepness / 2`` times the sum of ``(y - amplitude sin(u . x))^2`` over the coordinates y
    across, x those along it, u of length 1, in random axes: the value is 0 on a graph over x.

    Parameters
    ----------
    dims : int
        W.
    flat : int
        Dimension of the floor, from 1 to W - 1.
    amplitude : float
        How far it winds.
    steepness : float
        Of its walls.
    seed : int
        Of the axes.

    Examples
    --------
    >>> valley = Valley(5, flat=2)
    >>> valley.value(valley.floor(torch.tensor([1.0, -4.0]))) < 1e-25, valley.dimension
    (True, 2)
    """

    def __init__(
        self,
        dims: int,
        *,
        flat: int = 1,
        amplitude: float = 1.0,
        steepness: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(dims)
        _check(1 <= flat < dims, f"flat={flat}", "from 1 to dims - 1")
        _check(steepness > 0, f"steepness={steepness}", "a positive number")
        generator = torch_generator(seed, "valley")
        self.dimension, self.amplitude, self.steepness = flat, amplitude, steepness
        self._axes = _orthonormal(dims, dims, generator)
        self._waves = _orthonormal(max(flat, dims - flat), flat, generator)[: dims - flat]
        self._waves = self._waves / self._waves.norm(dim=1, keepdim=True)

    def floor(self, x: Tensor) -> Tensor:
        """Give the point of the floor over x, shape (flat,): shape (W,)."""
        x = x.to(self.dtype)
        return self._axes @ torch.cat([x, self.amplitude * (self._waves @ x).sin()])

    def _function(self, w: Tensor) -> Tensor:
        z = self._axes.T @ w
        x, y = z[: self.dimension], z[self.dimension :]
        return self.steepness / 2 * (y - self.amplitude * (self._waves @ x).sin()).square().sum()

    def label(self, w: Tensor, /) -> int:
        """Give 0: there is one basin."""
        self._point(w)
        return 0

    def barrier(self, i: int, j: int, /) -> float:
        """Give 0: the floor is connected."""
        return 0.0


def _orthonormal(dims: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw orthonormal columns, uniform over all: shape (dims, count)."""
    q, r = torch.linalg.qr(torch.randn(dims, count, generator=generator, dtype=torch.float64))
    frame: Tensor = q * r.diagonal().sign()
    return frame


def _check(holds: bool, got: str, write: str) -> None:
    if not holds:
        raise InvalidArgument(f"{got}; write {write}.")
