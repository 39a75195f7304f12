"""Rank trends with their intervals: a row a measure, against what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_trends(
    trends: xr.Dataset,
    *,
    groups: Mapping[str, str],
    threshold: float,
    ax: Axes | None = None,
) -> Axes:
    """
    Draw the mean trend of each measure, a colour a group, with its interval.

    Parameters
    ----------
    trends : xarray.Dataset
        Along ``row``: ``group``, ``measure``, ``value``, ``low``, ``high``; NaN is not drawn.
    groups : mapping of str to str
        Which groups, and what the legend calls them.
    threshold : float
        What a rule asks for: a broken line.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        From -1, always less robust, to 1, always more.
    """
    axes = axes_or_new(ax)
    measures = list(dict.fromkeys(str(name) for name in trends["measure"].values))
    for number, (group, label) in enumerate(groups.items()):
        of_group = trends.isel(row=trends["group"].values == group)
        rows = [measures.index(str(name)) for name in of_group["measure"].values]
        up = np.array(rows) + 0.6 * ((number + 0.5) / len(groups) - 0.5)
        value, low, high = (of_group[name].values for name in ("value", "low", "high"))
        axes.errorbar(
            value,
            up,
            xerr=np.abs(np.stack([value - low, high - value])),
            fmt="o",
            markersize=4,
            color=COLORS[number % len(COLORS)],
            linewidth=1.4,
            label=label,
        )
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.axvline(threshold, color="#555555", linestyle="--", linewidth=0.9)
    axes.set_yticks(range(len(measures)), [name.replace("_", " ") for name in measures])
    axes.invert_yaxis()
    axes.set(xlim=(-1.3, 1.3), xlabel="trend over pairs (1: always more robust)")
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
