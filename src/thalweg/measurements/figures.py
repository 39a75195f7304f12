"""Still figures of surfaces, spectra and embeddings, composed of plots, on figures of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from thalweg.plots import (
    plot_contour,
    plot_density,
    plot_embedding,
    plot_profile,
    plot_surface,
)
from thalweg.plots.axes import literal
from thalweg.plots.colorbar import add_colorbar
from thalweg.plots.grids import heights
from thalweg.plots.legend import add_legend
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import COLORS, trajectories
from thalweg.plots.positions import losses

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_FAINT_GRID: Any = {"grid.color": "#DADADA", "grid.linewidth": 0.6}
_BELOW: dict[str, Any] = {"loc": "outside lower center", "ncols": 5}


def profile_still(surface: xr.Dataset, points: xr.Dataset | None) -> Figure:
    """Draw loss and, where there is one, error along a line."""
    quantities = [name for name in ("loss", "error") if name in surface]
    figure = Figure(figsize=(5 * len(quantities), 3.6), layout="constrained")
    for number, quantity in enumerate(quantities, start=1):
        ax = figure.add_subplot(1, len(quantities), number)
        plot_profile(surface, quantity=quantity, points=points, ax=ax)
    return figure


def contour_still(surface: xr.Dataset, points: xr.Dataset | None) -> Figure:
    """Draw all that was measured over a plane, and the standard error where it is not zero."""
    names = ["loss", "error", "test_loss", "test_error"]
    shown = [name for name in names if name in surface and np.isfinite(surface[name]).any()]
    if float(surface["loss_stderr"].max()) > 0:
        shown.insert(1, "loss_stderr")
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.1 * rows), layout="constrained")
    for number, name in enumerate(shown, start=1):
        plot_contour(
            surface,
            variable=name,
            points=points,
            ax=figure.add_subplot(rows, columns, number),
        )
    return figure


def height_still(surface: xr.Dataset, points: xr.Dataset | None) -> Figure:
    """Draw the loss over a plane as height."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    with rc_context(_FAINT_GRID):
        axes: Any = figure.add_subplot(projection="3d")
    plot_surface(surface, points=points, ax=axes)
    axes.tick_params(labelsize=8)
    return figure


def slices_still(surface: xr.Dataset) -> Figure:
    """Draw three planes of a space, at the lowest, the middle and the highest z, on one scale."""
    last = surface.sizes["z"] - 1
    scale = heights(surface)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    for number, place in enumerate((0, int(np.abs(surface["z"].values).argmin()), last)):
        ax = figure.add_subplot(1, 3, 1 + number)
        plane = surface.isel(z=place)
        plot_contour(plane, scale=scale, ax=ax, colorbar=number == 2)
        ax.set_title(f"z = {float(plane['z']):.3g}", fontsize="medium")
        ax.yaxis.label.set_visible(number == 0)
    return figure


def density_still(density: xr.Dataset, eigenvalues: xr.Dataset | None) -> Figure:
    """Draw a spectral density and the eigenvalues that were found."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    plot_density(density, eigenvalues=eigenvalues, ax=figure.add_subplot())
    return figure


def densities_still(
    panels: Sequence[tuple[str, xr.Dataset, xr.Dataset | None]], *, columns: int = 3
) -> Figure:
    """Draw spectral densities of named checkpoints side by side, on one scale."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, density, eigenvalues) in zip(grid, panels, strict=False):
        plot_density(density, eigenvalues=eigenvalues, ax=ax)
        ax.set_title(literal(name), fontsize="medium")
    shown = grid[: len(panels)]
    for ends, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        lows, highs = zip(*(getattr(ax, ends)() for ax in shown), strict=True)
        for ax in shown:
            getattr(ax, put)(min(lows), max(highs))
    for number, ax in enumerate(grid):
        ax.set_visible(number < len(panels))
        ax.yaxis.label.set_visible(number % columns == 0)
        if number and ax.get_legend():
            ax.get_legend().remove()
    return figure


def eigenvalues_still(series: Sequence[tuple[str, xr.Dataset]]) -> Figure:
    """Draw the eigenvalues of named checkpoints by rank, with their estimated errors."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    ax = figure.add_subplot()
    apart = np.linspace(-0.2, 0.2, len(series)) if len(series) > 1 else [0.0]
    for number, (name, eigenvalues) in enumerate(series):
        values, errors = eigenvalues["value"].values, eigenvalues["error"].values
        ranks = np.arange(1, len(values) + 1)
        style: dict[str, Any] = {"color": COLORS[number % len(COLORS)], "capsize": 3}
        ax.errorbar(
            ranks + apart[number], values, yerr=errors, fmt="o", label=literal(name), **style
        )
    ax.set_xticks(ranks)
    every = np.concatenate([eigenvalues["value"].values for _, eigenvalues in series])
    if every.min() > 0 and every.max() > 100 * every.min():
        ax.set_yscale("log")
    ax.set(xlabel="rank", ylabel="eigenvalue (loss per squared weight)")
    ax.grid(alpha=0.3, linewidth=0.5)
    ax.legend(frameon=False, fontsize="small")
    return figure


def embedding_still(embedding: xr.Dataset) -> Figure:
    """Draw the whole network, with the loss as colour: flat where there are two dimensions."""
    if embedding.sizes["dim"] > 2:
        return solid_still(embedding, plot_embedding, colorbar=False)
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    layer = str(embedding["layer"].values[0])
    plot_embedding(embedding, layer=layer, ax=figure.add_subplot())
    add_legend(figure, trajectories(embedding, "checkpoint"), ends=True, **_BELOW)
    return figure


def solid_still(embedding: xr.Dataset, plot: Callable[..., Axes], **options: Any) -> Figure:
    """Let a function of `thalweg.plots` draw the whole network in three dimensions."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    with rc_context(_FAINT_GRID):
        axes: Any = figure.add_subplot(projection="3d")
    plot(embedding, layer=str(embedding["layer"].values[0]), ax=axes, **options)
    axes.tick_params(labelsize=8)
    measured = losses(embedding)
    if measured is not None:
        add_colorbar(axes, log_scale(measured), shrink=0.6)
    add_legend(figure, trajectories(embedding, "checkpoint"), ends=True, **_BELOW)
    return figure
