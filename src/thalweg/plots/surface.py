"""A surface over a plane, seen from the side: the loss as height."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.axes import axes_or_new
from thalweg.plots.grids import (
    Shown,
    add_points_legend,
    axis_label,
    check_dims,
    heights,
    mark_style,
    measured,
    near,
    note_beside,
    shown_points,
    value_label,
)
from thalweg.plots.palette import COLORMAP, COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_surface(
    surface: xr.Dataset,
    *,
    variable: str = "loss",
    points: xr.Dataset | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw a surface of two dimensions in three.

    Cells that are not finite are holes. Trajectories hang at their own losses: above or below the
    surface where they lie off its plane, and up to a width beyond it where they leave the picture.

    Parameters
    ----------
    surface : xarray.Dataset
        As `thalweg.surface` returns it, over ``x`` and ``y``.
    variable : str
        What is the height.
    points : xarray.Dataset, optional
        As for `plot_contour`.
    ax : matplotlib Axes, optional
        With three dimensions.
    **kwargs
        Given on to ``ax.plot_surface``.

    Returns
    -------
    matplotlib Axes
        Heights are decimal logarithms where the scale is logarithmic, labelled with the values.

    Raises
    ------
    InvalidArgument
        If the surface has another number of dimensions, or nothing finite to draw.
    """
    import matplotlib

    check_dims(surface, 2, "plot_profile for one, or choose a plane, surface.isel(z=0), of three")
    axes = axes_or_new(ax, projection="3d")
    scale = heights(surface, variable)
    x_name, y_name = map(str, surface["loss"].dims)
    x, y = np.meshgrid(surface[x_name].values, surface[y_name].values, indexing="ij")
    z = scale.place(measured(surface, variable))
    low, high = scale.place([scale.low, scale.high])
    colors = matplotlib.colormaps[COLORMAP]((z - low) / (high - low))
    colors[~np.isfinite(z), 3] = 0.0
    style: dict[str, Any] = {"rcount": 101, "ccount": 101, "linewidth": 0.2, "alpha": 0.85}
    style |= {"edgecolor": "#00000030", "shade": False}
    axes.plot_surface(x, y, z, facecolors=colors, **{**style, **kwargs})
    for drawn in shown_points(points) if variable == "loss" else []:
        _draw(axes, near(surface, drawn), scale.place(drawn.losses))
    add_points_legend(axes, points if variable == "loss" else None)
    note_beside(axes, surface, points)
    ticks = scale.ticks()
    axes.set_zticks(scale.place(ticks), [f"{tick:.3g}" for tick in ticks])
    axes.set(
        xlabel=axis_label(surface, x_name),
        ylabel=axis_label(surface, y_name),
        zlabel=value_label(surface, variable),
    )
    return cast("Axes", axes)


def _draw(axes: Any, drawn: Shown, heights: NDArray[np.float64]) -> None:
    place = np.vstack([drawn.places.T, heights])
    if not drawn.is_path:
        axes.plot(*place, zorder=10, **mark_style(drawn.mark))
    else:
        style: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.4, "markersize": 4}
        axes.plot(*place, ".-", zorder=10, **style)
        ring: dict[str, Any] = {"color": "black", "markerfacecolor": "none", "zorder": 11}
        axes.plot(*place[:, :1], "o", **ring)
        axes.plot(*place[:, -1:], "s", **ring)
