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
    named = [trajectory for trajectory in shown if trajectory.name]
    paths = [_path(embedding, trajectory, scale) for trajectory in shown]
    if not named:
        return paths
    ends = [
        _marks(named, 0, "start", "circle-open", size=8),
        _marks(named, -1, "end", "square-open", size=6),
    ]
    # plotly cannot show a marker coloured by loss in its legend.
    return [
        *paths,
        *ends,
        *map(_key, {trajectory.group: trajectory for trajectory in named}.values()),
    ]


def _path(embedding: xr.Dataset, trajectory: Trajectory, scale: LogScale | None) -> Trace:
    options = {
        "mode": "lines+markers" if trajectory.name else "markers",
        "name": literal(trajectory.name),
        "legendgroup": literal(trajectory.group),
        "showlegend": False,
        "text": [literal(trajectory.name)] * len(trajectory.points),
        "line": {"color": trajectory.color, "dash": trajectory.style.dash, "width": 3},
        "marker": {
            "symbol": trajectory.style.symbol,
            "size": 3.5,
            **_colors(embedding, trajectory, scale),
        },
    }
    return Trace(trajectory.points, options | told(embedding, trajectory.points))


def _key(trajectory: Trajectory) -> Trace:
    options = {
        "mode": "lines+markers",
        "name": literal(trajectory.group),
        "legendgroup": literal(trajectory.group),
        "line": {"color": trajectory.color, "dash": trajectory.style.dash, "width": 3},
        "marker": {"symbol": trajectory.style.symbol, "size": 5, "color": trajectory.color},
    }
    return Trace(np.array([], dtype=np.int64), options)


def _colors(
    embedding: xr.Dataset, trajectory: Trajectory, scale: LogScale | None
) -> dict[str, Any]:
    measured = losses(embedding)
    if scale is None or measured is None:
        return {"color": trajectory.color if trajectory.name else UNMEASURED}
    return {"color": np.log10(scale.place(measured[trajectory.points])), "coloraxis": "coloraxis"}


def _marks(named: list[Trajectory], which: int, word: str, symbol: str, *, size: float) -> Trace:
    options = {
        "mode": "markers",
        "name": word,
        "text": [f"{word} of {literal(trajectory.name)}" for trajectory in named],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": size, "color": "black"},
    }
    return Trace(np.array([trajectory.points[which] for trajectory in named]), options)
