"""The interactive embedding: three axes, the loss as colour, a choice of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.interactive.paths import Trace, path_traces
from thalweg.plots.interactive.style import CAMERA, layout, legend_below, literal, loss_axis
from thalweg.plots.logscale import log_scale
from thalweg.plots.positions import losses, positions

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


def embedding_figure(embedding: xr.Dataset) -> go.Figure:
    """
    Make the figure of an embedding, with a menu of its layers.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it; the first layer is shown first.

    Returns
    -------
    plotly Figure
        A trace for each trajectory, with one scale on all axes, then starts, ends and the keys of
        the legend, where trajectories
        of one moment share an entry.
    """
    import plotly.graph_objects as go

    layers = [str(name) for name in embedding["layer"].values]
    measured = losses(embedding)
    scale = None if measured is None else log_scale(measured)
    traces = path_traces(embedding.isel(layer=0), scale)
    figure = go.Figure([trace.at(positions(embedding, layers[0], 3)) for trace in traces])
    figure.update_layout(
        **layout(
            title=_title(embedding, layers[0]),
            scene=_scene(),
            legend=legend_below(),
            height=640,
            updatemenus=[_menu(embedding, layers, traces)] if len(layers) > 1 else [],
        )
    )
    if scale is not None:
        figure.update_layout(coloraxis=loss_axis(scale))
    return figure


def _scene() -> dict[str, Any]:
    axis = {"gridcolor": "#DDD", "zerolinecolor": "#DDD", "nticks": 5}
    axes = {
        f"{name}axis": {**axis, "title": {"text": f"axis {number} (weight units)"}}
        for number, name in enumerate("xyz", start=1)
    }
    return {"aspectmode": "data", "camera": CAMERA, **axes}


def _title(embedding: xr.Dataset, layer: str) -> dict[str, Any]:
    stress = float(embedding["stress"].sel(layer=layer))
    whose = literal(layer) if layer == "network" else f"layer {literal(layer)}"
    text = f"{whose}: stress {stress:.3f}"
    return {"text": text, "x": 0.01, "xanchor": "left", "font": {"size": 15}}


def _menu(embedding: xr.Dataset, layers: list[str], traces: list[Trace]) -> dict[str, Any]:
    buttons = [
        {
            "label": literal(layer),
            "method": "update",
            "args": [
                _places(positions(embedding, layer, 3), traces),
                {"title.text": _title(embedding, layer)["text"]},
            ],
        }
        for layer in layers
    ]
    place = {"x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    return {"buttons": buttons, "direction": "down", "bgcolor": "white", **place}


def _places(
    places: NDArray[np.float64], traces: list[Trace]
) -> dict[str, list[list[float | None]]]:
    columns = [trace.coordinates(places) for trace in traces]
    return {axis: [column[axis] for column in columns] for axis in "xyz"}
