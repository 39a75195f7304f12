"""How far a surface reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.geometry import covering_extent

TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.8]]


def test_a_path_inside_changes_nothing():
    path = [[0.2, 0.1], [0.9, 0.5]]
    assert covering_extent(TRIANGLE, [9, 9], path=path) == covering_extent(TRIANGLE, [9, 9])


def test_a_path_that_leaves_a_little_is_shown_whole():
    (low, high), (_, top) = covering_extent(TRIANGLE, [21, 21], path=[[-1.2, 0.0], [2.0, 2.0]])
    assert low < -1.2 and high > 2.0 and top > 2.0


def test_a_path_that_leads_far_away_triples_the_extent_at_most():
    narrow = covering_extent(TRIANGLE, [201, 201])
    wide = covering_extent(TRIANGLE, [201, 201], path=[[0.0, 0.0], [900.0, -900.0]])
    width = narrow[0][1] - narrow[0][0]
    assert wide[0] == pytest.approx((narrow[0][0], narrow[0][1] + width), rel=0.05)
    height = narrow[1][1] - narrow[1][0]
    assert wide[1] == pytest.approx((narrow[1][0] - height, narrow[1][1]), rel=0.05)


@given(st.integers(0, 2**32), st.integers(5, 40))
@settings(max_examples=40, deadline=None)
def test_the_origin_is_a_grid_point_and_the_points_are_inside(seed, points):
    generator = np.random.default_rng(seed)
    shown, path = generator.normal(size=(3, 2)), 3 * generator.normal(size=(6, 2))
    for (low, high), column in zip(
        covering_extent(shown, [points, points], path=path), shown.T, strict=True
    ):
        grid = np.linspace(low, high, points)
        assert np.abs(grid).min() < 1e-9 * (high - low)
        assert low <= column.min() and column.max() <= high
