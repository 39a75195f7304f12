"""Intervals cover what they say they cover, and agree with tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from thalweg.errors import InvalidArgument
from thalweg.studies.intervals import bootstrap, exact, mean, share


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Clopper and Pearson by the beta distribution's quantiles; 0 and n in closed form.
    [
        (0, 10, 0.0, 1 - 0.025 ** (1 / 10)),
        (10, 10, 0.025 ** (1 / 10), 1.0),
        (8, 10, 0.44390, 0.97479),
        (4, 40, 0.02793, 0.23664),
    ],
)
def test_share_is_clopper_and_pearsons(hits: int, n: int, low: float, high: float) -> None:
    found = share("x", hits, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-6)
    assert found.value == hits / n


@pytest.mark.parametrize("p", [0.05, 0.5, 0.93])
def test_share_covers_at_its_level(p: float) -> None:
    found = [share("x", hits, 20) for hits in range(21)]
    weights = binom.pmf(range(21), 20, p)
    assert sum(w for w, s in zip(weights, found, strict=True) if s.low <= p <= s.high) >= 0.95


def test_mean_is_students() -> None:
    found = mean("x", [1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2  # t(0.975, 3) of the tables
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = bootstrap("x", x)
    half = 1.96 * x.std() / 20
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.03)
    assert found == bootstrap("x", x)


def test_bootstrap_takes_other_statistics() -> None:
    x = np.arange(101.0)
    found = bootstrap("x", x, np.median)
    assert found.value == 50.0
    assert 30 < found.low < 45 and 55 < found.high < 70


def test_exact_has_no_width() -> None:
    found = exact("count", 270)
    assert found.low == found.value == found.high == 270 and found.level == 1.0


def test_too_few_observations_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 2"):
        mean("x", [1.0])
    with pytest.raises(InvalidArgument, match="finite"):
        bootstrap("x", [1.0, np.nan, 2.0])
    with pytest.raises(InvalidArgument, match="hits"):
        share("x", 3, 2)
