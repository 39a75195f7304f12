"""A measured quantity over the rungs of a ladder: a line a parent, and the mean of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORS, UNMEASURED

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_ladder(
    ends: xr.Dataset,
    *,
    variable: str,
    names: Sequence[str],
    label: str = "",
    logarithmic: bool = True,
    color: str = COLORS[0],
    ax: Axes | None = None,
) -> Axes:
    """
    Draw a quantity against the rung: thin for each parent, and thick the mean over parents.

    Parameters
    ----------
    ends : xarray.Dataset
        Along ``end``: the variable, with ``rung`` and ``parent``; NaN is not drawn.
    variable : str
        What to draw.
    names : sequence of str
        What the rungs are called, in their order.
    label : str
        Of the vertical axis; by default the variable.
    logarithmic : bool
        Draw the vertical axis so; the mean is then that of logarithms.
    color : str
        Of the mean.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The mean has a mark at each rung that all parents have come to.

    Raises
    ------
    InvalidArgument
        If the data have no such variable.
    """
    if variable not in ends:
        raise InvalidArgument(f"variable={variable!r}; the data have {', '.join(map(str, ends))}.")
    axes = axes_or_new(ax)
    parents = np.unique(ends["parent"].values)
    values = np.full((len(parents), len(names)), np.nan)
    places = np.searchsorted(parents, ends["parent"].values)
    values[places, ends["rung"].values.astype(int)] = ends[variable].values
    if logarithmic:
        values[~(values > 0)] = np.nan
    across = np.arange(len(names))
    axes.plot(across, values.T, color=UNMEASURED, linewidth=0.8, alpha=0.7)
    seen = np.log(values) if logarithmic else values
    complete = np.isfinite(seen).all(0)
    mean = np.where(complete, seen.mean(0), np.nan)
    mean = np.exp(mean) if logarithmic else mean
    axes.plot(across, mean, color=color, marker="o", linewidth=2, markersize=5)
    axes.set_xticks(across, names)
    if logarithmic and np.isfinite(values).any():
        axes.set_yscale("log")
    axes.set_ylabel(label or variable)
    axes.set_xlim(-0.25, len(names) - 0.75)
    axes.grid(alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
