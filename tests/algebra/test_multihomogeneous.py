from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.algebra import bezout, multihomogeneous_bezout
from thalweg.errors import InvalidArgument


def test_ten_thousand_equations_of_degree_ten_thousand():
    found = bezout({10**4: 10**4})
    assert found.value == 10**40000
    assert found.log10 == 40000
    assert found.closed_form == found.short == "10000^10000"


def test_bezout_multiplies_degrees():
    found = bezout([3, 2, 3, 5])
    assert found.value == found.short == 90
    assert found.closed_form == "2^1 * 3^2 * 5^1"
    assert found.log10 == pytest.approx(math.log10(90), rel=1e-15)


@pytest.mark.parametrize(("degrees", "value", "log10"), [([], 1, 0), ([0, 3], 0, -math.inf)])
def test_bezout_of_nothing_and_of_constants(degrees, value, log10):
    assert (bezout(degrees).value, bezout(degrees).log10) == (value, log10)


def test_negative_degrees_are_refused():
    with pytest.raises(InvalidArgument, match="non-negative"):
        bezout([3, -1])


def by_expansion(rows, sizes):
    """Sum over all choices of one group an equation that use each group as often as it has."""
    total = 0
    for choice in itertools.product(range(len(sizes)), repeat=len(rows)):
        if all(choice.count(k) == size for k, size in enumerate(sizes)):
            total += math.prod(row[k] for row, k in zip(rows, choice, strict=True))
    return total


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_dynamic_programming_agrees_with_expansion(data):
    sizes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    row = st.tuples(*[st.integers(0, 3)] * len(sizes))
    rows = data.draw(st.lists(row, min_size=sum(sizes), max_size=sum(sizes)))
    assert multihomogeneous_bezout(rows, sizes) == by_expansion(rows, sizes)


def test_one_group_is_bezout():
    assert multihomogeneous_bezout([(3,)] * 9, [9]) == bezout([3] * 9).value == 19683


def test_many_equal_equations_take_a_closed_form():
    found = multihomogeneous_bezout([(3, 1)] * 2000, [1000, 1000])
    assert found == math.comb(2000, 1000) * 3**1000


def test_counts_that_do_not_match_are_refused():
    with pytest.raises(InvalidArgument, match="as many"):
        multihomogeneous_bezout([(1, 1)], [1, 1])
