"""A surface over a line: a quantity along it, with its standard error as a band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.grids import (
    axis_label,
    check_dims,
    heights,
    mark_style,
    measured,
    note_beside,
    shown_points,
)
from thalweg.plots.palette import COLORS, SIGMAS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_QUANTITIES = {
    "loss": ("loss (mean per sample)", ("loss", "test_loss")),
    "error": ("error (share of samples)", ("error", "test_error")),
}
# Of a normal estimate, 95%.


def plot_profile(
    surface: xr.Dataset,
    *,
    quantity: str = "loss",
    points: xr.Dataset | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw loss or error along a line, training beside test.

    Bands reach 1.96 standard errors to either side. Where a value is not finite, the line is
    broken and a grey strip marks the place.

    Parameters
    ----------
    surface : xarray.Dataset
        As `thalweg.surface` returns it, over ``x``.
    quantity : {"loss", "error"}
        What to draw.
    points : xarray.Dataset, optional
        As for `plot_contour`; their own losses are drawn.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        Losses that span much are on a logarithmic scale.

    Raises
    ------
    InvalidArgument
        If the surface has more dimensions, no such quantity, or nothing finite to draw.
    """
    check_dims(surface, 1, "plot_contour")
    if quantity not in _QUANTITIES or quantity not in surface:
        available = [name for name in _QUANTITIES if name in surface]
        raise InvalidArgument(f"got quantity {quantity!r}, expected one of {', '.join(available)}")
    label, variables = _QUANTITIES[quantity]
    axes = axes_or_new(ax)
    dim = str(surface["loss"].dims[0])
    scale = heights(surface, quantity)
    logarithmic = scale.log is not None
    for variable, color, dash in zip(variables, COLORS, ("-", "--"), strict=False):
        if variable in surface:
            style = {
                "color": color,
                "linestyle": dash,
                "label": variable.replace("_", " "),
                **kwargs,
            }
            _line(axes, surface, variable, dim, logarithmic, style)
    _gaps(axes, surface, dim)
    for drawn in shown_points(points) if quantity == "loss" else []:
        dots: dict[str, Any] = {"marker": ".", "linestyle": "none", "color": "black"}
        marker = dots if drawn.is_path else mark_style(drawn.mark)
        name = f"{drawn.label}, at its own loss" if drawn.is_path else drawn.label
        axes.plot(drawn.places[:, 0], drawn.losses, label=literal(name), **marker)
    note_beside(axes, surface, points)
    if logarithmic:
        axes.set_yscale("log")
        axes.set_yticks(scale.ticks(), [f"{tick:.3g}" for tick in scale.ticks()])
        axes.minorticks_off()
    axes.set(xlabel=axis_label(surface, dim), ylabel=label)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(frameon=False, fontsize="small")
    return cast("Axes", axes)


def _line(
    axes: Any, surface: xr.Dataset, variable: str, dim: str, logarithmic: bool, style: Any
) -> None:
    across, values = surface[dim].values, measured(surface, variable)
    if logarithmic:
        values = np.where(values > 0, values, np.nan)
    values = np.where(np.isfinite(values), values, np.nan)
    axes.plot(across, values, **style)
    stderr = measured(surface, f"{variable}_stderr")
    if np.nanmax(stderr, initial=0.0) > 0:
        low, high = values - SIGMAS * stderr, values + SIGMAS * stderr
        if logarithmic:
            low = np.maximum(low, np.nanmin(values) / 2)
        axes.fill_between(across, low, high, color=style["color"], alpha=0.25, linewidth=0)


def _gaps(axes: Any, surface: xr.Dataset, dim: str) -> None:
    across, half = surface[dim].values, 0.5 * float(np.diff(surface[dim].values).mean())
    for place in across[~surface["finite"].values]:
        axes.axvspan(place - half, place + half, color="#9A9A9A", alpha=0.3, linewidth=0)
