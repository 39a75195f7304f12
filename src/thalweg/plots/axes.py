"""Axes to draw on, and text that matplotlib shall show as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(ax: Axes | None, *, projection: str | None = None) -> Any:
    """Give ``ax``, or new axes in a figure of the user's backend."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(subplot_kw={"projection": projection}, layout="constrained")[1]


def literal(text: str) -> str:
    r"""
    Write a name so that matplotlib reads no mathematics into it and no legend leaves it out.

    Examples
    --------
    >>> literal("cost_in_$")
    'cost_in_\\$'
    """
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
