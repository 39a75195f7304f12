"""Training curves: a measured quantity of every trajectory against the epoch or the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import trajectories

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# Variable: what an axis calls it.
LABELS = {
    "loss": "training loss (mean per sample)",
    "error": "training error (share of samples)",
    "test_loss": "test loss (mean per sample)",
    "test_error": "test error (share of samples)",
}


def plot_curves(
    curves: xr.Dataset,
    *,
    variable: str = "loss",
    against: str = "epoch",
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw one line for each trajectory: losses on a logarithmic scale, errors on a linear one.

    Parameters
    ----------
    curves : xarray.Dataset
        Variables along ``record`` with coordinates ``trajectory``, ``step`` and ``epoch``.
    variable : {"loss", "error", "test_loss", "test_error"}
        What to draw; NaN is not drawn.
    against : {"epoch", "step"}
        The horizontal axis.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        A loss of zero is drawn at the smallest positive one.

    Raises
    ------
    InvalidArgument
        If the data have no such variable.
    """
    if variable not in curves or variable not in LABELS:
        available = [name for name in LABELS if name in curves]
        raise InvalidArgument(f"got variable {variable!r}, expected one of {', '.join(available)}")
    axes = axes_or_new(ax)
    logarithmic = variable.endswith("loss")
    scale = log_scale(curves[variable].values)
    for trajectory in trajectories(curves, "record"):
        across, up = (curves[name].values[trajectory.points] for name in (against, variable))
        measured = ~np.isnan(up)
        up = scale.place(up) if logarithmic else up
        style = {
            "linestyle": trajectory.style.linestyle,
            "linewidth": 1.0 if trajectory.parent else 1.6,
        }
        axes.plot(across[measured], up[measured], **{"color": trajectory.color, **style, **kwargs})
    if logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=against, ylabel=LABELS[variable])
    axes.grid(alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)


def is_measured(curves: xr.Dataset, variable: str) -> bool:
    """Say whether the data hold any number of a variable."""
    return variable in curves and bool(np.isfinite(curves[variable].values).any())
