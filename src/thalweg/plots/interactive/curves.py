"""Interactive training curves: loss and error, training and test, every trajectory a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.plots.curves import LABELS, is_measured
from thalweg.plots.interactive.style import layout, literal, log_ticks, told
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import Trajectory, trajectories

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


def curves_figure(curves: xr.Dataset, *, against: str = "epoch") -> go.Figure:
    """
    Make the figure of all training curves.

    Parameters
    ----------
    curves : xarray.Dataset
        Variables along ``record`` with coordinates ``trajectory``, ``step`` and ``epoch``.
    against : {"epoch", "step"}
        The horizontal axes.

    Returns
    -------
    plotly Figure
        A panel for each quantity that was measured: losses on a logarithmic scale, where zero is
        drawn at the smallest positive value, errors on a linear one.
    """
    from plotly.subplots import make_subplots

    panels = panels_of(curves)
    columns = 2 if any(name.startswith("test") for name in panels) else 1
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows,
        columns,
        shared_xaxes="all",
        horizontal_spacing=0.08,
        vertical_spacing=0.12,
        subplot_titles=[LABELS[name] for name in panels],
    )
    for number, variable in enumerate(panels):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for trace in _lines(curves, variable, against, listed=number == 0):
            figure.add_trace(trace, **place)
        figure.update_yaxes(**_scale(curves, variable), **place)
    figure.update_xaxes(title_text=against, row=rows)
    figure.update_annotations(font_size=14)
    figure.update_xaxes(gridcolor="#E4E4E4", zeroline=False)
    legend = {"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top", "itemsizing": "constant"}
    margin = {"l": 60, "r": 10, "t": 40, "b": 50}
    figure.update_layout(**layout(legend=legend, height=60 + 280 * rows, margin=margin))
    return figure


def panels_of(curves: xr.Dataset) -> list[str]:
    """List what was measured: loss before error, training before test."""
    order = ("loss", "test_loss", "error", "test_error")
    return [name for name in order if is_measured(curves, name)]


def _scale(curves: xr.Dataset, variable: str) -> dict[str, Any]:
    shared = {"gridcolor": "#E4E4E4", "zeroline": False}
    if variable.endswith("loss"):
        places, words = log_ticks(log_scale(curves[variable].values))
        return {
            **shared,
            "type": "log",
            "tickvals": [10.0**place for place in places],
            "ticktext": words,
        }
    return {**shared, "rangemode": "tozero"}


def _lines(curves: xr.Dataset, variable: str, against: str, *, listed: bool) -> list[go.Scatter]:
    scale = log_scale(curves[variable].values)
    seen: set[str] = set()
    lines = []
    for trajectory in trajectories(curves, "record"):
        up = curves[variable].values[trajectory.points].astype(float)
        measured = ~np.isnan(up)
        points = trajectory.points[measured]
        shown = scale.place(up[measured]) if variable.endswith("loss") else up[measured]
        first = listed and trajectory.group not in seen
        lines.append(
            _line(curves, trajectory, points, curves[against].values[points], shown, first)
        )
        seen.add(trajectory.group)
    return lines


def _line(
    curves: xr.Dataset, trajectory: Trajectory, points: Any, across: Any, up: Any, listed: bool
) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=across,
        y=up,
        mode="lines",
        name=literal(trajectory.group),
        legendgroup=literal(trajectory.group),
        showlegend=listed,
        text=[literal(trajectory.name)] * len(points),
        line={
            "color": trajectory.color,
            "dash": trajectory.style.dash,
            "width": 1.3 if trajectory.parent else 2.2,
        },
        **told(curves, points),
    )
