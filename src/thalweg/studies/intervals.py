"""Statistics with confidence intervals, each by the method that its kind of number asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import InvalidArgument
from thalweg.studies.claim import Statistic

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
    found = binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    method = "exact binomial (Clopper-Pearson)"
    value = hits / n
    # The ends are roots found numerically: they may miss the estimate by a rounding.
    low, high = min(float(found.low), value), max(float(found.high), value)
    return Statistic(name, value, low, high, units, method, n, LEVEL)


def mean(name: str, values: ArrayLike, *, units: str = "") -> Statistic:
    """
    Estimate the mean of independent observations, with Student's interval.

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
    from scipy.stats import t

    x = _observations(name, values, least=2)
    half = float(t.ppf((1 + LEVEL) / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))
    value = float(x.mean())
    method = f"Student's t with {x.size - 1} degrees of freedom"
    return Statistic(name, value, value - half, value + half, units, method, x.size, LEVEL)


def bootstrap(
    name: str,
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    units: str = "",
    seed: int = 0,
) -> Statistic:
    """
    Estimate a function of a distribution from independent observations.

    The interval is the percentile bootstrap's of 9,999 resamples.

    Parameters
    ----------
    name : str
        What is estimated.
    values : array-like
        Shape (n,), the observations.
    statistic : callable
        Takes an array and ``axis``.
    units : str
        Of the result.
    seed : int
        Of the resampling.

    Raises
    ------
    InvalidArgument
        If there are fewer than two, or one is not finite.
    """
    from scipy import stats

    x = _observations(name, values, least=2)
    found = stats.bootstrap(
        (x,),
        statistic,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = float(statistic(x, axis=0))
    low, high = min(float(found.low), value), max(float(found.high), value)
    return Statistic(name, value, low, high, units, "percentile bootstrap", x.size, LEVEL)


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
