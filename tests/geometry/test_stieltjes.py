from __future__ import annotations

import numpy as np
import pytest

from thalweg.geometry.stieltjes import share_bounds, share_interval


def lanczos(points, weights, steps):
    """Nodes and weights of a discrete measure's quadrature: the dense tridiagonal matrix."""
    basis, rows = [np.sqrt(weights)], []
    for _ in range(steps):
        image = points * basis[-1]
        rows.append([float(image @ q) for q in basis])
        for _ in range(2):
            image = image - sum(float(image @ q) * q for q in basis)
        basis.append(image / np.linalg.norm(image))
    matrix = np.array([row + [0.0] * (steps - len(row)) for row in rows])
    values, vectors = np.linalg.eigh((matrix + matrix.T) - np.diag(np.diag(matrix)))
    return values, vectors[0] ** 2


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(4))
def test_the_share_lies_between_the_bounds_at_every_point(steps, seed):
    rng = np.random.default_rng(seed)
    points = np.sort(np.concatenate([np.zeros(20), rng.lognormal(0, 3, 40), -rng.uniform(0, 1, 9)]))
    weights = rng.dirichlet(np.full(len(points), 0.5))
    nodes, masses = lanczos(points, weights, steps)
    slack = 1e-12 * np.abs(points).max()  # a node that has converged to a point is it up to that
    asked = np.array([*points, *(points[1:] + points[:-1]) / 2, *nodes, -1e3, 1e6])
    low, _ = share_bounds(nodes, masses, asked - slack, whole=False)
    _, high = share_bounds(nodes, masses, asked + slack, whole=False)
    before = np.array([weights[points < at].sum() for at in asked])
    up_to = np.array([weights[points <= at].sum() for at in asked])
    assert (low - 1e-9 <= before).all() and (up_to <= high + 1e-9).all()


def test_bounds_are_those_of_a_measure_with_the_same_moments():
    """They are sharp: the rule with a node at the point is such a measure."""
    rng = np.random.default_rng(0)
    points, weights = rng.uniform(0, 1, 30), rng.dirichlet(np.ones(30))
    nodes, masses = lanczos(points, weights, 4)
    (low,), (high,) = share_bounds(nodes, masses, np.array([0.4]), whole=False)
    moments = np.array([(weights * points**k).sum() for k in range(7)])
    # Linear programming over a fine grid: the least and the most mass up to 0.4.
    from scipy.optimize import linprog

    grid = np.concatenate([np.linspace(-0.2, 1.2, 1401), nodes])
    system = dict(A_eq=np.vander(grid, 7, increasing=True).T, b_eq=moments)
    least = linprog(grid < 0.4 - 1e-9, **system).fun
    most = -linprog(-(grid <= 0.4 + 1e-9).astype(float), **system).fun
    assert low == pytest.approx(least, abs=2e-3) and high == pytest.approx(most, abs=2e-3)


def test_a_whole_measure_leaves_nothing_open():
    nodes, masses = np.array([0.0, 1.0]), np.array([0.3, 0.7])
    low, high = share_bounds(nodes, masses, np.array([0.5, 1.0, -1.0]), whole=True)
    assert low.tolist() == high.tolist() == [0.3, 1.0, 0.0]


@pytest.mark.parametrize(("count", "size", "probes"), [(1, 400, 2), (5, 60, 3), (390, 400, 10)])
def test_interval_of_a_share_holds_it(count, size, probes):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        v = rng.standard_normal((probes, size))
        share = float((np.square(v[:, :count]).sum(1) / np.square(v).sum(1)).mean())
        low, high = share_interval(share, share, size, probes)
        hits += low <= count / size <= high
    assert 0.92 <= hits / 400 <= 0.98
