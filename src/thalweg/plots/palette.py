"""How trajectories are told apart: colour for the trunk, dash and marker for the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, too pale on white paper.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
UNMEASURED = "#9A9A9A"
COLORMAP = "cividis"
# Half of a 95% interval, in standard errors.
SIGMAS = 1.96


@dataclass(frozen=True)
class LineStyle:
    """Dash and marker under the names that plotly and matplotlib have for them."""

    dash: str
    linestyle: str
    symbol: str
    marker: str


# Only symbols that plotly has in three dimensions too.
TRUNK = LineStyle("solid", "-", "circle", "o")
BRANCHES = (
    LineStyle("dot", ":", "square", "s"),
    LineStyle("dash", "--", "diamond", "D"),
    LineStyle("dashdot", "-.", "cross", "P"),
)


@dataclass(frozen=True)
class Mark:
    """
    How a single point is marked.

    Parameters
    ----------
    marker, symbol : str
        Its shape for matplotlib, and for plotly in three dimensions.
    color : str
        Hexadecimal.
    """

    marker: str
    symbol: str
    color: str


CROSS = Mark("x", "x", "#000000")
# Shapes differ too, so that no colour has to be seen; not the colours of losses along a line.
_SHAPES = (("o", "circle"), ("s", "square"), ("D", "diamond"), ("P", "cross"), ("X", "x"))


def point_marks(count: int) -> list[Mark]:
    """
    Give each of several points a mark of its own; a point that is alone gets a cross.

    Examples
    --------
    >>> [mark.marker for mark in point_marks(2)], point_marks(1) == [CROSS]
    (['o', 's'], True)
    """
    if count == 1:
        return [CROSS]
    colors = COLORS[2:]
    return [Mark(*_SHAPES[i % len(_SHAPES)], colors[i % len(colors)]) for i in range(count)]


@dataclass(frozen=True)
class Trajectory:
    """
    One trajectory within labelled data.

    Parameters
    ----------
    name, parent, moment : str
        ``parent`` and ``moment`` are empty for a trunk; ``name`` is empty for points that belong
        to no trajectory.
    points : int64 array of shape (n,)
        Where its points stand along the data's dimension, in the order of their steps.
    color : str
        Of its trunk, hexadecimal.
    style : LineStyle
        Of its moment.
    """

    name: str
    parent: str
    moment: str
    points: NDArray[np.int64]
    color: str
    style: LineStyle

    @property
    def group(self) -> str:
        """What a legend calls it: its own name, or the branches it is one of."""
        if not self.parent:
            return self.name or "points"
        return (
            f"{self.parent}, {self.moment} branches" if self.moment else f"{self.parent}, branches"
        )


def trajectories(data: xr.Dataset, along: str) -> list[Trajectory]:
    """
    Find the trajectories in labelled data.

    Parameters
    ----------
    data : xarray.Dataset
        With coordinates ``trajectory``, ``step``, ``parent`` and ``moment`` where they are known.
    along : str
        The dimension they run along, "checkpoint" or "record".

    Returns
    -------
    list of Trajectory
        Each trunk before its branches, otherwise in the order of the data.
    """
    columns = {name: _text(data, name, along) for name in ("trajectory", "parent", "moment")}
    order = np.argsort(data["step"].values, kind="stable") if "step" in data else slice(None)
    names = list(dict.fromkeys(columns["trajectory"]))
    rows = {name: np.flatnonzero(columns["trajectory"] == name) for name in names}
    parents = {name: str(columns["parent"][rows[name][0]]) for name in names}
    roots = {name: _root(name, parents) for name in names}
    trunks = list(dict.fromkeys(roots.values()))
    moments = [moment for moment in dict.fromkeys(columns["moment"]) if moment]
    by_step = np.arange(len(columns["trajectory"]))[order]
    unordered = [
        _trajectory(
            str(name),
            parents[name],
            str(columns["moment"][rows[name][0]]),
            moments,
            points=by_step[columns["trajectory"][by_step] == name],
            color=COLORS[trunks.index(roots[name]) % len(COLORS)],
        )
        for name in names
    ]
    return sorted(
        unordered,
        key=lambda trajectory: (trunks.index(roots[trajectory.name]), bool(trajectory.parent)),
    )


def _trajectory(
    name: str,
    parent: str,
    moment: str,
    moments: list[str],
    *,
    points: NDArray[np.int64],
    color: str,
) -> Trajectory:
    number = moments.index(moment) if moment in moments else 0
    style = BRANCHES[number % len(BRANCHES)] if parent else TRUNK
    return Trajectory(name, parent, moment, points, color, style)


def _text(data: xr.Dataset, name: str, along: str) -> NDArray[np.str_]:
    if name not in data:
        return np.full(data.sizes[along], "")
    return np.asarray(data[name].values, dtype=str)


def _root(name: str, parents: dict[str, str]) -> str:
    seen = {name}
    while (parent := parents.get(name, "")) and parent not in seen:
        name = parent
        seen.add(name)
    return name
