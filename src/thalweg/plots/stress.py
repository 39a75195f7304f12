"""How much an embedding distorts: the stress of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# Kruskal 1964, Psychometrika 29, 1: how he reads the stress.
KRUSKAL = {0.05: "good", 0.1: "fair", 0.2: "poor"}

# Keeps the line of a mark from crossing a number.
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}


def plot_stress(embedding: xr.Dataset, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """
    Draw Kruskal's stress-1 of each layer as a bar.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.barh``.

    Returns
    -------
    matplotlib Axes
        With the layers from top to bottom and Kruskal's marks as lines.
    """
    axes = axes_or_new(ax)
    stress = embedding["stress"].values.astype(float)
    names = [literal(str(name)) for name in embedding["layer"].values]
    rows = np.arange(len(names))
    bars = axes.barh(
        rows, np.where(np.isfinite(stress), stress, 0), **{"color": COLORS[0], **kwargs}
    )
    axes.bar_label(
        bars, [f"{value:.3f}" for value in stress], padding=3, fontsize="small", bbox=_PAPER
    )
    right = 1.25 * max(0.1, float(np.max(stress, initial=0, where=np.isfinite(stress))))
    for mark, word in KRUSKAL.items():
        if mark < right:
            axes.axvline(mark, color="#555555", linestyle=":", linewidth=0.8)
            axes.annotate(
                word,
                (mark, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize="small",
                color="#555555",
            )
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, right), xlabel="stress-1 (0: no distortion)")
    return cast("Axes", axes)
