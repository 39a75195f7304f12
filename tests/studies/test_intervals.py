"""Intervals cover what they say they cover, and agree with tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from thalweg.errors import InvalidArgument
from thalweg.studies.intervals import (
    cluster_mean,
    cluster_share,
    clusters_to_decide,
    exact,
    mean,
    share,
)


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


# A hierarchy: draws of data, parents within them, copies of each; variances of the three levels.
HIERARCHIES = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.1), (0.2, 0.5, 1.0), (0.0, 0.0, 1.0)]


def hierarchy(
    rng: np.random.Generator, draws: int, spread: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Observations of mean zero of 2 parents in each draw and 1 to 6 copies of each, and labels."""
    values, labels = [], []
    for draw in range(draws):
        of_draw = rng.normal(0, spread[0] ** 0.5)
        for parent in range(2):
            of_parent = of_draw + rng.normal(0, spread[1] ** 0.5)
            copies = 1 + (draw + 3 * parent) % 6
            values += list(of_parent + rng.normal(0, spread[2] ** 0.5, copies))
            labels += [(draw, parent)] * copies
    return np.array(values), np.array(labels).T


@pytest.mark.parametrize("draws", [3, 8])
@pytest.mark.parametrize("spread", HIERARCHIES)
def test_mean_by_draws_covers_whatever_the_level_of_the_variance(
    draws: int, spread: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(draws)
    seen = [cluster_mean("x", *hierarchy(rng, draws, spread)) for _ in range(500)]
    covered = np.mean([s.low <= 0 <= s.high for s in seen])
    # 93 to 99 % but for a standard error or two of 500 draws. Unequal numbers of copies make the
    # means of draws unequally sharp, which costs less than that.
    assert 0.92 <= covered <= 0.99
    assert {s.n for s in seen} == {draws}


@pytest.mark.parametrize(("clusters", "shape"), [(6, 1.0), (8, 0.0), (8, 1.0)])
def test_the_mean_of_skewed_clusters_is_held(clusters: int, shape: float) -> None:
    rng, held, students = np.random.default_rng(clusters), 0, 0
    mean_of_all = np.exp(shape**2 / 2) if shape else 0.0
    for _ in range(200):
        x = rng.lognormal(0, shape, clusters) if shape else rng.normal(size=clusters)
        found = cluster_mean("x", x, range(clusters))
        half = t.ppf(0.975, clusters - 1) * x.std(ddof=1) / clusters**0.5
        assert min(found.value - found.low, found.high - found.value) >= half * (1 - 1e-9)
        held += found.low <= mean_of_all <= found.high
        students += abs(x.mean() - mean_of_all) <= half
    assert held / 200 >= 0.91
    assert shape < 1 or students / 200 < 0.9


def test_clusters_that_are_alike_have_a_short_interval() -> None:
    found = cluster_mean("x", [0.25] * 8, range(8))
    assert found.low == found.value == found.high == 0.25


def test_what_clusters_share_adds_to_their_scatter() -> None:
    x = np.random.default_rng(0).normal(size=8)
    alone, both = (cluster_mean("x", x, range(8), shared_variance=v) for v in (0.0, 4.0))
    assert both.high - both.value == pytest.approx(
        np.hypot(alone.high - alone.value, 1.96 * 2), rel=1e-3
    )


def test_pooled_observations_do_not_cover() -> None:
    rng = np.random.default_rng(0)
    drawn = [hierarchy(rng, 3, (1.0, 0.0, 0.1))[0] for _ in range(200)]
    assert np.mean([(s := mean("x", x)).low <= 0 <= s.high for x in drawn]) < 0.8


@pytest.mark.parametrize("clusters", [3, 8])
@pytest.mark.parametrize("p", [0.5, 0.9])
@pytest.mark.parametrize("alike", [0.0, 0.5, 0.99])
def test_share_by_clusters_covers_however_alike_copies_are(
    clusters: int, p: float, alike: float
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(range(clusters), 20)
    covered = []
    for _ in range(200):
        size = (1 - alike) / alike if alike else np.inf
        of_parent = rng.beta(p * size, (1 - p) * size, clusters) if alike else np.full(clusters, p)
        found = cluster_share("x", rng.random(labels.size) < of_parent[labels], labels)
        covered.append(found.low <= p <= found.high)
    assert np.mean(covered) >= 0.95


def test_copies_that_do_the_same_count_as_their_parents() -> None:
    parents = [True, True, False, True, True, True]
    found = cluster_share("x", np.repeat(parents, 4), np.repeat(range(6), 4))
    one_each = share("x", 5, 6)
    assert (found.value, found.low, found.high) == pytest.approx(
        (one_each.value, one_each.low, one_each.high)
    )


def test_levels_are_averaged_from_the_inside() -> None:
    values = [0.0, 0.0, 0.0, 4.0, 6.0]
    draws, parents = ["a", "a", "a", "a", "b"], [0, 0, 0, 1, 0]
    found = cluster_mean("x", values, [draws, parents])
    assert found.value == 4.0  # of draw a: 0 and 4, so 2; of b: 6
    assert cluster_mean("x", values, draws).value == 3.5
    assert found.high - found.value == pytest.approx(12.7062 * 2, rel=1e-5)  # t(0.975, 1)


def test_noise_that_clusters_share_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(500):
        common = rng.normal(0, 0.5)  # of the one test set
        x = common + rng.normal(0, 1.0, 4)
        found = cluster_mean("x", x, range(4), shared_variance=0.25)
        covered.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.99


def test_the_clusters_that_can_decide_are_the_fewest() -> None:
    for threshold in (0.1, 0.5, 0.9):
        n = clusters_to_decide(threshold)
        full, none = share("x", n, n), share("x", 0, n)
        assert full.low > threshold and none.high < threshold
        fewer = share("x", n - 1, n - 1), share("x", 0, n - 1)
        assert fewer[0].low <= threshold or fewer[1].high >= threshold


def test_exact_has_no_width() -> None:
    found = exact("count", 270)
    assert found.low == found.value == found.high == 270 and found.level == 1.0


def test_too_few_observations_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 2"):
        mean("x", [1.0])
    with pytest.raises(InvalidArgument, match="finite"):
        mean("x", [1.0, np.nan, 2.0])
    with pytest.raises(InvalidArgument, match="1 cluster; expected at least 2"):
        cluster_mean("x", [1.0, 2.0], [0, 0])
    with pytest.raises(InvalidArgument, match="labels of shape"):
        cluster_share("x", [True], [0, 1])
    with pytest.raises(InvalidArgument, match="hits"):
        share("x", 3, 2)
