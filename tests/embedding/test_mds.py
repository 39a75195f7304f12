from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import pdist, squareform

from thalweg.embedding.mds import classical_mds, metric_mds
from thalweg.embedding.orientation import orient
from thalweg.embedding.quality import shown_distances, stress_1
from thalweg.errors import InvalidArgument


def simplex(n):
    """Distances between n points, each 1 from every other."""
    return 1.0 - np.eye(n)


def test_negative_eigenvalues_tell_of_distances_that_are_not_euclidean():
    # A square's shortest ways around: 1 to the neighbours, 2 across; eigenvalues 2, 2, 0, -1.
    around = np.array([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]], dtype=float)
    scaling = classical_mds(around, dims=2)
    np.testing.assert_allclose(scaling.eigenvalues, [2, 2, 0, -1], atol=1e-12)
    assert scaling.negative_share == pytest.approx(0.2)


def test_classical_stress_of_a_simplex_is_as_computed_by_hand():
    # Every turn of the first three of nine equal axes is a solution, so the stress depends on the
    # turn; the sum of squared shown distances does not: 3 axes of eigenvalue 1/2, times n.
    shown = shown_distances(classical_mds(simplex(10), dims=3).positions)
    assert (shown**2).sum() / 2 == pytest.approx(10 * 3 * 0.5)


def raw_stress(flat, distances):
    errors = pdist(flat.reshape(-1, 3)) - distances
    return (errors**2).sum()


def test_metric_stress_of_a_simplex_is_a_minimum_found_by_another_optimizer():
    n = 10
    start = classical_mds(simplex(n), dims=3).positions
    scaling = metric_mds(simplex(n), start, tolerance=1e-12, max_iterations=5000)
    flat = squareform(simplex(n))
    rival = minimize(raw_stress, scaling.positions.ravel() + 1e-3, args=(flat,), tol=1e-12)
    ours = raw_stress(scaling.positions.ravel(), flat)
    assert scaling.converged
    assert ours == pytest.approx(rival.fun, rel=1e-5)
    # At a minimum over scale, sum d δ = sum d^2; then stress-1^2 = sum δ^2 / sum d^2 - 1.
    shown = shown_distances(scaling.positions)
    squares = (pdist(scaling.positions) ** 2).sum()
    assert stress_1(simplex(n), shown) == pytest.approx(np.sqrt(45 / squares - 1), rel=1e-5)
    assert 0.2 < stress_1(simplex(n), shown) < 0.4


def test_metric_scaling_does_not_end_worse_than_it_starts():
    points = np.random.default_rng(3).standard_normal((40, 12))
    distances = squareform(pdist(points))
    start = classical_mds(distances, dims=2).positions
    scaling = metric_mds(distances, start)
    before, after = (
        ((shown_distances(x) - distances) ** 2).sum() for x in (start, scaling.positions)
    )
    assert after < 0.9 * before
    assert metric_mds(distances, start, max_iterations=3).converged is False


def test_identical_points_stay_together():
    distances = np.zeros((4, 4))
    start = classical_mds(distances, dims=3).positions
    assert (metric_mds(distances, start).positions == 0).all()


@pytest.mark.parametrize(
    ("n", "dims", "message"),
    [(1, 1, "got 1 points"), (3, 3, "got dims=3 for 3 points"), (3, 0, "expected 1 to 2")],
)
def test_too_few_points_or_too_many_dimensions(n, dims, message):
    with pytest.raises(InvalidArgument, match=message):
        classical_mds(np.zeros((n, n)), dims=dims)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(4, 12), st.integers(1, 3), st.floats(1e-6, 1e6))
def test_orientation_is_one_for_all_rigid_motions(seed, n, dims, unit):
    rng = np.random.default_rng(seed)
    # Axes of clearly different extent, and one clear leader along each.
    points = rng.uniform(-1, 1, (n, dims)) * 4.0 ** -np.arange(dims)
    points[np.arange(dims), np.arange(dims)] = 8 * 4.0 ** -np.arange(dims)
    turn, _ = np.linalg.qr(rng.standard_normal((dims, dims)))
    moved = (points @ turn + rng.standard_normal(dims)) * unit
    oriented = orient(moved)
    np.testing.assert_allclose(pdist(oriented), pdist(moved), rtol=1e-9)
    np.testing.assert_allclose(oriented, orient(points) * unit, atol=1e-9 * unit)
    assert (oriented.max(axis=0) >= -oriented.min(axis=0)).all()
