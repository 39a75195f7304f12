from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from thalweg.embedding.quality import fidelity, point_stress, shown_distances, stress_1


def example():
    points = np.random.default_rng(0).standard_normal((8, 5))
    return squareform(pdist(points)), shown_distances(points[:, :2])


def test_stress_is_kruskal_s_sum_over_pairs():
    distances, shown = example()
    errors = norm = 0.0
    for i in range(8):
        for j in range(i):
            errors += (shown[i, j] - distances[i, j]) ** 2
            norm += shown[i, j] ** 2
    assert stress_1(distances, shown) == pytest.approx(np.sqrt(errors / norm))


def test_point_stresses_average_to_the_stress():
    distances, shown = example()
    weights = (shown**2).sum(axis=1)
    mean = np.average(point_stress(distances, shown) ** 2, weights=weights)
    assert mean == pytest.approx(stress_1(distances, shown) ** 2)


def test_fidelity_is_the_correlation_of_each_row():
    distances, shown = example()
    expected = [
        np.corrcoef(np.delete(distances[i], i), np.delete(shown[i], i))[0, 1] for i in range(8)
    ]
    np.testing.assert_allclose(fidelity(distances, shown), expected)


def test_nothing_to_show_is_no_stress_and_no_correlation():
    nothing = np.zeros((3, 3))
    assert stress_1(nothing, nothing) == 0
    assert (point_stress(nothing, nothing) == 0).all()
    assert np.isnan(fidelity(nothing, nothing)).all()
    assert stress_1(1 - np.eye(3), nothing) == np.inf
