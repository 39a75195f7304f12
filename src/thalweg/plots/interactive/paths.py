"""Traces of trajectories in three dimensions: lines with markers, and marks of starts and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.interactive.style import literal, told
from thalweg.plots.logscale import LogScale
from thalweg.plots.looks import UNMEASURED, Trajectory, trajectories
from thalweg.plots.positions import losses

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


@dataclass(frozen=True)
class Trace:
    """Which checkpoints a trace shows, shape (n,), and how; where they lie is left open."""

    points: NDArray[np.int64]
    options: dict[str, Any]

    def at(self, places: NDArray[np.float64]) -> go.Scatter3d:
        """Place it: ``places`` has a row of three coordinates for every checkpoint."""
        import plotly.graph_objects as go

        x, y, z = places[self.points].T
        return go.Scatter3d(x=x, y=y, z=z, **self.options)


def path_traces(embedding: xr.Dataset, scale: LogScale | None) -> list[Trace]:
    """
    Describe the traces of all trajectories.

    Parameters
    ----------
    embedding : xarray.Dataset
        One layer of what `thalweg.embed` returns.
    scale : LogScale or None
        Of the losses, shown as colour; None where there are none.

    Returns
    -------
    list of Trace
        One for each trajectory, then starts and ends.
    """
    shown = trajectories(embedding, "checkpoint")
    listed: set[str] = set()
    traces = []
    for one in shown:
        traces.append(_path(embedding, one, scale, listed=one.group not in listed))
        listed.add(one.group)
    named = [one for one in shown if one.name]
    if named:
        traces.append(_marks(named, 0, "start", "circle-open", size=9))
        traces.append(_marks(named, -1, "end", "x", size=4))
    return traces


def _path(embedding: xr.Dataset, one: Trajectory, scale: LogScale | None, *, listed: bool) -> Trace:
    options = {
        "mode": "lines+markers" if one.name else "markers",
        "name": literal(one.group),
        "legendgroup": literal(one.group),
        "showlegend": listed,
        "text": [literal(one.name)] * len(one.points),
        "line": {"color": one.color, "dash": one.look.dash, "width": 3},
        "marker": {"symbol": one.look.symbol, "size": 3.5, **_colors(embedding, one, scale)},
    }
    return Trace(one.points, options | told(embedding, one.points))


def _colors(embedding: xr.Dataset, one: Trajectory, scale: LogScale | None) -> dict[str, Any]:
    measured = losses(embedding)
    if scale is None or measured is None:
        return {"color": one.color if one.name else UNMEASURED}
    return {"color": np.log10(scale.place(measured[one.points])), "coloraxis": "coloraxis"}


def _marks(named: list[Trajectory], which: int, word: str, symbol: str, *, size: float) -> Trace:
    options = {
        "mode": "markers",
        "name": word,
        "text": [f"{word} of {literal(one.name)}" for one in named],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": size, "color": "black"},
    }
    return Trace(np.array([one.points[which] for one in named]), options)
