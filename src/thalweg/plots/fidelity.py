"""How well an embedding shows each checkpoint: the fidelity of its distances, by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_fidelity(embedding: xr.Dataset, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """
    Draw the fidelity of every checkpoint as a tick and each layer's median as a dot.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot`` for the ticks.

    Returns
    -------
    matplotlib Axes
        With the layers from top to bottom.
    """
    axes = axes_or_new(ax)
    fidelity = embedding["fidelity"].transpose("layer", "checkpoint").values.astype(float)
    rows = np.arange(len(fidelity))
    ticks = {"marker": "|", "linestyle": "none", "markersize": 9, "color": COLORS[0], "alpha": 0.35}
    for row, values in zip(rows, fidelity, strict=True):
        axes.plot(values, np.full(len(values), row), **{**ticks, **kwargs})
    middle = [
        float(np.median(values[np.isfinite(values)] if np.isfinite(values).any() else [np.nan]))
        for values in fidelity
    ]
    axes.plot(middle, rows, "o", color=COLORS[1], markersize=5)
    axes.set_yticks(rows, [literal(str(name)) for name in embedding["layer"].values])
    axes.invert_yaxis()
    axes.set(xlabel="fidelity (correlation of shown and true distances)")
    axes.set_xlim(right=1.002)
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
