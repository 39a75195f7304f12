"""The picture of critical points: value against index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.algebra.critical import CriticalPoints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    points = found.real_points
    values = np.array([p.value for p in points])
    places = _spread(np.array([p.index for p in points], dtype=float), values)
    kinds = [
        ("nondegenerate", "o", REGULAR, [p.nullity == 0 for p in points]),
        (
            "degenerate, explained",
            "^",
            DEGENERATE,
            [p.nullity > 0 and p.nullity_unexplained == 0 for p in points],
        ),
        ("degenerate, unexplained", "X", "black", [p.nullity_unexplained != 0 for p in points]),
    ]
    for label, marker, color, chosen in kinds:
        rows = np.flatnonzero(chosen)
        if len(rows):
            options = {"marker": marker, "color": color, "label": label, "s": 45, **kwargs}
            ax.scatter(places[rows], values[rows], **options)
    ax.set_xlabel("index (number of negative eigenvalues of the Hessian)")
    ax.set_ylabel("value of the loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if points:
        ax.legend()
    return ax


def _spread(places: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Move points of one index and nearly one value apart."""
    near = 0.02 * (np.ptp(values) or 1.0) if len(values) else 1.0
    spread = places.copy()
    for k in range(len(places)):
        same = (places[:k] == places[k]) & (np.abs(values[:k] - values[k]) < near)
        spread[k] += 0.06 * int(same.sum())
    return spread
