"""How a surface is paid for: which nodes, and how many samples a cell, for a standard error."""

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


def candidates(axes: Sequence[Array]) -> list[list[int]]:
    """List the numbers of nodes along each axis that are tried; the first is no interpolation."""
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
    """

    total: Array
    square: Array
    most: Array
    n: int | NDArray[np.int64]
    samples: int

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
        return np.maximum(square - self.total**2 / self.n, 0.0) / np.maximum(self.n - 1, 1)

    @property
    def stderr(self) -> Array:
        """Standard errors of the means, drawn without replacement."""
        return np.sqrt(self.variance / self.n * (1 - self.n / self.samples))

    def needed(self, error: float) -> Array:
        """Sizes of subset for a standard error."""
        endless = self.variance / error**2
        return endless / (1 + endless / self.samples)


def choose(rules: Sequence[list[int]], axes: Sequence[Array], pilot: Moments, error: float) -> int:
    """
    Choose the rule that costs the fewest evaluations; -1 where none costs fewer than exact.

    Parameters
    ----------
    rules : sequence of list of int
        Numbers of nodes along each axis.
    axes : sequence of float64 array
        The grid.
    pilot : Moments
        What each rule leaves, shape (rules, cells).
    error : float
        Standard error wanted.
    """
    total = pilot.total.shape[1] * pilot.samples
    costs = []
    for counts, needed in zip(rules, pilot.needed(error), strict=True):
        cost = sizes(needed, pilot.samples)
        if counts:
            cost[TensorRule(axes, counts).cells] = pilot.samples
        costs.append(float(cost.sum()))
    best = int(np.argmin(costs))
    return best if costs[best] < total else -1


def sizes(needed: Array, samples: int) -> NDArray[np.int64]:
    """Round sizes of subset up to a level, or to all samples; NaN asks for all."""
    steps = np.array([*levels(samples), samples])
    place = np.searchsorted(steps[:-1], np.where(np.isnan(needed), np.inf, needed))
    return steps[place]
