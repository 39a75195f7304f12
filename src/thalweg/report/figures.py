"""Still figures of the report, composed of plots, on figures of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from thalweg.measurements.figures import solid_still
from thalweg.plots import (
    plot_curves,
    plot_embedding,
    plot_fidelity,
    plot_height,
    plot_stress,
)
from thalweg.plots.axes import literal
from thalweg.plots.colorbar import add_colorbar
from thalweg.plots.legend import add_legend
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import trajectories
from thalweg.plots.positions import losses

if TYPE_CHECKING:
    import xarray as xr

# `Figure`, not pyplot: nothing of the user's backend or open figures is touched.
_BELOW: dict[str, Any] = {"loc": "outside lower center", "ncols": 5}
_ALL_LAYERS = 12


def height_still(embedding: xr.Dataset) -> Figure:
    """Draw the loss of the whole network as height above two dimensions."""
    return solid_still(embedding, plot_height)


def layers_still(embedding: xr.Dataset, layers: Sequence[str]) -> Figure:
    """Draw the first two axes of each layer's own embedding."""
    shown = list(layers)[:_ALL_LAYERS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.1 * rows + 0.9), layout="constrained")
    axes = [figure.add_subplot(rows, columns, 1 + number) for number in range(len(shown))]
    for number, (ax, layer) in enumerate(zip(axes, shown, strict=True)):
        plot_embedding(embedding, layer=layer, ax=ax, colorbar=False, s=9)
        stress = float(embedding["stress"].sel(layer=layer))
        ax.set_title(f"layer {literal(layer)} (stress {stress:.3f})", fontsize="medium")
        ax.tick_params(labelsize=8)
        # Every panel has its own scale; what the axes are is said at the margins.
        ax.xaxis.label.set_visible(number + columns >= len(shown))
        ax.yaxis.label.set_visible(number % columns == 0)
    measured = losses(embedding)
    if measured is not None:
        add_colorbar(axes, log_scale(measured), shrink=0.9, aspect=22 * rows, fraction=0.05)
    add_legend(figure, trajectories(embedding, "checkpoint"), ends=True, **_BELOW)
    return figure


def curves_still(curves: xr.Dataset, panels: Sequence[str], against: str) -> Figure:
    """Draw a panel for each measured quantity: losses above errors, training beside test."""
    columns = 2 if any(name.startswith("test") for name in panels) else 1
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 2.9 * rows + 0.5), layout="constrained")
    for number, variable in enumerate(panels, start=1):
        plot_curves(
            curves, variable=variable, against=against, ax=figure.add_subplot(rows, columns, number)
        )
    add_legend(figure, trajectories(curves, "record"), markers=False, **_BELOW)
    return figure


def stress_still(embedding: xr.Dataset) -> Figure:
    """Draw the stress of each layer, and beside it how well each checkpoint is shown."""
    figure = Figure(figsize=(10, 1.4 + 0.34 * embedding.sizes["layer"]), layout="constrained")
    first, second = figure.subplots(1, 2, sharey=True)
    plot_stress(embedding, ax=first)
    plot_fidelity(embedding, ax=second)
    second.invert_yaxis()
    return figure
