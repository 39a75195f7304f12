"""The picture of critical points: value against index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.algebra.critical import CriticalPoints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Column = NDArray[Any]
DEGENERATE = "#D55E00"
REGULAR = "#0072B2"


def plot_critical_points(found: CriticalPoints, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw the value of each real critical point against its index.

    Circles are nondegenerate points, triangles have zero eigenvalues that symmetry or dead inputs
    explain, crosses have others. Points of one index are spread sideways where they would overlap.

    Parameters
    ----------
    found
        From `critical_points`.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to `matplotlib.axes.Axes.scatter`.
    """
    points = found.real_points
    return draw_critical_points(
        np.array([p.value for p in points]),
        np.array([p.index for p in points], dtype=float),
        nullity=np.array([p.nullity for p in points]),
        unexplained=np.array([p.nullity_unexplained for p in points]),
        ax=ax,
        **kwargs,
    )


def draw_critical_points(
    values: Column,
    index: Column,
    *,
    nullity: Column,
    unexplained: Column,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw critical points given as columns, as `plot_critical_points` does."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    places = _spread(index.astype(float), values)
    explained = (nullity > 0) & (unexplained == 0)
    kinds = [
        ("nondegenerate", "o", REGULAR, nullity == 0),
        ("degenerate, explained", "^", DEGENERATE, explained),
        ("degenerate, unexplained", "X", "black", unexplained != 0),
    ]
    for label, marker, color, chosen in kinds:
        rows = np.flatnonzero(chosen)
        if len(rows):
            options = {"marker": marker, "color": color, "label": label, "s": 45, **kwargs}
            ax.scatter(places[rows], values[rows], **options)
    ax.set_xlabel("index (number of negative eigenvalues of the Hessian)")
    ax.set_ylabel("value of the loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(values):
        ax.set_xlim(-0.5, float(places.max()) + 0.5)
        ax.legend()
    return ax


def _spread(places: Column, values: Column) -> Column:
    """Move points of one index and nearly one value apart."""
    near = 0.02 * (np.ptp(values) or 1.0) if len(values) else 1.0
    spread = places.copy()
    for k in range(len(places)):
        same = (places[:k] == places[k]) & (np.abs(values[:k] - values[k]) < near)
        spread[k] += 0.06 * int(same.sum())
    return spread
