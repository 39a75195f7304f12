"""Traces of trajectories in three dimensions: lines with markers, and marks of starts and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.interactive.style import literal, told
from thalweg.plots.logscale import LogScale
from thalweg.plots.palette import UNMEASURED, Trajectory, trajectories
from thalweg.plots.positions import losses

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


@dataclass(frozen=True)
class Trace:
    """Which checkpoints a trace shows, shape (n,), and how; where they lie is left open."""

    points: NDArray[np.int64]
    options: dict[str, Any]

    def coordinates(self, places: NDArray[np.float64]) -> dict[str, list[float | None]]:
        """Take x, y and z from ``places``, which has a row for every checkpoint."""
        # A trace of the legend alone needs one point that is nowhere: plotly drops empty ones.
        columns = places[self.points].T.tolist() if len(self.points) else [[None]] * 3
        return dict(zip("xyz", columns, strict=True))

    def at(self, places: NDArray[np.float64]) -> go.Scatter3d:
        """Place it."""
        import plotly.graph_objects as go

        return go.Scatter3d(**self.coordinates(places), **self.options)


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
        One for each trajectory, then starts and ends, then the keys of the legend.
    """
    shown = trajectories(embedding, "checkpoint")
    named = [one for one in shown if one.name]
    paths = [_path(embedding, one, scale) for one in shown]
    if not named:
        return paths
    ends = [
        _marks(named, 0, "start", "circle-open", size=8),
        _marks(named, -1, "end", "square-open", size=6),
    ]
    # plotly cannot show a marker coloured by loss in its legend.
    return [*paths, *ends, *map(_key, {one.group: one for one in named}.values())]


def _path(embedding: xr.Dataset, one: Trajectory, scale: LogScale | None) -> Trace:
    options = {
        "mode": "lines+markers" if one.name else "markers",
        "name": literal(one.name),
        "legendgroup": literal(one.group),
        "showlegend": False,
        "text": [literal(one.name)] * len(one.points),
        "line": {"color": one.color, "dash": one.style.dash, "width": 3},
        "marker": {"symbol": one.style.symbol, "size": 3.5, **_colors(embedding, one, scale)},
    }
    return Trace(one.points, options | told(embedding, one.points))


def _key(one: Trajectory) -> Trace:
    options = {
        "mode": "lines+markers",
        "name": literal(one.group),
        "legendgroup": literal(one.group),
        "line": {"color": one.color, "dash": one.style.dash, "width": 3},
        "marker": {"symbol": one.style.symbol, "size": 5, "color": one.color},
    }
    return Trace(np.array([], dtype=np.int64), options)


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
