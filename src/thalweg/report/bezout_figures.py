"""Still figures of the section on zero-minimizers as solutions of equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.algebra.critical_picture import draw_critical_points
from thalweg.plots import plot_complex_solutions, plot_zero_set

if TYPE_CHECKING:
    import xarray as xr


def solutions_still(solutions: xr.Dataset) -> Figure:
    """Draw every weight of all complex solutions, a panel a weight."""
    weights = solutions.sizes["weight"]
    columns = min(3, weights)
    rows = -(-weights // columns)
    figure = Figure(figsize=(3.3 * columns, 3.1 * rows + 0.5), layout="constrained")
    for weight in range(weights):
        ax = figure.add_subplot(rows, columns, weight + 1)
        plot_complex_solutions(solutions, weight=weight, ax=ax)
        ax.tick_params(labelsize=8)
        ax.yaxis.label.set_visible(weight % columns == 0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def zero_set_still(surface: xr.Dataset) -> Figure:
    """Draw the real zero set of two weights over their loss."""
    figure = Figure(figsize=(6.6, 5.2), layout="constrained")
    plot_zero_set(surface, ax=figure.add_subplot()).legend(loc="lower left")
    return figure


def critical_still(critical: xr.Dataset) -> Figure:
    """Draw value against index, without weight decay on the left, with a generic one right."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    titles = {"minima": "no weight decay, one hidden unit", "decayed": "generic weight decay"}
    groups = critical["group"].values.astype(str)
    for ax, (group, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        points = critical.isel(row=np.flatnonzero(groups == group))
        symmetric, dead = points["nullity_symmetry"].values, points["nullity_dead"].values
        draw_critical_points(
            points["value"].values / points["at_zero"].values,
            points["index"].values,
            nullity=points["nullity"].values,
            unexplained=points["nullity"].values - symmetric - dead,
            ax=ax,
            alpha=0.8,
        )
        ax.set_title(title, fontsize="medium")
        ax.set_ylabel("loss, relative to the zero function's")
        ax.grid(alpha=0.3, linewidth=0.5)
    return figure
