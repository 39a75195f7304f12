from __future__ import annotations

import numpy as np
import pytest

from thalweg.curvature.cholesky import InPlaceCholesky


@pytest.fixture
def matrix():
    rows = np.random.default_rng(0).standard_normal((60, 80))
    return rows @ rows.T


def test_solves_for_one_shift_after_another_and_gives_the_matrix_back(matrix):
    kept = matrix.copy()
    cholesky, right = InPlaceCholesky(matrix), np.arange(60.0)
    for shift in (0.0, 3.0, 100.0):
        assert cholesky.factor(shift)
        expected = np.linalg.solve(kept + shift * np.eye(60), right)
        np.testing.assert_allclose(cholesky.solve(right), expected, rtol=1e-9)
    assert np.array_equal(cholesky.restore(), kept)


def test_finds_the_smallest_eigenvalue_and_refuses_a_shift_below_it(matrix):
    smallest = np.linalg.eigvalsh(matrix)[0]
    cholesky = InPlaceCholesky(matrix)
    assert cholesky.factor(0.0)
    assert cholesky.smallest_eigenvalue() == pytest.approx(smallest, rel=1e-3)
    assert cholesky.factor(-0.99 * smallest)
    assert not cholesky.factor(-1.01 * smallest)


def test_a_single_row():
    cholesky = InPlaceCholesky(np.array([[4.0]]))
    assert cholesky.factor(0.0)
    assert cholesky.smallest_eigenvalue() == pytest.approx(4.0)
