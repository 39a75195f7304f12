"""Loss or error along the straight line between two models, training beside test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new
from thalweg.plots.curves import LABELS
from thalweg.plots.palette import COLORS, SIGMAS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_EITHER = {"loss": "loss (mean per sample)", "error": "error (share of samples)"}
_DASHES = ("-", "--", "-.", ":")


def plot_line(
    data: xr.Dataset, *, variable: str = "loss", ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """
    Draw a quantity against the place on the line, with its 95% band over samples.

    Parameters
    ----------
    data : xarray.Dataset
        As `thalweg.barrier` gives it.
    variable : {"loss", "error"}
        What to draw: of the training set solid, of the test set, where it was measured, dashed;
        the chord between the ends dotted.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        With t, from one model (0) to the other (1), across.

    Raises
    ------
    InvalidArgument
        If the data have no such variable.
    """
    if variable not in data or variable not in _EITHER:
        available = ", ".join(name for name in _EITHER if name in data)
        raise InvalidArgument(f"variable={variable!r}; write one of {available}.")
    axes = axes_or_new(ax)
    t = data["t"].values
    styles = ((variable, "training", "-"), (f"test_{variable}", "test", "--"))
    for (name, label, style), color in zip(styles, COLORS, strict=False):
        if name not in data:
            continue
        values, half = data[name].values, SIGMAS * data[f"{name}_stderr"].values
        axes.fill_between(t, values - half, values + half, color=color, alpha=0.2, linewidth=0)
        axes.plot(t, values, **{"color": color, "linestyle": style, "label": label, **kwargs})
        axes.plot(t[[0, -1]], values[[0, -1]], color=color, linestyle=":", linewidth=0.8)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set(xlabel="place t on the line (0 and 1: the models)", ylabel=_EITHER[variable])
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(frameon=False, fontsize="small")
    return cast("Axes", axes)


def plot_lines(
    lines: xr.Dataset, *, variable: str = "loss", ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """
    Draw a quantity along the lines of many pairs, coloured by their group.

    Parameters
    ----------
    lines : xarray.Dataset
        ``variable`` and its ``*_stderr`` over dims ``pair`` and ``t``, with the coordinate
        ``group`` of each pair.
    variable : {"loss", "error", "test_loss", "test_error"}
        What to draw, with its 95% band over samples.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.plot``.

    Returns
    -------
    matplotlib Axes
        Each group is named once for a legend.
    """
    axes = axes_or_new(ax)
    groups = [str(group) for group in lines["group"].values]
    order, t = list(dict.fromkeys(groups)), lines["t"].values
    for i, group in enumerate(groups):
        number = order.index(group)
        color, style = COLORS[number % len(COLORS)], _DASHES[number % len(_DASHES)]
        values, half = lines[variable].values[i], SIGMAS * lines[f"{variable}_stderr"].values[i]
        label = {} if group in groups[:i] else {"label": group}
        axes.fill_between(t, values - half, values + half, color=color, alpha=0.15, linewidth=0)
        axes.plot(t, values, **{"color": color, "linestyle": style, **label, **kwargs})
    axes.set(xlabel="place t on the line (0 and 1: the models)", ylabel=LABELS[variable])
    axes.grid(alpha=0.3, linewidth=0.5)
    return cast("Axes", axes)
