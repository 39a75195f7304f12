"""All complex solutions of a system, one weight of each as a point of the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORS, UNMEASURED

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_complex_solutions(
    solutions: xr.Dataset, *, weight: int = 0, ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """
    Draw one weight of all solutions in the complex plane.

    Parameters
    ----------
    solutions : xarray.Dataset
        ``real_part`` and ``imaginary_part`` along ``solution`` and ``weight``; ``real`` along
        ``solution``: whether the solution is equivalent to a real one.
    weight : int
        Which weight.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.scatter``.

    Returns
    -------
    matplotlib Axes
        With equal scales.
    """
    axes = axes_or_new(ax)
    across, up = (solutions[n].values[:, weight] for n in ("real_part", "imaginary_part"))
    real = solutions["real"].values.astype(bool)
    looks = [
        ("complex in every form", ~real, {"marker": "o", "color": COLORS[0], "s": 16}),
        ("equivalent to a real solution", real, {"marker": "D", "color": COLORS[1], "s": 30}),
    ]
    axes.axhline(0, color=UNMEASURED, linewidth=0.6, zorder=0)
    axes.axvline(0, color=UNMEASURED, linewidth=0.6, zorder=0)
    for label, chosen, look in looks:
        rows = np.flatnonzero(chosen)
        if len(rows):
            axes.scatter(across[rows], up[rows], **{"label": label, "alpha": 0.8, **look, **kwargs})
    axes.set(xlabel=f"real part of weight {weight + 1}", ylabel="imaginary part")
    axes.set_aspect("equal", adjustable="datalim")
    return cast("Axes", axes)
