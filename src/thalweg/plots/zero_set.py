"""The real zero set of a network with two weights: a curve over its loss surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORMAP, COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_LEVELS = 13
_DECADES = 5


def plot_zero_set(surface: xr.Dataset, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """
    Draw a loss of two weights as contours, and over them the curve on which it is zero.

    Parameters
    ----------
    surface : xarray.Dataset
        ``loss`` along ``first`` and ``second``; ``curve`` along ``step`` and ``weight``, points
        where the loss is zero.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``, for the curve.

    Returns
    -------
    matplotlib Axes
        With a bar of colours; the loss is cut below its largest value over 1e5.
    """
    from matplotlib.colors import LogNorm

    axes = axes_or_new(ax)
    loss = surface["loss"].values
    top = float(loss.max())
    levels = np.geomspace(top / 10**_DECADES, top, _LEVELS)
    drawn = axes.contourf(
        surface["first"].values,
        surface["second"].values,
        np.maximum(loss, levels[0]).T,
        levels=levels,
        norm=LogNorm(levels[0], top),
        cmap=COLORMAP,
    )
    bar = axes.figure.colorbar(drawn, ax=axes, ticks=levels[::3], format="%.1e")
    bar.set_label("loss (mean squared error)")
    look = {"color": COLORS[1], "linewidth": 2.2, "label": "zero set", **kwargs}
    axes.plot(*surface["curve"].values.T, **look)
    low, high = surface["first"].values[[0, -1]]
    axes.set(xlabel="weight 1", ylabel="weight 2", xlim=(low, high), ylim=(low, high))
    axes.set_aspect("equal")
    return cast("Axes", axes)
