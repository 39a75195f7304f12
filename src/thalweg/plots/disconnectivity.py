"""A disconnectivity graph: which minima join at which level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Merge = tuple[float, tuple[int, ...], tuple[int, ...]]


def plot_disconnectivity(
    values: ArrayLike,
    merges: Sequence[Merge],
    *,
    labels: Sequence[str] | None = None,
    ylabel: str = "value",
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw the tree of minima: each hangs from the level at which it joins others.

    Parameters
    ----------
    values : array-like
        Shape (k,), of the minima.
    merges : sequence of (float, tuple of int, tuple of int)
        From the lowest, k - 1 of them: the level and the two sets that join
        (`DisconnectivityGraph.merges`).
    labels : sequence of str, optional
        Of the minima; by default their numbers.
    ylabel : str
        What a level is, with units.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        Minima from left to right in the order in which they join.

    Raises
    ------
    InvalidArgument
        If there is not one merge fewer than minima.
    """
    bottoms = np.asarray(values, dtype=float)
    if len(merges) != len(bottoms) - 1 or len(bottoms) < 2:
        raise InvalidArgument(
            f"{len(bottoms)} minima with {len(merges)} merges; write one merge fewer than minima."
        )
    axes: Axes = axes_or_new(ax)
    order = _order(len(bottoms), merges)
    at: dict[tuple[int, ...], tuple[float, float]] = {
        (i,): (float(order.index(i)), float(bottoms[i])) for i in range(len(bottoms))
    }
    style: dict[str, Any] = {"color": "C0", "linewidth": 1.4, "solid_capstyle": "round", **kwargs}
    for height, left, right in merges:
        (x0, y0), (x1, y1) = at[left], at[right]
        axes.plot([x0, x0, x1, x1], [y0, height, height, y1], **style)
        at[tuple(sorted(left + right))] = ((x0 + x1) / 2, height)
    axes.plot(range(len(order)), bottoms[order], "o", color=style["color"], markersize=4)
    names = labels or [str(i) for i in range(len(bottoms))]
    axes.set_xticks(range(len(order)), [literal(str(names[i])) for i in order], fontsize="small")
    axes.set_xlabel("minimum")
    axes.set_ylabel(ylabel)
    return axes


def _order(count: int, merges: Sequence[Merge]) -> list[int]:
    """Order minima so that no lines of the tree cross."""
    orders: dict[tuple[int, ...], list[int]] = {(i,): [i] for i in range(count)}
    for _, left, right in merges:
        orders[tuple(sorted(left + right))] = orders[left] + orders[right]
    return orders[tuple(range(count))]
