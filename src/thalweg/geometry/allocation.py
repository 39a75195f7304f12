"""How a surface is paid for: which samples are certain, which nodes, how many samples a cell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.geometry.interpolation import TensorRule

Array = NDArray[np.float64]
# Two-sided 95% of the normal distribution: a tolerance is so many standard errors.
Z = 1.959964
# Counts of nodes along an axis that are tried; odd, so that the middle is a node.
_COUNTS = {1: (3, 5, 7, 9, 11, 13, 17, 21), 2: (3, 5, 7, 9, 11, 13), 3: (3, 5, 7, 9)}
_PILOT = (64, 256)
# From this share of the samples on, a cell is evaluated exactly.
_MOST = 1 / 3
# A stratum of extreme samples ends where as many samples share what is left as make a subset of the
# first size hold so many of them; of one node it takes at most this share of the samples.
_EXPECTED = 8
_STRATUM = 1 / 32
# A residual that carries more than this share of a sum of squares dominates it; among few normal
# ones the largest does, which is not meant.
_DOMINANT, _OF_FEW = 0.1, 10


def candidates(axes: Sequence[Array]) -> list[list[int]]:
    """List the numbers of nodes along each axis that are tried; the first, none, is no rule."""
    counts = _COUNTS[len(axes)]
    choices = [[c for c in counts if c <= (len(axis) + 1) // 2] for axis in axes]
    return [[], *map(list, itertools.product(*choices))]


def levels(samples: int) -> list[int]:
    """
    List the sizes of subset that a cell may get, short of all samples.

    Examples
    --------
    >>> levels(20000), levels(1000)
    ([256, 512, 1024, 2048, 4096], [64, 128, 256])
    """
    smallest = min(_PILOT[1], max(_PILOT[0], samples // 16))
    sizes = [smallest]
    while 2 * sizes[-1] <= samples * _MOST:
        sizes.append(2 * sizes[-1])
    return sizes


def extremes(losses: Array) -> tuple[list[int], float]:
    """
    Choose the samples that a random subset may not miss: those with extreme losses at nodes.

    At each node the largest deviations from the median are taken until none of the others carries
    more than its part of what is left of their sum of squares, or a 32nd of the samples is taken.
    Losses that are not finite are extreme.

    Parameters
    ----------
    losses : float64 array
        Shape (nodes, samples).

    Returns
    -------
    samples : list of int
        Ascending.
    open : float
        Share of the nodes at which one of those that are left still dominates.

    Examples
    --------
    >>> losses = np.random.default_rng(0).standard_normal((2, 1000))
    >>> losses[1, [3, 5]] = 1e6, np.inf
    >>> certain, still = extremes(losses)
    >>> {3, 5} <= set(certain), len(certain) < 20, still
    (True, True, 0.0)
    """
    samples = losses.shape[1]
    share = levels(samples)[0] / (_EXPECTED * samples)
    most = int(_STRATUM * samples)
    ends = [_extreme(row, share, most) for row in losses]
    certain = sorted(set().union(*(chosen for chosen, _ in ends)))
    return certain, sum(open_ for _, open_ in ends) / len(ends)


def _extreme(losses: Array, share: float, most: int) -> tuple[list[int], bool]:
    """Samples to take at one node, and whether one of the others still dominates."""
    finite = np.isfinite(losses)
    if (~finite).sum() >= most:
        return [], True
    off = np.abs(losses - np.median(losses[finite]))
    off = np.where(finite, off / (off[finite].max() or 1.0), np.inf)
    order = np.argsort(-off)
    infinite = int((~finite).sum())
    squares = off[order[infinite:]] ** 2
    left = np.cumsum(squares[::-1])[::-1]
    ended = np.flatnonzero(squares <= share * left)
    taken = min(infinite + (int(ended[0]) if len(ended) else len(squares)), most)
    dominates = squares[taken - infinite] > _DOMINANT * left[taken - infinite]
    return order[:taken].tolist(), bool(dominates)


@dataclass(frozen=True)
class Moments:
    """
    Sums over ``n`` drawn samples of true minus interpolated values, a cell each.

    Parameters
    ----------
    total, square, most : float64 array
        Sum, sum of squares and largest absolute value, shape (..., cells).
    n : int or int array
        Samples drawn.
    samples : int
        Samples there are.
    unseen : float or float64 array
        How many times larger a sample's variance is than that of the drawn ones.
    """

    total: Array
    square: Array
    most: Array
    n: int | NDArray[np.int64]
    samples: int
    unseen: Array | float = 1.0

    @property
    def mean(self) -> Array:
        """Means over the drawn samples."""
        return self.total / self.n

    @property
    def variance(self) -> Array:
        """
        Variance of a sample, as if the largest value had been drawn once more.

        Values that are nearly all small with a few large ones among them are underestimated by
        what was drawn more often than not; this errs on the safe side, and by a share of 1/n for
        values of one size.
        """
        square = self.square + self.most**2
        drawn = np.maximum(square - self.total**2 / self.n, 0.0) / np.maximum(self.n - 1, 1)
        return self.unseen * drawn

    @property
    def stderr(self) -> Array:
        """Standard errors of the means, drawn without replacement."""
        return np.sqrt(self.variance / self.n * (1 - self.n / self.samples))

    @property
    def dominated(self) -> NDArray[np.bool_]:
        """Where one residual carries much of the variance, so that its estimate is worth little."""
        share = np.maximum(_DOMINANT, _OF_FEW / np.asarray(self.n))
        return np.asarray(self.most**2 > share * self.square)

    def needed(self, error: float) -> Array:
        """Sizes of subset for a standard error."""
        endless = self.variance / error**2
        return endless / (1 + endless / self.samples)


def choose(rules: Sequence[list[int]], axes: Sequence[Array], pilot: Moments, error: float) -> int:
    """
    Choose the rule that costs the fewest evaluations; 0 where none costs fewer than exact.

    Parameters
    ----------
    rules : sequence of list of int
        Numbers of nodes along each axis; the first has none, and is not chosen.
    axes : sequence of float64 array
        The grid.
    pilot : Moments
        What each rule leaves, shape (rules, cells).
    error : float
        Standard error wanted.
    """
    costs = [float(pilot.total.shape[1] * pilot.samples)]
    for counts, needed in zip(rules[1:], pilot.needed(error)[1:], strict=True):
        cost = sizes(needed, pilot.samples)
        cost[TensorRule(axes, counts).cells] = pilot.samples
        costs.append(float(cost.sum()))
    return int(np.argmin(costs))


def following(drawn: NDArray[np.int64], samples: int) -> NDArray[np.int64]:
    """Give the next larger sizes of subset, or all samples."""
    steps = np.array([*levels(samples), samples])
    return np.asarray(steps[np.searchsorted(steps[:-1], drawn, side="right")])


def sizes(needed: Array, samples: int) -> NDArray[np.int64]:
    """Round sizes of subset up to a level, or to all samples; NaN asks for all."""
    steps = np.array([*levels(samples), samples])
    place = np.searchsorted(steps[:-1], np.where(np.isnan(needed), np.inf, needed))
    return steps[place]
