"""What pictures of a surface share: the scale of its values, names of its axes, what lies on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import literal
from thalweg.plots.curves import LABELS
from thalweg.plots.logscale import LogScale, log_scale
from thalweg.plots.palette import CROSS, Mark, point_marks

if TYPE_CHECKING:
    import xarray as xr

# As a share of a surface's width, up to which a distance off it is rounding.
_ON_IT = 1e-5
# Leading digits of labels, from the roundest on.
_ROUND = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0))


@dataclass(frozen=True)
class Heights:
    """
    The scale on which values of a surface are shown.

    Parameters
    ----------
    low, high : float
        Smallest and largest value shown.
    log : LogScale or None
        Where it is logarithmic.
    """

    low: float
    high: float
    log: LogScale | None

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Give heights: decimal logarithms, or the values; NaN for what is not finite."""
        array = np.asarray(values, dtype=float)
        finite = np.where(np.isfinite(array), array, np.nan)
        return finite if self.log is None else np.log10(self.log.place(finite))

    def norm(self) -> Any:
        """Give matplotlib's norm of the values."""
        from matplotlib.colors import LogNorm, Normalize

        return (Normalize if self.log is None else LogNorm)(self.low, self.high)

    def levels(self, count: int = 10) -> NDArray[np.float64]:
        """Give evenly spaced values between the ends of the scale."""
        space = np.linspace if self.log is None else np.geomspace
        return np.asarray(space(self.low, self.high, count + 2)[1:-1])

    def ticks(self, most: int = 6) -> NDArray[np.float64]:
        """Give round values on the scale: powers of ten where these are enough."""
        if self.log is None:
            from matplotlib.ticker import MaxNLocator

            ticks = np.asarray(MaxNLocator(most).tick_values(self.low, self.high), dtype=float)
            return ticks[(ticks >= self.low) & (ticks <= self.high)]
        powers = range(int(np.floor(np.log10(self.low))), int(np.ceil(np.log10(self.high))) + 1)
        for mantissas in _ROUND:
            every = np.array([m * 10.0**power for power in powers for m in mantissas])
            shown = every[(every >= self.low) & (every <= self.high)]
            if len(shown) >= 3:
                return shown[:: -(-len(shown) // most)]
        return np.array([self.low, self.high])


def heights(surface: xr.Dataset, variable: str = "loss") -> Heights:
    """
    Choose the scale of a variable: logarithmic for losses of no less than 0 that span much.

    Raises
    ------
    InvalidArgument
        If the surface has no such variable, or no finite value of it.

    Examples
    --------
    >>> import xarray as xr
    >>> bowl = xr.Dataset({"loss": ("x", [100.0, 1.0, np.inf])})
    >>> heights(bowl).place(bowl.loss).tolist()
    [2.0, 0.0, nan]
    """
    values = measured(surface, variable)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InvalidArgument(
            f"none of the {values.size} values of {variable!r} is finite: there is nothing to draw."
            " Measure a smaller extent."
        )
    low, high = float(finite.min()), float(finite.max())
    if variable.endswith("loss") and low >= 0 and high > 3 * low:
        log = log_scale(finite)
        return Heights(log.floor, log.top, log)
    spare = (0.5 * abs(high) or 0.5) if high == low else 0.0
    return Heights(low - spare, high + spare, None)


def measured(surface: xr.Dataset, variable: str) -> NDArray[np.float64]:
    """Take a variable of a surface as an array."""
    if variable not in surface:
        available = ", ".join(map(str, surface.data_vars))
        raise InvalidArgument(f"got variable {variable!r}, expected one of {available}")
    return np.asarray(surface[variable].values, dtype=float)


def check_dims(surface: xr.Dataset, dims: int, instead: str) -> None:
    """Refuse a surface of another number of dimensions."""
    ndim = surface["loss"].ndim
    if ndim != dims:
        raise InvalidArgument(
            f"got a surface of {ndim} dimensions, expected {dims}; use {instead}."
        )


def value_label(surface: xr.Dataset, variable: str) -> str:
    """Say what a variable is, with its unit."""
    if variable in LABELS and surface.attrs.get("split", "train") == "train":
        return LABELS[variable]
    about = surface[variable].attrs
    of = "standard error of " if variable.endswith("_stderr") else ""
    name = variable.removesuffix("_stderr")
    if name in LABELS:
        words = LABELS[name]
        return of + (words if surface.attrs.get("split", "train") == "train" else f"test {name}")
    return str(about.get("long_name", variable))


def axis_label(surface: xr.Dataset, dim: str) -> str:
    """Say how long a unit of an axis is."""
    norms = np.atleast_1d(surface.attrs.get("direction_norms", []))
    number = ("x", "y", "z").index(dim)
    if number >= len(norms):
        return dim
    norm = float(norms[number])
    unit = "weight units" if abs(norm - 1) < 1e-3 else f"1 is {norm:.3g} weight units"
    return f"{dim} ({unit})"


@dataclass(frozen=True)
class Shown:
    """
    A line or a single point on a surface.

    Parameters
    ----------
    label : str
        Its name.
    is_path : bool
        Whether it is a line.
    places : array of shape (n, k)
        In units of the directions.
    losses : array of shape (n,)
        Its own.
    distances : array of shape (n,)
        How far off the plane, in weights; NaN where that is not known.
    mark : Mark
        Of a point: each of several has its own.
    """

    label: str
    is_path: bool
    places: NDArray[np.float64]
    losses: NDArray[np.float64]
    distances: NDArray[np.float64]
    mark: Mark = CROSS


def shown_points(points: xr.Dataset | None) -> list[Shown]:
    """Take the trajectory and the named points out of what was projected onto a surface."""
    if points is None:
        return []
    names = np.asarray(points["trajectory"].values, dtype=str)
    places, losses = points["position"].values, points["loss"].values
    unknown = np.full(losses.shape, np.nan)
    distances = points["distance"].values if "distance" in points else unknown
    labels = points["name"].values
    alone = np.flatnonzero(names == "")
    members: list[tuple[str, Any, Mark | None]] = [
        (str(name), names == name, None) for name in dict.fromkeys(names) if name
    ]
    marks = point_marks(len(alone))
    members += [(str(labels[i]), [i], mark) for i, mark in zip(alone, marks, strict=True)]
    return [
        Shown(label, mark is None, places[at], losses[at], distances[at], mark or CROSS)
        for label, at, mark in members
    ]


def add_points_legend(axes: Any, points: xr.Dataset | None) -> None:
    """Say which mark is which point, where there are several."""
    alone = [drawn for drawn in shown_points(points) if not drawn.is_path]
    if len(alone) < 2:
        return
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], label=literal(drawn.label), **mark_style(drawn.mark)) for drawn in alone
    ]
    axes.legend(handles=marks, fontsize="small", framealpha=0.85)


def mark_style(mark: Mark) -> dict[str, Any]:
    """Give the style of a point for ``Axes.plot``: an edge in black, within a white halo."""
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {"marker": mark.marker, "color": mark.color, "linestyle": "none"}
    if mark is not CROSS:
        style |= {"markersize": 8, "markeredgecolor": "black", "markeredgewidth": 0.8}
    return style | {"path_effects": [withStroke(linewidth=3, foreground="white")]}


def outside(
    surface: xr.Dataset, places: NDArray[np.float64], *, widths: float = 0.0
) -> NDArray[np.bool_]:
    """
    Mark the places, shape (n, k), that lie beyond the grid of a surface, or some widths beyond it.

    Examples
    --------
    >>> import xarray as xr
    >>> line = xr.Dataset({"loss": ("x", [0.0, 1.0])}, coords={"x": [-1.0, 1.0]})
    >>> outside(line, np.array([[0.5], [1.5]])).tolist()
    [False, True]
    """
    ends = np.array([surface[dim].values[[0, -1]] for dim in surface["loss"].dims])
    spare = widths * np.ptp(ends, axis=1)
    beyond = (places < ends[:, 0] - spare) | (places > ends[:, 1] + spare)
    return np.asarray(beyond.any(axis=1), dtype=bool)


def near(surface: xr.Dataset, drawn: Shown) -> Shown:
    """Break a line where it is more than a width beyond: a longer one would leave no sheet."""
    far = outside(surface, drawn.places, widths=1.0)
    return replace(drawn, places=np.where(far[:, None], np.nan, drawn.places))


def what_is_off(surface: xr.Dataset, points: xr.Dataset | None) -> str:
    """
    Say what of trajectories and points a picture of a surface does not show.

    Returns
    -------
    str
        A line for each trajectory that lies off the plane or leaves the picture, and one for points
        that lie beyond it; empty where all is shown.
    """
    shape, lines, hidden = ("line", "plane", "space")[surface["loss"].ndim - 1], [], []
    for drawn in shown_points(points):
        beyond, far = int(outside(surface, drawn.places).sum()), float(drawn.distances.max())
        if not drawn.is_path:
            hidden += [drawn.label] * beyond
            continue
        parts = [f"{beyond} of {len(drawn.places)} checkpoints outside"] if beyond else []
        if far > _ON_IT * _width(surface):
            parts.append(f"up to {far:.3g} weight units off the {shape}")
        lines += [f"{drawn.label}: {', '.join(parts)}"] if parts else []
    return "\n".join([*lines, f"outside: {', '.join(hidden)}"] if hidden else lines)


def note_beside(axes: Any, surface: xr.Dataset, points: xr.Dataset | None) -> None:
    """Write above a picture what it does not show of trajectories and points."""
    if words := what_is_off(surface, points):
        axes.set_title(literal(words), loc="left", fontsize="small")


def _width(surface: xr.Dataset) -> float:
    """Measure a surface's longest axis, in weights."""
    norms = np.atleast_1d(surface.attrs.get("direction_norms", [1.0]))
    ranges = [float(np.ptp(surface[dim].values)) for dim in surface["loss"].dims]
    return max(ranges) * float(norms.max())
