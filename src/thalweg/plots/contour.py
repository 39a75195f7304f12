"""A surface over a plane, seen from above: each cell its colour, with lines of equal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.grids import (
    Heights,
    Shown,
    add_points_legend,
    axis_label,
    check_dims,
    heights,
    mark_style,
    measured,
    note_beside,
    shown_points,
    value_label,
)
from thalweg.plots.palette import COLORMAP, UNMEASURED

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_contour(
    surface: xr.Dataset,
    *,
    variable: str = "loss",
    points: xr.Dataset | None = None,
    scale: Heights | None = None,
    ax: Axes | None = None,
    colorbar: bool = True,
    **kwargs: Any,
) -> Axes:
    """
    Draw a surface of two dimensions as a map.

    Each cell has the colour of its value; cells that are not finite are grey and hatched. Lines of
    equal value are interpolated between the cells. A ring marks the start of a trajectory, an open
    square its end, a cross a given point; several have each a mark and a colour of their own, and a
    legend. A line above the map says how far trajectories lie off
    the plane, and what of them and of the points lies outside.

    Parameters
    ----------
    surface : xarray.Dataset
        As `thalweg.surface` returns it, over ``x`` and ``y``.
    variable : str
        What to draw: ``"loss"``, ``"test_error"``, ``"loss_stderr"``, ...
    points : xarray.Dataset, optional
        ``position (point, axis)``, ``loss (point)`` and ``distance (point)``, with coordinates
        ``trajectory`` and ``name``, as a run keeps them beside its surface.
    scale : Heights, optional
        By default that of the values.
    ax : matplotlib Axes, optional
        Where to draw.
    colorbar : bool
        Whether to add one.
    **kwargs
        Given on to ``ax.pcolormesh``.

    Returns
    -------
    matplotlib Axes
        With x to the right and y upwards.

    Raises
    ------
    InvalidArgument
        If the surface has another number of dimensions, or nothing finite to draw.
    """
    check_dims(surface, 2, "plot_profile for one, or choose a plane, surface.isel(z=0), of three")
    x_name, y_name = map(str, surface["loss"].dims)
    axes = axes_or_new(ax)
    scale = heights(surface, variable) if scale is None else scale
    x, y = surface[x_name].values, surface[y_name].values
    values = np.ma.masked_invalid(measured(surface, variable).T)
    shown = np.ma.array(np.clip(values, scale.low, scale.high), mask=values.mask)
    mesh = axes.pcolormesh(
        x, y, shown, **{"norm": scale.norm(), "cmap": COLORMAP, "shading": "nearest", **kwargs}
    )
    _mark_missing(axes, x, y, np.ma.getmaskarray(values))
    _lines(axes, x, y, shown, scale)
    axes.set(xlabel=axis_label(surface, x_name), ylabel=axis_label(surface, y_name))
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    shown_now = shown_points(points)
    several = sum(drawn.is_path for drawn in shown_now) > 1
    for number, drawn in enumerate(shown_now):
        above = (len(shown_now) - number) % 2 == 1
        _draw(axes, drawn)
        if not drawn.is_path or several:
            _name(axes, drawn, sum(limits["xlim"]) / 2, above=above)
    axes.set(**limits)
    add_points_legend(axes, points)
    note_beside(axes, surface, points)
    if colorbar:
        bar = axes.figure.colorbar(mesh, ax=axes, label=value_label(surface, variable), pad=0.02)
        if scale.log is not None:
            bar.set_ticks(scale.ticks(), labels=[f"{tick:.3g}" for tick in scale.ticks()])
            bar.minorticks_off()
    return cast("Axes", axes)


def _mark_missing(axes: Any, x: Any, y: Any, missing: Any) -> None:
    axes.set_facecolor(UNMEASURED)
    if missing.any():
        holes = np.ma.array(np.ones(missing.shape), mask=~missing)
        axes.pcolor(x, y, holes, shading="nearest", hatch="///", facecolor="none", edgecolor="#555")


def _lines(axes: Any, x: Any, y: Any, shown: Any, scale: Heights) -> None:
    low, high = float(shown.min()), float(shown.max())
    levels = [level for level in scale.levels() if low < level < high]
    if not levels or min(shown.shape) < 2:
        return
    style = {"colors": "black", "linewidths": 0.5, "alpha": 0.6}
    drawn = axes.contour(x, y, shown, levels=levels, **style)
    axes.clabel(drawn, levels[::2], fmt="%.2g", fontsize=7)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    # White below black stays visible on every colour of the map.
    return [withStroke(linewidth=3, foreground="white")]


def _draw(axes: Any, drawn: Shown) -> None:
    path, halo = drawn.places.T, _halo()
    ring: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "s": 60, "zorder": 4}
    if drawn.is_path:
        axes.plot(*path, ".-", color="black", linewidth=1.1, markersize=4, path_effects=halo)
        axes.scatter(*path[:, :1], marker="o", path_effects=halo, **ring)
        axes.scatter(*path[:, -1:], marker="s", path_effects=halo, **ring)
        return
    axes.plot(*path, zorder=4, **mark_style(drawn.mark))


def _name(axes: Any, drawn: Shown, middle: float, *, above: bool) -> None:
    """Name a point, or a trajectory at its end."""
    place = drawn.places[-1]
    right = float(place[0]) > middle
    axes.annotate(
        literal(drawn.label),
        tuple(place),
        xytext=(-5 if right else 5, 5 if above else -5),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if above else "top",
        annotation_clip=True,
        fontsize="small",
        path_effects=_halo(),
    )
