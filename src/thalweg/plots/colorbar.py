"""The training loss as colour in matplotlib: its scale and its bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.plots.logscale import LogScale
from thalweg.plots.palette import COLORMAP, UNMEASURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, LogNorm

LABEL = "training loss (mean per sample)"


def loss_colors(scale: LogScale) -> tuple[LogNorm, Colormap]:
    """Give norm and colours of a scale; what was not measured is grey."""
    import matplotlib
    from matplotlib.colors import LogNorm

    colors = matplotlib.colormaps[COLORMAP].with_extremes(bad=UNMEASURED)
    return LogNorm(scale.floor, scale.top), colors


def add_colorbar(ax: Axes | list[Axes], scale: LogScale, **kwargs: Any) -> None:
    """Add the bar of a scale beside axes, marked where zeros are drawn at the floor."""
    from matplotlib.cm import ScalarMappable

    norm, cmap = loss_colors(scale)
    first = ax[0] if isinstance(ax, list) else ax
    options = {"label": LABEL, "shrink": 0.8, "pad": 0.1 if hasattr(first, "get_zlim") else 0.03}
    bar = first.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, **{**options, **kwargs})
    if scale.top < 10 * scale.floor:  # powers of ten would leave it without a number, or with one
        ticks = np.geomspace(scale.floor, scale.top, 4).tolist()
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        bar.minorticks_off()
    if scale.floored:
        bar.ax.set_xlabel("lowest: 0", fontsize="small")
