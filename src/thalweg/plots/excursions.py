"""How far pre-activations went, in units of the interval of the polynomial they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "D", "P", "^", "v")


def plot_excursions(excursions: xr.Dataset, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """
    Draw the largest pre-activation between two measurements, in radii, against the step.

    Parameters
    ----------
    excursions : xarray.Dataset
        ``factor`` along ``record`` with coordinates ``step``, ``seed`` and ``activation``; infinite
        after a NaN.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        The largest of all seeds; on a logarithmic axis, where infinite values are drawn at the top.
    """
    axes = axes_or_new(ax)
    factors = excursions["factor"].values
    top = 10 * max(2.0, float(np.max(factors, initial=0, where=np.isfinite(factors))))
    for number, name in enumerate(dict.fromkeys(excursions["activation"].values.tolist())):
        of_activation = excursions.isel(
            record=np.flatnonzero(excursions["activation"].values == name)
        )
        # A row before the first step has seen nothing.
        steps = np.unique(of_activation["step"].values[of_activation["seen"].values > 0])
        largest = [
            of_activation["factor"].values[of_activation["step"].values == step].max()
            for step in steps
        ]
        style = {
            "color": COLORS[(number + 1) % len(COLORS)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4,
            "label": literal(str(name)),
        }
        axes.plot(steps, np.minimum(largest, top), **{**style, **kwargs})
    axes.axhline(1, color="#555555", linestyle=":", linewidth=0.9)
    axes.annotate(
        "end of the interval",
        (1, 1),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 3),
        textcoords="offset points",
        fontsize="small",
        color="#333333",
        ha="right",
    )
    axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="largest |pre-activation| (radii)")
    axes.grid(alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
