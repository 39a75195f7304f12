"""A trajectory that goes over a surface, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from thalweg.errors import InvalidArgument
from thalweg.plots.contour import plot_contour

if TYPE_CHECKING:
    import xarray as xr

_DPI = 90


@dataclass(eq=False)
class PathAnimation:
    """
    Pictures of a surface with the checkpoints of a trajectory up to one of them.

    Attributes
    ----------
    figure : matplotlib Figure
        What is drawn on.
    steps : ndarray
        Steps of the checkpoints, shape (n,).
    losses : ndarray
        Losses there, shape (n,).
    """

    figure: Figure
    steps: Any
    losses: Any
    _canvas: Any = field(repr=False)
    _line: Any = field(repr=False)
    _head: Any = field(repr=False)
    _title: Any = field(repr=False)
    _places: Any = field(repr=False)

    @property
    def frames(self) -> int:
        """Number of pictures: one a checkpoint."""
        return len(self.steps)

    def image(self, frame: int) -> Image.Image:
        """Draw the trajectory up to a checkpoint."""
        so_far = self._places[: frame + 1]
        self._line.set_data(so_far[:, 0], so_far[:, 1])
        self._head.set_data(so_far[-1:, 0], so_far[-1:, 1])
        self._title.set_text(f"step {self.steps[frame]}, loss {self.losses[frame]:.4g}")
        self._canvas.draw()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")


def path_animation(surface: xr.Dataset, points: xr.Dataset) -> PathAnimation:
    """
    Prepare pictures of a trajectory on its way over a surface.

    Parameters
    ----------
    surface, points : xarray.Dataset
        As a run keeps them: a surface of two dimensions, and the checkpoints' places in it.

    Returns
    -------
    PathAnimation
        ``animation.image(i)`` for i below ``animation.frames``.

    Raises
    ------
    InvalidArgument
        If the surface has other dimensions, or shows no trajectory.
    """
    path = points.sel(point=points["trajectory"].values != "")
    if set(surface["loss"].dims) != {"x", "y"} or path.sizes["point"] < 2:
        raise InvalidArgument(
            f"a surface of {surface['loss'].ndim} dimensions with {path.sizes['point']} checkpoints"
            " of a trajectory; expected two dimensions and at least two checkpoints: thalweg"
            " surface ENTRY --run FOLDER."
        )
    figure = Figure(figsize=(6.4, 5.2), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plot_contour(surface, points=points.isel(point=[]), ax=axes)
    (line,) = axes.plot([], [], color="#111111", linewidth=1.4)
    (head,) = axes.plot([], [], "o", color="#111111", markerfacecolor="white", markersize=9)
    return PathAnimation(
        figure=figure,
        steps=path["step"].values,
        losses=path["loss"].values,
        _canvas=canvas,
        _line=line,
        _head=head,
        _title=figure.suptitle("", fontsize="medium"),
        _places=path["position"].values,
    )
