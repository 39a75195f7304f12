"""A trajectory that goes over a surface, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import literal
from thalweg.plots.contour import plot_contour

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from PIL import Image

_DPI = 90
_DASHES, _MARKERS = ("-", "--", "-.", ":"), "osD^"


@dataclass(eq=False)
class PathAnimation:
    """
    Pictures of a surface with trajectories as far as they have come.

    Attributes
    ----------
    figure : matplotlib Figure
        What is drawn on.
    frames : int
        Number of pictures: one a checkpoint of the longest trajectory.
    """

    figure: Figure
    frames: int
    _canvas: Any = field(repr=False)
    _title: Any = field(repr=False)
    _paths: list[_Path] = field(repr=False)

    def image(self, frame: int) -> Image.Image:
        """Draw the trajectories up to a checkpoint; shorter ones wait at their ends."""
        from PIL import Image

        for path in self._paths:
            path.go(frame)
        self._title.set_text("\n".join(path.words(frame) for path in self._paths))
        self._canvas.draw()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")


@dataclass(eq=False)
class _Path:
    """A trajectory on the map: places (n, 2), steps and losses (n,), its line and its head."""

    name: str
    places: Any
    steps: Any
    losses: Any
    line: Any
    head: Any

    def go(self, frame: int) -> None:
        so_far = self.places[: frame + 1]
        self.line.set_data(so_far[:, 0], so_far[:, 1])
        self.head.set_data(so_far[-1:, 0], so_far[-1:, 1])

    def words(self, frame: int) -> str:
        place = min(frame, len(self.steps) - 1)
        return f"{literal(self.name)}: step {self.steps[place]}, loss {self.losses[place]:.4g}"


def path_animation(surface: xr.Dataset, points: xr.Dataset) -> PathAnimation:
    """
    Prepare pictures of trajectories on their way over a surface.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = dict.fromkeys(str(name) for name in points["trajectory"].values if name)
    if set(surface["loss"].dims) != {"x", "y"} or not names:
        raise InvalidArgument(
            f"a surface of {surface['loss'].ndim} dimensions with {len(names)} trajectories;"
            " expected two dimensions and at least one trajectory: thalweg surface ENTRY --run"
            " FOLDER."
        )
    figure = Figure(figsize=(6.4, 5.2), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plot_contour(surface, points=points.isel(point=[]), ax=axes)
    paths = [
        _path(axes, name, points.sel(point=points["trajectory"].values == name), number)
        for number, name in enumerate(names)
    ]
    title = figure.suptitle("", fontsize="medium")
    return PathAnimation(figure, max(len(path.steps) for path in paths), canvas, title, paths)


def _path(axes: Any, name: str, points: xr.Dataset, number: int) -> _Path:
    (line,) = axes.plot([], [], color="white", linewidth=1.6, linestyle=_DASHES[number % 4])
    style = {"color": "#111111", "markerfacecolor": "white", "markersize": 9}
    (head,) = axes.plot([], [], _MARKERS[number % 4], **style)
    places, steps, losses = (points[key].values for key in ("position", "step", "loss"))
    return _Path(name, places, steps, losses, line, head)
