"""Legends that stay short: one entry for a trunk, one for the branches of a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thalweg.plots.axes import literal
from thalweg.plots.palette import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#555555"


def add_legend(
    place: Axes | Figure,
    shown: list[Trajectory],
    *,
    ends: bool = False,
    markers: bool = True,
    **kwargs: Any,
) -> None:
    """
    Say which colour is which trunk, and which dash which moment.

    Parameters
    ----------
    place : matplotlib Axes or Figure
        What gets the legend.
    shown : list of Trajectory
        What has been drawn.
    ends : bool
        Whether to explain the marks of starts and ends.
    markers : bool
        Whether points were marked.
    **kwargs
        Given on to ``place.legend``.
    """
    from matplotlib.lines import Line2D

    named = [trajectory for trajectory in shown if trajectory.name]
    marks: dict[str, Any] = {}
    for trajectory in named:
        if not trajectory.parent:
            marks[trajectory.name] = Line2D(
                [], [], color=trajectory.color, **_marker(trajectory, markers)
            )
    for trajectory in named:
        if trajectory.parent:
            style = {"linestyle": trajectory.style.linestyle, **_marker(trajectory, markers)}
            label = f"branched, {trajectory.moment}" if trajectory.moment else "branched"
            marks.setdefault(label, Line2D([], [], color=_GREY, **style))
    if ends and named:
        point: dict[str, Any] = {"color": "black", "linestyle": "none", "markersize": 6}
        marks["start"] = Line2D([], [], marker="o", markerfacecolor="none", **point)
        marks["end"] = Line2D([], [], marker="s", markerfacecolor="none", **point)
    if marks:
        options = {"frameon": False, "fontsize": "small", "handlelength": 3.2, **kwargs}
        place.legend(list(marks.values()), [literal(label) for label in marks], **options)


def _marker(trajectory: Trajectory, markers: bool) -> dict[str, Any]:
    return {"marker": trajectory.style.marker, "markersize": 4} if markers else {}
