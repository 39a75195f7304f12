"""The interactive surface: the loss as height over a plane, or as shells in a space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument
from thalweg.plots.grids import (
    Heights,
    Shown,
    axis_label,
    heights,
    measured,
    near,
    shown_points,
    value_label,
)
from thalweg.plots.interactive.style import CAMERA, layout, legend_below, literal
from thalweg.plots.palette import COLORMAP, COLORS, SIGMAS

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

_SHELLS = 5
_GRID = {"gridcolor": "#DDD", "zerolinecolor": "#DDD", "nticks": 5}


def surface_figure(
    surface: xr.Dataset, *, variable: str = "loss", points: xr.Dataset | None = None
) -> go.Figure:
    """
    Make the figure of a surface over a plane or in a space.

    Parameters
    ----------
    surface : xarray.Dataset
        As `thalweg.surface` returns it, of two or three dimensions.
    variable : str
        What is the height, or what the shells are levels of.
    points : xarray.Dataset, optional
        As for `plot_contour`. Over a plane they hang at their own losses.

    Returns
    -------
    plotly Figure
        Heights are log10 where the scale is logarithmic, labelled with the values. Cells that are
        not finite are holes. Cells with standard errors have bars of 95%.

    Raises
    ------
    InvalidArgument
        If the surface is over a line, or nothing in it is finite.
    """
    import plotly.graph_objects as go

    dims = [str(dim) for dim in surface["loss"].dims]
    if len(dims) < 2:
        raise InvalidArgument("got a surface over a line, expected a plane; use plot_profile.")
    scale = heights(surface, variable)
    shape = _sheet if len(dims) == 2 else _shells
    traces = [shape(surface, variable, dims, scale)]
    for drawn in shown_points(points) if variable == "loss" else []:
        traces += _path(near(surface, drawn), scale, flat=len(dims) == 3)
    if len(dims) == 2:
        traces += _error_bars(surface, variable, dims, scale)
    figure = go.Figure(traces)
    scene: dict[str, Any] = {
        f"{name}axis": {**_GRID, "title": {"text": axis_label(surface, name)}} for name in dims
    }
    if len(dims) == 2:
        scene["zaxis"] = {**_GRID, "title": {"text": variable.replace("_", " ")}, **_ticks(scale)}
    scene |= {"aspectmode": "manual", "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.8}}
    scene["camera"] = CAMERA
    figure.update_layout(**layout(scene=scene, legend=legend_below(), height=600))
    return figure


def _ticks(scale: Heights) -> dict[str, Any]:
    ticks = scale.ticks()
    return {"tickvals": scale.place(ticks).tolist(), "ticktext": [f"{tick:.3g}" for tick in ticks]}


def _bar(surface: xr.Dataset, variable: str, scale: Heights) -> dict[str, Any]:
    words = value_label(surface, variable).replace(" (", "<br>(")
    title = {"text": words, "side": "top"}
    return {"title": title, "len": 0.75, "thickness": 16, **_ticks(scale)}


def _sheet(surface: xr.Dataset, variable: str, dims: list[str], scale: Heights) -> go.Surface:
    import plotly.graph_objects as go

    values = measured(surface, variable)
    z, stderr = scale.place(values), surface[f"{variable}_stderr"].values
    low, high = scale.place([scale.low, scale.high])
    hover = np.stack([values, stderr], axis=-1).transpose(1, 0, 2)
    return go.Surface(
        x=surface[dims[0]].values,
        y=surface[dims[1]].values,
        z=z.T,
        customdata=hover,
        colorscale=COLORMAP,
        cmin=low,
        cmax=high,
        opacity=0.92,
        contours={"z": {"show": True, "usecolormap": False, "color": "#00000055", "width": 1}},
        colorbar=_bar(surface, variable, scale),
        hovertemplate="x %{x:.4g}<br>y %{y:.4g}<br>"
        + f"{variable.replace('_', ' ')} %{{customdata[0]:.4g}}"
        + "<br>standard error %{customdata[1]:.2g}<extra></extra>",
        name=variable,
    )


def _error_bars(
    surface: xr.Dataset, variable: str, dims: list[str], scale: Heights
) -> list[go.Scatter3d]:
    """Draw a bar through every cell that has a standard error, all of them as one broken line."""
    import plotly.graph_objects as go

    half = SIGMAS * measured(surface, f"{variable}_stderr")
    if not np.nanmax(half, initial=0.0) > 0:
        return []
    values = measured(surface, variable)
    ends = np.stack([values - half, values + half, np.full(values.shape, np.nan)], axis=-1)
    if scale.log is not None:
        ends = np.log10(np.maximum(ends, scale.low))
    places = np.meshgrid(*(surface[dim].values for dim in dims), indexing="ij")
    return [
        go.Scatter3d(
            **{dim: place.ravel().repeat(3) for dim, place in zip("xy", places, strict=True)},
            z=ends.ravel(),
            mode="lines",
            line={"color": "#333", "width": 2},
            name="95% intervals of the cells",
            hoverinfo="skip",
        )
    ]


def _shells(surface: xr.Dataset, variable: str, dims: list[str], scale: Heights) -> go.Isosurface:
    import plotly.graph_objects as go

    values = scale.place(measured(surface, variable))
    places = np.meshgrid(*(surface[dim].values for dim in dims), indexing="ij")
    levels = scale.place(scale.levels(_SHELLS))
    return go.Isosurface(
        **{dim: place.ravel() for dim, place in zip("xyz", places, strict=True)},
        value=values.ravel(),
        isomin=levels[0],
        isomax=levels[-1],
        surface={"count": _SHELLS},
        colorscale=COLORMAP,
        opacity=0.35,
        caps={axis: {"show": False} for axis in "xyz"},
        colorbar=_bar(surface, variable, scale),
        name=variable,
    )


def _path(drawn: Shown, scale: Heights, *, flat: bool) -> list[go.Scatter3d]:
    import plotly.graph_objects as go

    columns: list[NDArray[np.float64]] = [*drawn.places.T]
    columns += [] if flat else [scale.place(drawn.losses)]
    where = dict(zip("xyz", columns, strict=True))
    style = {"color": COLORS[1], "width": 4}
    marker: dict[str, Any] = {"size": 3, "color": COLORS[1], "symbol": "circle"}
    if not drawn.is_path:
        marker = {"size": 6, "color": drawn.mark.color, "symbol": drawn.mark.symbol}
    path = go.Scatter3d(
        **where,
        mode="lines+markers" if drawn.is_path else "markers",
        name=literal(drawn.label),
        line=style,
        marker=marker,
        customdata=drawn.losses,
        hovertemplate=f"{literal(drawn.label)}<br>its own loss %{{customdata:.4g}}<extra></extra>",
    )
    if not drawn.is_path:
        return [path]
    return [path, _end(where, 0, "start", "circle-open"), _end(where, -1, "end", "square-open")]


def _end(where: dict[str, Any], which: int, word: str, symbol: str) -> go.Scatter3d:
    import plotly.graph_objects as go

    place = {axis: [float(column[which])] for axis, column in where.items()}
    marker = {"symbol": symbol, "size": 7, "color": "black"}
    return go.Scatter3d(**place, mode="markers", name=word, marker=marker, hoverinfo="name")
