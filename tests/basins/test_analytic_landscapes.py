"""What is stated of analytic landscapes, computed anew from all their stationary points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import root
from scipy.sparse.csgraph import minimum_spanning_tree

from analytic_landscapes import ANALYTIC_LANDSCAPES


def gradient_of(landscape, x):
    """By a complex step, exact to rounding."""
    steps = 1e-30j * np.eye(len(x))
    return np.array([landscape.function(*(x + step)).imag / 1e-30 for step in steps])


def curvature_of(landscape, x):
    """By central differences of the gradient."""
    steps = 1e-5 * np.eye(len(x))
    rows = [gradient_of(landscape, x + s) - gradient_of(landscape, x - s) for s in steps]
    return np.linalg.eigh(np.array(rows) / 2e-5)


def stationary_points(landscape):
    """Roots of the gradient in the box, from a grid of starts."""
    low, high = np.array(landscape.box).T
    axes = [np.linspace(a, b, 15 if len(low) == 2 else 7) for a, b in landscape.box]
    found = []
    for start in itertools.product(*axes):
        with np.errstate(over="ignore", invalid="ignore"):
            ended = root(lambda x: gradient_of(landscape, x), start, tol=1e-12)
        x = ended.x
        inside = (x >= low).all() and (x <= high).all()
        stationary = inside and np.abs(gradient_of(landscape, x)).max() < 1e-7
        if stationary and all(np.linalg.norm(x - other) > 1e-4 for other in found):
            found.append(x)
    return found


def minimum_below(landscape, minima, x):
    """Number of the minimum that the gradient's flow leads to."""
    flow = solve_ivp(lambda _, x: -gradient_of(landscape, x), (0, 50), x, "LSODA", rtol=1e-6)
    distances = np.linalg.norm(minima - flow.y[:, -1], axis=1)
    assert distances.min() < 1e-2
    return int(distances.argmin())


def levels_between(landscape, saddles):
    """Lowest level of a saddle between two minima; infinite where there is none."""
    minima = np.array(landscape.minima)
    levels = np.full((len(minima),) * 2, np.inf)
    for saddle in saddles:
        down = curvature_of(landscape, saddle)[1][:, 0]
        i, j = (minimum_below(landscape, minima, saddle + s * down) for s in (1e-3, -1e-3))
        levels[i, j] = levels[j, i] = min(levels[i, j], landscape.function(*saddle))
    return levels


def lowest_ways(levels):
    """Highest level on the lowest way between two minima: along a minimum spanning tree."""
    shift = 1 - levels[np.isfinite(levels)].min()
    weights = np.where(np.isfinite(levels), levels + shift, 0)
    tree = minimum_spanning_tree(weights).toarray()
    ways = np.where(tree + tree.T > 0, tree + tree.T, np.inf)
    for k in range(len(ways)):
        ways = np.minimum(ways, np.maximum(ways[:, k : k + 1], ways[k]))
    return ways - shift


@pytest.mark.parametrize("name", ANALYTIC_LANDSCAPES)
def test_stated_minima_and_passes_are_those_of_all_stationary_points(name):
    landscape = ANALYTIC_LANDSCAPES[name]
    points = stationary_points(landscape)
    negative = [int((curvature_of(landscape, x)[0] < 0).sum()) for x in points]
    bottoms = [x for x, count in zip(points, negative, strict=True) if count == 0]
    nearest = [np.linalg.norm(np.array(landscape.minima) - x, axis=1) for x in bottoms]
    assert sorted(int(d.argmin()) for d in nearest) == list(range(len(landscape.minima)))
    assert max(d.min() for d in nearest) < 2e-4  # stated to four digits
    saddles = [x for x, count in zip(points, negative, strict=True) if count == 1]
    ways = lowest_ways(levels_between(landscape, saddles))
    for pair, level in landscape.passes.items():
        assert ways[pair] == pytest.approx(level, abs=1e-4 * landscape.span)
