"""A spectral density on a logarithmic scale, and the ends of the spectrum as marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from thalweg.plots.axes import axes_or_new
from thalweg.plots.palette import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# The picture reaches this far below the bump of a single eigenvalue.
_BELOW_ONE = 0.05


def plot_density(
    density: xr.Dataset,
    *,
    eigenvalues: xr.Dataset | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw the share of eigenvalues per unit of eigenvalue.

    The band reaches one standard error over probes to either side. A dotted line is the height of
    the bump that a single eigenvalue makes.

    Parameters
    ----------
    density : xarray.Dataset
        As `thalweg.spectral_density` returns it.
    eigenvalues : xarray.Dataset, optional
        ``value (rank)`` and ``error (rank)``: marks with error bars.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        With a logarithmic vertical axis; what is below a twentieth of a single eigenvalue's bump
        is cut off.
    """
    axes = axes_or_new(ax)
    single = single_bump(density)
    floor = _BELOW_ONE * single
    across = density["eigenvalue"].values
    values, stderr = density["density"].values, density["density_stderr"].values
    style = {"color": COLORS[0], "linewidth": 1.2, "label": "density", **kwargs}
    axes.plot(across, np.where(values >= floor, values, np.nan), **style)
    low, high = np.maximum(values - stderr, floor), np.maximum(values + stderr, floor)
    axes.fill_between(across, low, high, color=style["color"], alpha=0.3, linewidth=0)
    line = {"color": "#555555", "linestyle": ":", "linewidth": 0.9}
    axes.axhline(single, label="a single eigenvalue", **line)
    axes.set_yscale("log")
    axes.set_ylim(floor, 2 * float(values.max()))
    axes.set(xlabel="eigenvalue", ylabel="share of eigenvalues per unit of eigenvalue")
    axes.grid(alpha=0.3, linewidth=0.5)
    if eigenvalues is not None:
        _marks(axes, eigenvalues, single)
    axes.legend(frameon=False, fontsize="small")
    return cast("Axes", axes)


def single_bump(density: xr.Dataset) -> float:
    """Give the height of the bump of one eigenvalue by itself."""
    return float(1 / (density.attrs["size"] * density.attrs["width"] * np.sqrt(2 * np.pi)))


def _marks(axes: Any, eigenvalues: xr.Dataset, height: float) -> None:
    values, errors = eigenvalues["value"].values, eigenvalues["error"].values
    style = {"fmt": "|", "color": COLORS[1], "markersize": 12, "markeredgewidth": 1.4}
    axes.errorbar(
        values, np.full(len(values), height), xerr=errors, label="eigenvalues found", **style
    )
