"""Rank trends along a ladder, within each parent: pairs of rungs, near ties counting as none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.run.seeds import numpy_generator
from thalweg.studies.claim import Rule, Statistic
from thalweg.studies.intervals import cluster_mean
from thalweg.studies.invariant_measures import MEASURES

if TYPE_CHECKING:
    import xarray as xr

# Of the pairs of rungs a third more go the way of the claim than go the other: two of three.
THIRD = Rule(low=1 / 3)
# So many that their chance leaves no doubt of a control: with 50 it did at base seed 100.
SHUFFLES = 500
_NAME = "pairs of rungs that go the claimed way, less those that go the other"


def rank_trend(values: ArrayLike, tolerance: float = 0.0) -> float:
    """
    Give Kendall's tau of values along a ladder, where a pair within the tolerance goes neither way.

    Parameters
    ----------
    values : array-like
        Shape (rungs,), in the order of the ladder; NaN where a rung has none.
    tolerance : float
        Differences of at most this count as none.

    Returns
    -------
    float
        From -1 (each falls below all before it) to 1; NaN of fewer than two numbers.

    References
    ----------
    Kendall, A new measure of rank correlation (1938): tau-a.

    Examples
    --------
    >>> rank_trend([1.0, 2.0, 3.0]), rank_trend([1.0, 1.1, 1.05], tolerance=0.2)
    (1.0, 0.0)
    """
    x = np.asarray(values, dtype=np.float64)
    return float(_taus(x, tolerance, np.arange(x.size)[None])[0])


def _taus(
    values: NDArray[np.float64], tolerance: float, orders: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the trend in each order of the rungs, shape (orders, rungs): shape (orders,)."""
    first, second = np.triu_indices(values.size, 1)
    ordered = values[orders]
    steps = ordered[:, second] - ordered[:, first]
    finite = np.isfinite(steps)
    ways = np.where(finite & (np.abs(steps) > tolerance), np.sign(steps), 0.0)
    counts = finite.sum(1)
    return np.where(counts > 0, ways.sum(1) / np.maximum(counts, 1), np.nan)


def trends(
    ends: xr.Dataset, names: tuple[str, ...], *, shuffle: int | None = None
) -> NDArray[np.float64]:
    """
    Give the mean trend of some measures for each parent, so that robust is up.

    Parameters
    ----------
    ends : xarray.Dataset
        Of one ladder: along ``end``, with ``parent``, ``rung`` and the measures.
    names : tuple of str
        Of `MEASURES`.
    shuffle : int, optional
        Seed of `SHUFFLES` orders of the rungs, in place of their own; all measures of a parent in
        the same one.

    Returns
    -------
    array
        float64, shape (parents,); NaN where no measure has two rungs.
    """
    means = []
    for parent in np.unique(ends["parent"].values):
        of_parent = ends.isel(end=ends["parent"].values == parent).sortby("rung")
        columns = np.array([_up(of_parent, name) for name in names])
        limits = [MEASURES[name].tolerance for name in names]
        rungs = columns.shape[1]
        orders = np.arange(rungs)[None]
        if shuffle is not None:
            generator = numpy_generator(shuffle, "shuffled rungs", int(parent))
            orders = np.stack([generator.permutation(rungs) for _ in range(SHUFFLES)])
        slopes = np.array(
            [_taus(column, limit, orders) for column, limit in zip(columns, limits, strict=True)]
        )
        finite = slopes[np.isfinite(slopes)]
        means.append(finite.mean() if finite.size else np.nan)
    return np.array(means)


def _up(ends: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Give a measure in the unit of its tolerance, larger where it is more robust."""
    measure, values = MEASURES[name], ends[name].values.astype(np.float64)
    if measure.logarithmic:
        values = np.log(np.where(values > 0, values, np.nan))
    return values if measure.larger else -values


def trend_statistic(
    ends: xr.Dataset, names: tuple[str, ...], *, shuffle: int | None = None
) -> Statistic | None:
    """
    Estimate the mean trend over parents.

    Parameters
    ----------
    ends, names, shuffle
        As of `trends`.

    Returns
    -------
    Statistic or None
        With its interval over parents; None where fewer than two have a trend.
    """
    finite = trends(ends, names, shuffle=shuffle) if ends.sizes["end"] else np.empty(0)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        return None
    return cluster_mean(_NAME, finite, np.arange(finite.size), units="of all pairs")


def tabulate(
    groups: Mapping[str, xr.Dataset], names: tuple[str, ...]
) -> list[dict[str, float | str]]:
    """Give the mean trend of each measure in each group with its interval; NaN where none is."""
    rows: list[dict[str, float | str]] = []
    for group, ends in groups.items():
        for name in names:
            statistic = trend_statistic(ends, (name,))
            numbers = (
                (statistic.value, statistic.low, statistic.high, float(statistic.n))
                if statistic
                else (np.nan, np.nan, np.nan, 0.0)
            )
            rows.append(
                {"group": group, "measure": name}
                | dict(zip(("value", "low", "high", "parents"), numbers, strict=True))
            )
    return rows
