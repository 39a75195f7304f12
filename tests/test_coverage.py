"""A small version of benchmarks/coverage.py: what states errors holds them on hard cases."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import coverage

# Errors that are drawn in milliseconds; of the others each has a test beside its own.
QUICK = [
    one
    for one in coverage.CASES
    if one.error.startswith(("mean over", "studies", "trace", "differences"))
]


@pytest.mark.parametrize("one", QUICK, ids=lambda one: f"{one.error}, {one.case}")
def test_intervals_hold_on_hard_cases(one):
    share, _, _ = coverage.coverage(one, 100)
    assert share >= 0.88


@pytest.mark.parametrize(
    "word",
    ["near_zero", "top_eigenvalues", "surface", pytest.param("barrier", marks=pytest.mark.slow)],
)
def test_slow_ones_run(word):
    one = next(case for case in coverage.CASES if word in case.error)
    share, _, _ = coverage.coverage(one, 6)
    assert share >= 0.8


def test_an_error_bar_of_half_the_length_is_caught():
    """The control."""

    def draw(seed):
        x = np.random.default_rng(seed).normal(size=50)
        return abs(x.mean()) <= 0.98 * x.std(ddof=1) / np.sqrt(50)

    one = coverage.Case("half", "normal", "interval", draw)
    assert not coverage.right(one, coverage.coverage(one, 200)[0])
    assert coverage.right(one, 0.95) and not coverage.right(one, 1.0)
    assert coverage.right(coverage.Case("a", "b", "bound", draw), 1.0)
