from __future__ import annotations

import numpy as np
import pytest

from thalweg.algebra import network, random_system, sample_real, walk, zero_system
from thalweg.errors import InvalidArgument

CASES = [
    ((1, 2, 1), (0, 0, 0, 1), False, 1),
    ((2, 3, 1), (0, 0, 0, 1), True, 5),
    ((2, 3, 1), (0, 0, 1), True, 4),
    ((2, 2, 1), (0, 1, 0, 1), False, 3),
]


@pytest.mark.parametrize(("widths", "activation", "bias", "samples"), CASES)
def test_points_and_walks_stay_on_the_set(widths, activation, bias, samples):
    system = random_system(network(widths, activation, bias=bias), samples=samples)
    points = sample_real(system, 30)
    assert 10 <= len(points.weights) <= points.tried == 30
    assert points.residuals.max() < 1e-12
    path = walk(system, points.weights[0], signs=points.signs[0], steps=40)
    assert path.status == "done"
    assert path.residuals.max() < 1e-12
    assert path.length == pytest.approx(40 * 0.05, rel=0.1)


def test_a_walk_along_a_circle_comes_round():
    # w1**2 + w2**2 = 1: one sample, two quadratic units.
    circle = zero_system(network((1, 2, 1), (0, 0, 1)), [[1.0]], [1.0])
    path = walk(circle, [1.0, 0.0], steps=126, length=0.05)
    np.testing.assert_allclose(np.linalg.norm(path.weights, axis=1), 1, rtol=1e-12)
    angles = np.unwrap(np.arctan2(path.weights[:, 1], path.weights[:, 0]))
    assert abs(angles[-1] - angles[0]) == pytest.approx(2 * np.pi, rel=0.01)


def test_even_units_take_both_signs():
    system = random_system(network((1, 1, 1), (0, 0, 1), bias=True), samples=1, seed=4)
    negative = zero_system(system.network, [[1.0]], [-2.0])
    points = sample_real(negative, 40)
    assert set(points.signs.ravel()) == {-1.0}


def test_a_walk_begins_at_a_solution_that_is_not_isolated():
    circle = zero_system(network((1, 2, 1), (0, 0, 1)), [[1.0]], [1.0])
    with pytest.raises(InvalidArgument, match="begins at a solution"):
        walk(circle, [2.0, 0.0])
    point = zero_system(network((1, 1, 1), (0, 0, 0, 1)), [[1.0]], [1.0])
    with pytest.raises(InvalidArgument, match="isolated"):
        walk(point, [1.0])
