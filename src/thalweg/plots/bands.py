"""Groups of trajectories as bands: their mean, and the range from lowest to highest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new
from thalweg.plots.logscale import log_scale

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_bands(
    data: xr.Dataset,
    *,
    variable: str,
    styles: Mapping[str, Mapping[str, Any]],
    against: str = "epoch",
    logarithmic: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """
    Draw the mean of each group of trajectories against the epoch, with a band over the group.

    Parameters
    ----------
    data : xarray.Dataset
        Variables along ``record`` with coordinates ``group`` and the one in ``against``.
    variable : str
        What to draw; NaN is not drawn.
    styles : mapping of str to mapping
        The groups to draw, each with arguments for ``ax.plot``, ``color`` among them.
    against : str
        The horizontal axis; a trajectory that ended earlier leaves its group there.
    logarithmic : bool
        Draw the vertical axis so; zero is drawn at the smallest positive value.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The band reaches from the lowest to the highest of the group.

    Raises
    ------
    InvalidArgument
        If the data have no such variable.
    """
    if variable not in data:
        raise InvalidArgument(f"variable={variable!r}; the data have {', '.join(map(str, data))}.")
    axes = axes_or_new(ax)
    shown = data[variable].values
    values = log_scale(shown).place(shown) if logarithmic else shown
    groups = data["group"].values
    for group, style in styles.items():
        of_group = (groups == group) & np.isfinite(shown)
        if not of_group.any():
            continue
        places = np.unique(data[against].values[of_group])
        columns = [values[of_group & (data[against].values == place)] for place in places]
        low, high = ([end(column) for column in columns] for end in (np.min, np.max))
        axes.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0)
        axes.plot(places, [column.mean() for column in columns], **style)
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
