"""Statistics with confidence intervals, each by the method that its kind of number asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import InvalidArgument
from thalweg.studies.claim import Statistic
from thalweg.studies.studentized import LEAST, studentized_quantiles

LEVEL = 0.95


def exact(name: str, value: float, *, units: str = "", n: int = 1) -> Statistic:
    """Give a number that has no uncertainty: a count, or a quantity computed exactly."""
    number = float(value)
    return Statistic(name, number, number, number, units, "exact", n, level=1.0)


def share(name: str, hits: int, n: int, *, units: str = "") -> Statistic:
    """
    Estimate a probability from ``hits`` among ``n`` independent trials.

    The interval is that of Clopper and Pearson (1934), which covers at least 95%.

    Raises
    ------
    InvalidArgument
        If there are no trials.

    Examples
    --------
    >>> found = share("returned", 0, 10)
    >>> found.low, round(found.high, 4)
    (0.0, 0.3085)
    """
    from scipy.stats import binomtest

    if not 0 <= hits <= n or n < 1:
        raise InvalidArgument(f"{name}: {hits} of {n}; expected 0 <= hits <= n and n >= 1.")
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    method = "exact binomial (Clopper-Pearson)"
    value = hits / n
    # The ends are roots found numerically: they may miss the estimate by a rounding.
    low, high = min(float(interval.low), value), max(float(interval.high), value)
    return Statistic(name, value, low, high, units, method, n, LEVEL)


def mean(name: str, values: ArrayLike, *, units: str = "") -> Statistic:
    """
    Estimate the mean of independent observations.

    The interval is that of `cluster_mean`, each observation a cluster.

    Raises
    ------
    InvalidArgument
        If there are fewer than two, or one is not finite.

    Examples
    --------
    >>> found = mean("loss", [1.0, 2.0, 3.0])
    >>> found.value, round(found.high - found.value, 4)
    (2.0, 2.4841)
    """
    x = _observations(name, values, least=2)
    return _of_means(name, x, units, "observations")


def cluster_mean(
    name: str,
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    units: str = "",
    shared_variance: float = 0.0,
) -> Statistic:
    """
    Estimate the mean over a population of clusters of which each was observed several times.

    Observations are averaged from the innermost level outwards; the means of the outermost
    clusters are independent, whatever happens within. Of fewer than six, their mean has Student's
    interval, exact for normal cluster means, with as few as two of them; from six on that of a
    bootstrap of the studentized mean, which holds for skewed ones too, and no narrower than
    Student's. Observations weigh as their cluster does, not by their number.

    Parameters
    ----------
    name : str
        What is estimated.
    values : array-like
        Shape (n,), the observations.
    clusters : array-like
        Shape (n,), which cluster each is of; or (levels, n), outermost level first: draws of data,
        then parents within them. Labels of an inner level may be used again in another cluster.
    units : str
        Of the result.
    shared_variance : float
        Variance of the estimate by what all clusters have in common, such as one test set.
        Its freedom is taken to be infinite (Satterthwaite 1946).

    Raises
    ------
    InvalidArgument
        If there are fewer than two clusters, or a value is not finite.

    Examples
    --------
    >>> found = cluster_mean("loss", [1.0, 1.0, 1.0, 3.0], [0, 0, 0, 1])
    >>> found.value, found.n, round(found.high - found.value, 3)
    (2.0, 2, 12.706)
    """
    x = _cluster_means(name, values, clusters, least=2)
    return _of_means(name, x, units, "clusters", shared_variance)


def cluster_share(name: str, hits: ArrayLike, clusters: ArrayLike, *, units: str = "") -> Statistic:
    """
    Estimate a probability over a population of clusters of which each was tried several times.

    The interval is Clopper's and Pearson's with one trial a cluster, and the sum of the clusters'
    shares as hits. Copies of one parent may all do the same, so that they count as one trial; where
    they do not, the variance of a cluster's share is smaller than that of a trial (Hoeffding 1956)
    and the interval too wide, never too narrow. Counts corrected by an estimated design effect are
    not taken: of 8 clusters of 20 trials their interval holds the truth in 88%.

    Parameters
    ----------
    name : str
        What is estimated.
    hits : array-like of bool
        Shape (n,), the trials.
    clusters : array-like
        As in `cluster_mean`.
    units : str
        Of the result.

    Raises
    ------
    InvalidArgument
        If there is no trial.

    Examples
    --------
    Nine copies of three parents are no nine trials:

    >>> found = cluster_share("returned", [True] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    >>> found.value, found.n, round(found.low, 4)
    (1.0, 3, 0.2924)
    """
    from scipy.stats import beta

    x = _cluster_means(name, np.asarray(hits, dtype=np.float64), clusters, least=1)
    n, total = x.size, float(x.sum())
    tail = (1 - LEVEL) / 2
    # The quantiles are roots found numerically: they may miss the estimate by a rounding.
    value = float(x.mean())
    low = min(float(beta.ppf(tail, total, n - total + 1)), value) if total > 0 else 0.0
    high = max(float(beta.ppf(1 - tail, total + 1, n - total)), value) if total < n else 1.0
    method = f"Clopper-Pearson, {n} clusters as trials"
    return Statistic(name, value, low, high, units, method, n, LEVEL)


def clusters_to_decide(threshold: float) -> int:
    """
    Count the clusters without which no share can be told to lie above a threshold, or below it.

    Parameters
    ----------
    threshold : float
        Between 0 and 1.

    Raises
    ------
    InvalidArgument
        If it is not.

    Examples
    --------
    Five hits of five reach from 0.48 to 1:

    >>> clusters_to_decide(0.5), clusters_to_decide(0.9)
    (6, 36)
    """
    if not 0 < threshold < 1:
        raise InvalidArgument(f"a threshold of {threshold:g}; expected one between 0 and 1.")
    tail = math.log((1 - LEVEL) / 2)
    return max(math.ceil(tail / math.log(end)) for end in (threshold, 1 - threshold))


def _of_means(
    name: str, x: NDArray[np.float64], units: str, kind: str, shared_variance: float = 0.0
) -> Statistic:
    """Estimate the mean of independent values with what they have in common."""
    from scipy.stats import t

    value, own = float(x.mean()), float(x.var(ddof=1)) / x.size
    variance = own + shared_variance
    freedom = (x.size - 1) * (variance / own) ** 2 if own > 0 and shared_variance else x.size - 1
    below = above = float(t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    method = f"Student's t over {x.size} {kind}, {freedom:.3g} degrees of freedom"
    if x.size >= LEAST and own > 0:
        method = f"studentized bootstrap over {x.size} {kind}, no narrower than Student's t"
        low, high = (quantile * own**0.5 for quantile in studentized_quantiles(x))
        # Independent errors of both kinds, in quadrature.
        shared = float(t.ppf((1 + LEVEL) / 2, np.inf)) * shared_variance**0.5
        below = max(below, math.hypot(max(high, 0.0), shared))
        above = max(above, math.hypot(max(-low, 0.0), shared))
    return Statistic(name, value, value - below, value + above, units, method, x.size, LEVEL)


def _cluster_means(
    name: str, values: ArrayLike, clusters: ArrayLike, *, least: int
) -> NDArray[np.float64]:
    """Average from the innermost level outwards; shape (outermost clusters,)."""
    import pandas as pd

    x = _observations(name, values, least=1)
    levels = np.atleast_2d(np.asarray(clusters))
    if levels.shape[1] != x.size:
        raise InvalidArgument(
            f"{name}: {x.size} observations with labels of shape {levels.shape}; expected"
            f" ({x.size},), or (levels, {x.size})."
        )
    means = pd.Series(x)
    keys = [pd.Series(level) for level in levels]
    while keys:
        grouped = means.groupby(keys).mean()
        means = grouped.reset_index(drop=True)
        labels = grouped.index.to_frame(index=False)
        keys = [labels.iloc[:, i] for i in range(len(keys) - 1)]
    if len(means) < least:
        raise InvalidArgument(
            f"{name}: {len(means)} cluster; expected at least {least}. Observations of one cluster"
            " do not say how clusters differ."
        )
    averaged: NDArray[np.float64] = means.to_numpy(dtype=np.float64)
    return averaged


def _observations(
    name: str, values: ArrayLike | Sequence[float], *, least: int
) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if x.size < least or not np.isfinite(x).all():
        raise InvalidArgument(
            f"{name}: {x.size} observations, {int((~np.isfinite(x)).sum())} of them not finite;"
            f" expected at least {least}, all finite."
        )
    return x
