from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.algebra.hilbert import dimension_and_degree


@pytest.mark.parametrize(
    ("leading", "variables", "expected"),
    [
        ([(0, 0)], 2, (None, 0)),
        ([], 3, (3, 1)),
        ([(1, 1)], 2, (1, 2)),  # two lines
        ([(1, 0, 0), (0, 2, 0)], 3, (1, 2)),  # a double line
        ([(1, 1, 0), (1, 0, 1)], 3, (2, 1)),  # a plane and a line
        ([(3, 0), (0, 5)], 2, (0, 15)),
    ],
)
def test_known_ideals(leading, variables, expected):
    assert dimension_and_degree(leading, variables) == expected


@settings(max_examples=50, deadline=None)
@given(
    corners=st.tuples(*[st.integers(1, 4)] * 3),
    others=st.lists(st.tuples(*[st.integers(0, 3)] * 3).filter(any), max_size=4),
)
def test_finite_staircases_are_counted(corners, others):
    powers = [tuple(c * (k == j) for j in range(3)) for k, c in enumerate(corners)]
    leading = [*powers, *others]
    below = sum(
        not any(all(a <= b for a, b in zip(m, point, strict=True)) for m in leading)
        for point in itertools.product(*map(range, corners))
    )
    assert dimension_and_degree(leading, 3) == (0, below)
