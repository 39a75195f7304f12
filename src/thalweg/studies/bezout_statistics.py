"""Statistics of the paper's zero-minimizers, of tables of systems and of critical points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Statistic
from thalweg.studies.intervals import exact

if TYPE_CHECKING:
    import xarray as xr


def of_groups(table: xr.Dataset, *groups: str) -> xr.Dataset:
    """Give the rows of these groups."""
    return table.isel(row=np.flatnonzero(in_groups(table, *groups)))


def in_groups(table: xr.Dataset, *groups: str) -> Any:
    """Say which rows are of these groups, shape (rows,), bool."""
    return np.isin(table["group"].values.astype(str), groups)


def of_case(cases: xr.Dataset, case: str) -> xr.Dataset:
    """Give the rows of one case."""
    return cases.isel(row=np.flatnonzero(cases["case"].values.astype(str) == case))


def flat_minima(points: xr.Dataset) -> xr.Dataset:
    """
    Give the critical points of positive loss that are minima, or may be for all that is known.

    A loss of 1e-12 of that of the zero function is a zero-minimizer up to rounding.
    """
    kinds = points["kind"].values.astype(str)
    floor = 1e-12 * (points["at_zero"].values if "at_zero" in points else 1.0)
    low = np.isin(kinds, ("minimum", "undetermined")) & (points["index"].values == 0)
    return points.isel(row=np.flatnonzero(low & (points["value"].values > floor)))


def unexplained_nullity(points: xr.Dataset) -> Any:
    """Give the nullities less what rescalings of units explain."""
    return points["nullity"].values - points["nullity_symmetry"].values


def mismatches(name: str, systems: xr.Dataset) -> Statistic | None:
    """Count the systems whose zeros exist against the rule that M equations need rank M."""
    exists = systems["exists"].values
    finite = np.isfinite(exists)
    fits = systems["equations"].values <= systems["generic_rank"].values
    if not finite.any():
        return None
    wrong = int((exists[finite] != fits[finite]).sum())
    return exact(name, wrong, units="systems", n=int(finite.sum()))


def dimension_error(name: str, systems: xr.Dataset) -> Statistic | None:
    """Give the largest error of the dimension that parameters less equations predict."""
    expected, empty = systems["dimension_expected"].values, systems["exists"].values == 0
    # By convention the empty set has dimension -1.
    dimensions = [np.where(empty, -1, systems[f"dimension_{end}"]) for end in ("low", "high")]
    ends = [dimension - expected for dimension in dimensions]
    return largest(name, np.abs(np.concatenate(ends)), "dimensions")


def smallest(name: str, values: Any, units: str) -> Statistic | None:
    """Give the smallest of the finite values; None where there are none."""
    return _extreme(name, values, units, np.min)


def largest(name: str, values: Any, units: str) -> Statistic | None:
    """Give the largest of the finite values; None where there are none."""
    return _extreme(name, values, units, np.max)


def _extreme(name: str, values: Any, units: str, choose: Any) -> Statistic | None:
    """The decisive one of the finite values; None where there are none."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return exact(name, float(choose(finite)), units=units, n=len(finite)) if len(finite) else None
