"""Where zero error is reached: errors of networks against their weights an equation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_LOOKS = {"true": (COLORS[0], "o"), "random": (COLORS[1], "s")}
_COUNTS = {
    "per_sample": ("W = N", "center"),
    "per_inequality": ("W = N(C−1)", "right"),
    "per_output": ("W = NC", "left"),
}


def plot_reach(cells: xr.Dataset, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """
    Draw training and test error against weights an inequality, W / (N (C - 1)).

    Parameters
    ----------
    cells : xarray.Dataset
        ``misclassified``, ``samples``, ``test_error`` and ``per_sample``, ``per_inequality``,
        ``per_output`` (weights an equation) along ``cell``, with the coordinate ``labels``.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot`` for the lines of means.

    Returns
    -------
    matplotlib Axes
        A mark for each network; full lines join mean training errors, broken ones test errors.
    """
    axes = axes_or_new(ax)
    for labels, (color, marker) in _LOOKS.items():
        of_labels = cells.isel(cell=np.flatnonzero(cells["labels"].values == labels))
        if of_labels.sizes["cell"] == 0:
            continue
        across = of_labels["per_inequality"].values
        errors = of_labels["misclassified"].values / of_labels["samples"].values
        axes.plot(across, errors, marker, color=color, alpha=0.35, markersize=5, linestyle="none")
        for values, style, split in (
            (errors, "-", "training"),
            (of_labels["test_error"].values, "--", "test"),
        ):
            widths = np.unique(across)
            means = [values[across == width].mean() for width in widths]
            line = {"color": color, "linestyle": style, "label": f"{labels} labels, {split} error"}
            axes.plot(widths, means, **{**line, **kwargs})
    _mark_counts(axes, cells)
    axes.set_xscale("log")
    axes.set(
        xlabel="weights an inequality, W / N(C−1)",
        ylabel="error (share of samples)",
        ylim=(-0.02, 1.0),
    )
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(
        frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2
    )
    return cast("Axes", axes)


def _mark_counts(axes: Any, cells: xr.Dataset) -> None:
    """Draw where the weights are as many as the equations of each count."""
    for key, (words, side) in _COUNTS.items():
        place = float((cells["per_inequality"] / cells[key]).values[0])
        axes.axvline(place, color="#555555", linestyle=":", linewidth=0.9)
        axes.annotate(
            words,
            (place, 1.01),
            xycoords=("data", "axes fraction"),
            fontsize="small",
            color="#333333",
            ha=side,
        )
