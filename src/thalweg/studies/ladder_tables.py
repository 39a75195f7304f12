"""Ends of the trainings of a ladder, and their trends, as labelled data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.invariant_measures import MEASURES

if TYPE_CHECKING:
    import xarray as xr


def ends_dataset(
    outcomes: Sequence[tuple[dict[str, Any], dict[str, Any]]], places: Sequence[str]
) -> xr.Dataset:
    """
    Put the trainings of a study into one table along ``end``.

    Parameters
    ----------
    outcomes : sequence of (dict, dict)
        Place and outcome of each; what an outcome lacks becomes NaN.
    places : sequence of str
        Names that are coordinates.

    Returns
    -------
    xarray.Dataset
        Measures have their units.
    """
    import xarray as xr

    rows = [place | outcome for place, outcome in outcomes]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: ("end", np.array([row.get(name, np.nan) for row in rows])) for name in names}
    dataset = xr.Dataset(columns)
    for name in set(MEASURES) & set(names):
        dataset[name].attrs["units"] = MEASURES[name].units
    return dataset.set_coords(list(places))


def trends_dataset(rows: Sequence[dict[str, float | str]], *, units: str) -> xr.Dataset:
    """
    Put the rows of `thalweg.studies.trends.tabulate` into a table along ``row``.

    Parameters
    ----------
    rows : sequence of dict
        All with the same names.
    units : str
        Of the trends.
    """
    import xarray as xr

    columns = {name: ("row", np.array([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(columns, attrs={"units": units})
