"""The interactive landscape: the loss as height above the first two axes of an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.interactive.paths import path_traces
from thalweg.plots.interactive.style import CAMERA, layout, legend_below, log_ticks, loss_axis
from thalweg.plots.logscale import log_scale
from thalweg.plots.positions import losses, positions

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


def height_figure(embedding: xr.Dataset, *, layer: str = "network") -> go.Figure:
    """
    Make the figure of the training loss above the first two axes of an embedding.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it, with a coordinate ``loss``.
    layer : str
        Which layer's, or "network".

    Returns
    -------
    plotly Figure
        Heights are log10(loss), labelled with the loss itself.

    Raises
    ------
    InvalidArgument
        If no loss is stated, or the embedding has no such layer.
    """
    import plotly.graph_objects as go

    measured = losses(embedding)
    if measured is None:
        raise InvalidArgument("got an embedding without losses, expected a coordinate 'loss'")
    scale = log_scale(measured)
    height = np.log10(scale.place(measured))[:, None]
    plane = positions(embedding, layer, 2)
    places = np.hstack([plane, height])
    figure = go.Figure([t.at(places) for t in path_traces(embedding.sel(layer=layer), scale)])
    values, words = log_ticks(scale)
    axis = {"gridcolor": "#DDD", "zerolinecolor": "#DDD", "nticks": 5}
    wide, deep = np.ptp(plane, axis=0)
    scene = {
        "xaxis": {**axis, "title": {"text": "axis 1 (weight units)"}},
        "yaxis": {**axis, "title": {"text": "axis 2 (weight units)"}},
        "zaxis": {
            **axis,
            "title": {"text": "training loss"},
            "tickvals": values,
            "ticktext": words,
        },
        # The plane keeps its scale; the height has another unit.
        "aspectmode": "manual",
        "aspectratio": {
            "x": 1.1,
            "y": 1.1 * float(np.clip(deep / (wide or 1), 0.4, 1.5)),
            "z": 0.8,
        },
        "camera": CAMERA,
    }
    colors = loss_axis(scale)
    figure.update_layout(**layout(scene=scene, legend=legend_below(), height=600, coloraxis=colors))
    return figure
