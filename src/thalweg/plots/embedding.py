"""An embedding of checkpoints as a picture: where training went, with the loss as colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from thalweg.plots.axes import axes_or_new
from thalweg.plots.colorbar import add_colorbar, loss_colors
from thalweg.plots.logscale import LogScale, log_scale
from thalweg.plots.palette import UNMEASURED, Trajectory, trajectories
from thalweg.plots.positions import losses, positions

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_embedding(
    embedding: xr.Dataset,
    *,
    layer: str = "network",
    ax: Axes | None = None,
    colorbar: bool = True,
    **kwargs: Any,
) -> Axes:
    """
    Draw the checkpoints of one layer, a line for each trajectory.

    Lines have the colour of their trunk and the dash of the moment they branched at; markers
    have the colour of the training loss. A ring marks the start of a trajectory, an open square
    its end.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it.
    layer : str
        Which layer's, or "network".
    ax : matplotlib Axes, optional
        With two or three dimensions; new ones with three by default.
    colorbar : bool
        Whether to add one for the loss.
    **kwargs
        Given on to ``ax.scatter``.

    Returns
    -------
    matplotlib Axes
        In units of weights, with one scale on all axes.

    Raises
    ------
    InvalidArgument
        If the embedding has no such layer.
    """
    axes = axes_or_new(ax, projection="3d")
    dims = 3 if hasattr(axes, "get_zlim") else 2
    places = positions(embedding, layer, dims)
    draw_trajectories(axes, places, embedding, **kwargs)
    for number, axis in enumerate("xyz"[:dims]):
        getattr(axes, f"set_{axis}label")(f"axis {number + 1} (weight units)")
    if dims == 3:  # seen from aside, many numbers of two axes would lie on one another
        axes.locator_params(nbins=4)
    axes.set_aspect("equal", **({} if dims == 3 else {"adjustable": "datalim"}))
    measured = losses(embedding)
    if colorbar and measured is not None:
        add_colorbar(axes, log_scale(measured))
    return cast("Axes", axes)


def draw_trajectories(
    axes: Axes, places: NDArray[np.float64], embedding: xr.Dataset, **kwargs: Any
) -> None:
    """Draw lines, markers, starts and ends at ``places``, shape (n, 2 or 3)."""
    measured = losses(embedding)
    scale = None if measured is None else log_scale(measured)
    # Depth is not shown by fading: a faded colour would be read as another loss.
    solid: dict[str, Any] = {"depthshade": False} if places.shape[1] == 3 else {}
    for trajectory in trajectories(embedding, "checkpoint"):
        path = places[trajectory.points].T
        if trajectory.name:
            axes.plot(
                *path, linestyle=trajectory.style.linestyle, color=trajectory.color, linewidth=1.0
            )
        colors = _colors(trajectory, measured, scale)
        style = {"s": 14, "marker": trajectory.style.marker, "linewidths": 0}
        axes.scatter(*path, **{**style, **colors, **solid, **kwargs})
        if trajectory.name:
            rings: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "s": 32, **solid}
            axes.scatter(*path[:, :1], marker="o", **rings)
            axes.scatter(*path[:, -1:], marker="s", **rings)


def _colors(
    trajectory: Trajectory, measured: NDArray[np.float64] | None, scale: LogScale | None
) -> dict[str, Any]:
    if measured is None or scale is None:
        return {"color": trajectory.color if trajectory.name else UNMEASURED}
    norm, cmap = loss_colors(scale)
    shown = scale.place(measured[trajectory.points])
    return {"c": shown, "norm": norm, "cmap": cmap, "plotnonfinite": True}
