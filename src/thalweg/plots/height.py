"""The loss as height above the plane that shows most of an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new
from thalweg.plots.colorbar import LABEL
from thalweg.plots.embedding import draw_trajectories
from thalweg.plots.logscale import log_scale
from thalweg.plots.positions import losses, positions

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_height(
    embedding: xr.Dataset, *, layer: str = "network", ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """
    Draw the first two axes of an embedding, with the training loss as height.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it, with a coordinate ``loss``.
    layer : str
        Which layer's, or "network".
    ax : matplotlib Axes, optional
        With three dimensions.
    **kwargs
        Given on to ``ax.scatter``.

    Returns
    -------
    matplotlib Axes
        Whose height is the decimal logarithm of the loss, labelled with the loss itself.

    Raises
    ------
    InvalidArgument
        If no loss is stated, or the embedding has no such layer.
    """
    measured = losses(embedding)
    if measured is None:
        raise InvalidArgument(
            "got an embedding without losses, expected a coordinate 'loss' with numbers; "
            "record the loss with the checkpoints, or use plot_embedding"
        )
    axes = axes_or_new(ax, projection="3d")
    scale = log_scale(measured)
    height = np.log10(scale.place(measured))[:, None]
    draw_trajectories(
        axes, np.hstack([positions(embedding, layer, 2), height]), embedding, **kwargs
    )
    # Axes in three dimensions have no logarithmic scale that works: the ticks are relabelled.
    ticks = scale.decades
    axes.set_zticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
    axes.set(xlabel="axis 1 (weight units)", ylabel="axis 2 (weight units)", zlabel=LABEL)
    return cast("Axes", axes)
