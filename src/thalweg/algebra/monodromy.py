"""All complex solutions by monodromy: loops in the space of targets, and the trace test.

The pairs (w, y) with ``f_w(X) = y`` are the graph of a polynomial map, so they form one irreducible
variety, and loops in y carry any solution to any other. A start costs nothing: pick weights, set y
to the network's own outputs; paths from many such starts to one y end at many of its solutions, and
loops from there find the rest. Nothing in the method says when to stop; the trace test says so with
evidence: as y moves along a line, the sum over *all* networks found of what they predict on a
further input is an affine function of the place on the line (Sommese, Verschelde and Wampler,
SIAM J. Numer. Anal. 40, 2002).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.algebra.tracking import newton, track
from thalweg.run.progress import Bar

Array = NDArray[Any]

SAME = 1e-6
"""Relative distance of invariants below which two points are one solution."""
POLISHED = 1e-8
"""Relative length of the last Newton step of an accepted solution."""
AT_ONCE = 16
"""Paths tracked together, along several loops where there are few solutions: a step takes hardly
longer for so many paths than for one."""
FRESH = 16
"""Paths from other weights in each round: they reach solutions that few loops lead to."""
BEND = 0.5
"""Size of the axes of the ellipse of a path, relative to that of the parameters."""
WATCHED = (1, 3, 6, 10, 20)
"""Rounds in a row without a new solution after which the trace is tested; the last one stops."""
TRACE = 1e-8
"""Relative departure from a straight line below which the trace test is passed."""


@dataclass(frozen=True, eq=False)
class Route:
    """Ways through the parameters, one a path: a straight line, bent by an ellipse.

    ``p(t) = start + t (stop - start) + wide (1 - cos 2 pi t) + aside sin 2 pi t``; where it stops
    at its start, a smooth loop.

    Parameters
    ----------
    start
        Parameters where each path starts, shape (P, n).
    stop
        Parameters where all stop, shape (n,).
    wide, aside
        Axes of the ellipse of each path, shape (P, n).
    """

    start: Array
    stop: Array
    wide: Array
    aside: Array

    def at(self, t: Array, rows: Array) -> tuple[Array, Array]:
        """Places and velocities of the paths with numbers `rows` at times `t`."""
        start, wide, aside = self.start[rows], self.wide[rows], self.aside[rows]
        time, turn, straight = t[:, None], 2 * np.pi * t[:, None], self.stop - start
        sine, cosine = np.sin(turn), np.cos(turn)
        place = start + time * straight + (1 - cosine) * wide + sine * aside
        return place, straight + 2 * np.pi * (sine * wide + cosine * aside)


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

    def carry(self, points: Array, route: Route) -> Array:
        """Polished ends of the paths from `points`; those that were given up are left out."""

        def homotopy(x: Array, t: Array, rows: Array) -> tuple[Array, Array, Array]:
            value, jacobian = self.map(x)
            place, velocity = route.at(t, rows)
            return value - place, jacobian, -velocity

        tracked = track(homotopy, points)
        ends, step = self.polish(tracked.points[tracked.arrived], route.stop)
        return ends[step < POLISHED]

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
    """Collect the solutions of a family by loops through its parameters, several in a round.

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
        Rounds in a row without a new solution before the trace is tested.
    bar
        Counts the loops.
    """
    points = start[None].astype(complex)
    base = family.map(points)[0][0]
    idle = loops_done = paths = lost = 0
    trace = np.inf
    while loops_done < loops and len(points) <= most:
        count = min(max(1, AT_ONCE // len(points)), loops - loops_done)
        starts = np.concatenate([np.tile(points, (count, 1)), _gaussian(FRESH, family.size, rng)])
        places = family.map(starts)[0]
        ends = family.carry(starts, Route(places, base, *bends(base, len(starts), rng)))
        paths, lost = paths + len(starts), lost + len(starts) - len(ends)
        if bar is not None:
            bar.update(count)
        before = len(points)
        points = distinct(np.concatenate([points, ends]), family.invariants)
        loops_done, idle = loops_done + count, idle + 1 if len(points) == before else 0
        if idle in WATCHED and idle >= patience:
            trace = trace_test(family, points, base, rng)
        if trace < TRACE or idle >= WATCHED[-1]:
            break
    status = "trace" if trace < TRACE else "stale" if idle >= WATCHED[-1] else "limit"
    return Monodromy(points, base, status, trace, loops_done, paths, lost)


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

    Where paths are given up, all are tracked again on random detours, so that a route that comes
    close to a singular system does not lose solutions.

    Returns
    -------
    Array
        Distinct solutions at the end, shape (S, n), fewer than `points` where some are lost.
    """
    ends = points[:0]
    places = np.broadcast_to(start, points.shape)
    axes = np.zeros_like(points), np.zeros_like(points)
    for _ in range(1 + detours):
        carried = family.carry(points, Route(places, stop, *axes))
        ends = distinct(np.concatenate([ends, carried]), family.invariants)
        if len(ends) >= len(points):
            break
        axes = bends(start, len(points), rng)
    return ends


def distinct(points: Array, invariants: Callable[[Array], Array]) -> Array:
    """First of each class of equivalent points, in order."""
    if not len(points):
        return points
    label = _labels(invariants(points))
    return points[np.unique(label, return_index=True)[1]]


def _labels(values: Array) -> Array:
    """Label of each row: the index of the first row that agrees with it."""
    from scipy.spatial import cKDTree

    scale = np.median(np.abs(values), axis=0) + 1e-300
    scaled = values / scale / np.maximum(1.0, np.abs(values / scale).max(axis=1, keepdims=True))
    flat = np.concatenate([scaled.real, scaled.imag], axis=1)
    label = np.arange(len(flat))
    for a, b in sorted(cKDTree(flat).query_pairs(SAME)):
        label[b] = min(label[b], label[a])
    return label


def bends(base: Array, paths: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Axes of a random ellipse for each path."""
    return BEND * _directions(base, paths, rng), BEND * _directions(base, paths, rng)


def _directions(base: Array, count: int, rng: np.random.Generator) -> Array:
    """Random complex vectors as large as the parameters, shape (count, n)."""
    directions: Array = np.sqrt(np.mean(np.abs(base) ** 2) / 2) * _gaussian(count, len(base), rng)
    return directions


def _gaussian(count: int, size: int, rng: np.random.Generator) -> Array:
    """Complex Gaussian vectors, shape (count, size)."""
    return rng.normal(size=(count, size)) + 1j * rng.normal(size=(count, size))


def trace_test(family: Family, points: Array, base: Array, rng: np.random.Generator) -> float:
    """Relative second difference of the trace at three places on a line of parameters.

    Rounding alone for a complete set of solutions; infinite where solutions are lost on the way.
    """
    half = np.where(family.moving, _directions(base, 1, rng)[0] / 2, 0)
    middle = follow(family, points, base, base + half, rng=rng)
    end = follow(family, middle, base + half, base + 2 * half, rng=rng)
    if len(end) != len(points):
        return float("inf")
    values = [family.traces(solutions) for solutions in (points, middle, end)]
    first, second, third = (v.sum(axis=0) for v in values)
    size = np.max([np.abs(v).sum(axis=0) for v in values], axis=0)
    return float((np.abs(first - 2 * second + third) / (size + 1e-300)).max())
