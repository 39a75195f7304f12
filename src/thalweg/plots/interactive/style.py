"""What all interactive figures share: type, margins, the loss as colour, text shown as it is."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.logscale import LogScale
from thalweg.plots.palette import COLORMAP

if TYPE_CHECKING:
    import xarray as xr

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": "#222"}
# Far enough for the titles of the axes, aimed a little low to make room for them.
CAMERA = {"eye": {"x": 1.45, "y": -1.45, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.15}}
# What a pointer may be told of a point, and how it is written.
_TOLD = {
    "step": ("step", ""),
    "epoch": ("epoch", ":.4~g"),
    "loss": ("training loss", ":.3g"),
    "error": ("training error", ":.3g"),
    "test_loss": ("test loss", ":.3g"),
    "test_error": ("test error", ":.3g"),
    "fidelity": ("fidelity", ":.3f"),
}


def literal(text: str) -> str:
    """
    Write a name so that plotly reads no markup in it.

    Examples
    --------
    >>> literal("<b>seed</b>")
    '&lt;b&gt;seed&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def layout(**more: Any) -> dict[str, Any]:
    """Give the common layout, with ``more`` of one figure's own."""
    common = {
        "template": "none",
        "font": FONT,
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "white",
    }
    return common | more


def legend_below() -> dict[str, Any]:
    """Place a legend under the figure, over its whole width."""
    return {"orientation": "h", "x": 0, "y": -0.04, "yanchor": "top", "itemsizing": "constant"}


def loss_axis(scale: LogScale) -> dict[str, Any]:
    """Make the colour axis of log10(loss), labelled with the loss itself."""
    low, high = np.log10([scale.floor, scale.top]).tolist()
    values, words = log_ticks(scale)
    if scale.floored:
        # A power of ten close to the floor would be written over its label.
        apart = [i for i, value in enumerate(values) if value - low > 0.06 * (high - low)]
        values = [low, *(values[i] for i in apart)]
        words = [f"0 to {scale.floor:.1g}", *(words[i] for i in apart)]
    title = {"text": "training loss<br>(mean per sample)", "side": "top"}
    bar = {"title": title, "tickvals": values, "ticktext": words, "len": 0.75, "thickness": 16}
    return {"colorscale": COLORMAP, "cmin": low, "cmax": high, "colorbar": bar}


def log_ticks(scale: LogScale) -> tuple[list[float], list[str]]:
    """Give the places (log10) of round values on a scale, and how they are written."""
    ticks = [tick for tick in scale.decades.tolist() if scale.floor <= 10.0**tick <= scale.top]
    if len(ticks) < 2:
        steps = [m * 10.0**e for e in range(-30, 30) for m in (1, 2, 5)]
        round_ones = [value for value in steps if scale.floor <= value <= scale.top]
        shown = round_ones if len(round_ones) > 1 else [scale.floor, scale.top]
        return [math.log10(value) for value in shown], [f"{value:.2g}" for value in shown]
    return ticks, [f"10<sup>{tick}</sup>".replace("-", "\N{MINUS SIGN}") for tick in ticks]


def told(data: xr.Dataset, points: NDArray[np.int64]) -> dict[str, Any]:
    """Say in a trace what a pointer shall be told of each point of ``data``."""
    variables = [name for name in _TOLD if name in data and data[name].ndim == 1]
    lines = [
        f"{_TOLD[name][0]} %{{customdata[{i}]{_TOLD[name][1]}}}" for i, name in enumerate(variables)
    ]
    columns = [data[name].values[points].astype(float) for name in variables]
    return {
        "customdata": np.stack(columns, axis=1) if columns else None,
        "hovertemplate": "<br>".join(["%{text}", *lines]) + "<extra></extra>",
    }
