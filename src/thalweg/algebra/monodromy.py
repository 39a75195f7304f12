"""All complex solutions by monodromy: loops in the space of targets, and the trace test.

The pairs (w, y) with ``f_w(X) = y`` are the graph of a polynomial map, so they form one irreducible
variety, and loops in y carry any solution to any other. A start costs nothing: pick weights, set y
to the network's own outputs. Nothing in the method says when to stop; the trace test says so with
evidence: as y moves along a line, the sum over *all* networks found of what they predict on a
further input is an affine function of the place on the line (Sommese, Verschelde and Wampler,
SIAM J. Numer. Anal. 40, 2002).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from thalweg.algebra.tracking import Homotopy, newton, track
from thalweg.run.progress import Bar

Array = NDArray[Any]

SAME = 1e-6
"""Relative distance of invariants below which two points are one solution."""
POLISHED = 1e-8
"""Relative length of the last Newton step of an accepted solution."""
WATCHED = (1, 3, 6, 10)
"""Loops in a row without a new solution after which the trace is tested; the last one stops."""
TRACE = 1e-8
"""Relative departure from a straight line below which the trace test is passed."""


@dataclass(frozen=True, eq=False)
class Family:
    """Square systems ``map(w) = p``, one for each vector p of parameters.

    Parameters
    ----------
    size
        Number n of unknowns, and of parameters.
    map
        Values, shape (P, n), and Jacobians, shape (P, n, n), at points of shape (P, n).
    invariants
        Numbers, shape (P, m), that agree for two points only if they count as one solution.
    traces
        Functions, shape (P, m), whose sum over all solutions is affine along lines of parameters.
    moving
        Which parameters move in the trace test, boolean of shape (n,).
    """

    size: int
    map: Callable[[Array], tuple[Array, Array]]
    invariants: Callable[[Array], Array]
    traces: Callable[[Array], Array]
    moving: Array

    def segment(self, start: Array, stop: Array) -> Homotopy:
        """Homotopy along the straight line from one vector of parameters to another."""

        def homotopy(x: Array, t: Array) -> tuple[Array, Array, Array]:
            value, jacobian = self.map(x)
            place = start + t[:, None] * (stop - start)
            return value - place, jacobian, np.broadcast_to(start - stop, x.shape)

        return homotopy

    def polish(self, points: Array, parameters: Array) -> tuple[Array, Array]:
        """Newton's method at fixed parameters."""

        def system(x: Array) -> tuple[Array, Array]:
            value, jacobian = self.map(x)
            return value - parameters, jacobian

        return newton(system, points)


@dataclass(frozen=True)
class Monodromy:
    """Solutions found at one generic vector of parameters.

    Attributes
    ----------
    points
        complex128, shape (S, n), one of each class of equivalent solutions.
    parameters
        complex128, shape (n,).
    status
        ``"trace"``: the trace test is passed; ``"stale"``: loops found nothing new, the trace test
        is not passed; ``"limit"``: more solutions than were asked for, or too many loops.
    trace
        Largest relative departure of the trace from a straight line.
    loops, paths, lost
        Number of loops, of paths tracked, and of those that were given up.
    """

    points: Array
    parameters: Array
    status: str
    trace: float
    loops: int
    paths: int
    lost: int


def monodromy(
    family: Family,
    start: Array,
    *,
    rng: np.random.Generator,
    most: int = 20_000,
    loops: int = 200,
    patience: int = 1,
    bar: Bar | None = None,
) -> Monodromy:
    """Collect the solutions of a family by loops through its parameters.

    Parameters
    ----------
    family
        The systems.
    start
        A generic point, complex, shape (n,); the base parameters are its image.
    rng
        Source of the loops.
    most
        Stop beyond so many solutions.
    loops
        Largest number of loops.
    patience
        Loops in a row without a new solution before the trace is tested.
    bar
        Counts the loops.
    """
    points = start[None].astype(complex)
    base = family.map(points)[0][0]
    idle = done = paths = lost = 0
    trace = np.inf
    while done < loops and len(points) <= most:
        corners = [base, *(_parameters(base, rng) for _ in range(2)), base]
        moved = points
        for a, b in itertools.pairwise(corners):
            result = track(family.segment(a, b), moved)
            paths, lost = paths + len(moved), lost + int((~result.arrived).sum())
            moved = result.points[result.arrived]
        moved, step = family.polish(moved, base)
        if bar is not None:
            bar.update()
        before = len(points)
        points = distinct(np.concatenate([points, moved[step < POLISHED]]), family.invariants)
        done, idle = done + 1, idle + 1 if len(points) == before else 0
        if idle in WATCHED and idle >= patience:
            trace = trace_test(family, points, base, rng)
        if trace < TRACE or idle >= WATCHED[-1]:
            break
    status = "trace" if trace < TRACE else "stale" if idle >= WATCHED[-1] else "limit"
    return Monodromy(points, base, status, float(trace), done, paths, lost)


def follow(
    family: Family,
    points: Array,
    start: Array,
    stop: Array,
    *,
    rng: np.random.Generator,
    detours: int = 4,
) -> Array:
    """Carry all solutions from one vector of parameters to another, polished.

    Where paths are given up, all are tracked again over random corners, so that a route that comes
    close to a singular system does not lose solutions.

    Returns
    -------
    Array
        Distinct solutions at the end, shape (S, n), fewer than `points` where some are lost.
    """
    ends = points[:0]
    for attempt in range(1 + detours):
        corners = [start, stop] if attempt == 0 else [start, _parameters(start, rng), stop]
        moved = points
        for a, b in itertools.pairwise(corners):
            result = track(family.segment(a, b), moved, smallest_step=1e-11)
            moved = result.points[result.arrived]
        moved, step = family.polish(moved, stop)
        ends = distinct(np.concatenate([ends, moved[step < POLISHED]]), family.invariants)
        if len(ends) >= len(points):
            break
    return ends


def distinct(points: Array, invariants: Callable[[Array], Array]) -> Array:
    """First of each class of equivalent points, in order."""
    if not len(points):
        return points
    label = _labels(invariants(points))
    return points[np.unique(label, return_index=True)[1]]


def _labels(values: Array) -> Array:
    """Label of each row: the index of the first row that agrees with it."""
    scale = np.median(np.abs(values), axis=0) + 1e-300
    scaled = values / scale / np.maximum(1.0, np.abs(values / scale).max(axis=1, keepdims=True))
    flat = np.concatenate([scaled.real, scaled.imag], axis=1)
    label = np.arange(len(flat))
    for a, b in sorted(cKDTree(flat).query_pairs(SAME)):
        label[b] = min(label[b], label[a])
    return label


def _parameters(base: Array, rng: np.random.Generator) -> Array:
    size = np.sqrt(np.mean(np.abs(base) ** 2))
    noise = rng.normal(size=base.shape) + 1j * rng.normal(size=base.shape)
    found: Array = size * noise / np.sqrt(2)
    return found


def trace_test(family: Family, points: Array, base: Array, rng: np.random.Generator) -> float:
    """Relative second difference of the trace at three places on a line of parameters.

    Rounding alone for a complete set of solutions; infinite where solutions are lost on the way.
    """
    direction = np.where(family.moving, _parameters(base, rng), 0)
    sums, sizes = [], []
    for place in (0.0, 0.5, 1.0):
        moved = points
        if place:
            moved = follow(family, points, base, base + place * direction, rng=rng)
        if len(moved) != len(points):
            return float("inf")
        values = family.traces(moved)
        sums.append(values.sum(axis=0))
        sizes.append(np.abs(values).sum(axis=0))
    departure = np.abs(sums[0] - 2 * sums[1] + sums[2])
    return float((departure / (np.max(sizes, axis=0) + 1e-300)).max())
