"""Any result as a picture: which function draws what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from thalweg.display.words import _refused
from thalweg.errors import InvalidArgument

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# Label, value, ends of its interval: NaN where there is none.
Row = tuple[str, float, float, float]


def plot(result: Any, *, ax: Axes | None = None, **options: Any) -> Axes:
    """
    Draw a result by the function that draws its kind.

    Parameters
    ----------
    result : object
        What an instrument returned, or a data set of `Run.result`.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.
    **options
        Given on to the function that draws it, one of `thalweg.plots`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InvalidArgument
        If nothing draws it; the message says what there is.

    Examples
    --------
    >>> import torch
    >>> import thalweg as tw
    >>> top = tw.top_eigenvalues(torch.diag(torch.arange(9.0, dtype=torch.float64)), 3)
    >>> tw.plot(top).get_ylabel()
    'eigenvalue'
    """
    if hasattr(result, "data_vars"):
        return _dataset(result, ax, options)
    for kind in type(result).__mro__:
        if kind.__name__ in _BY_KIND:
            return _BY_KIND[kind.__name__](result, ax, options)
    if is_dataclass(result) and not isinstance(result, type):
        raise InvalidArgument(
            f"plot: nothing draws a {type(result).__name__}; print(tw.explain(result)) says what it"
            " holds."
        )
    raise _refused("plot", result)


def _dataset(data: xr.Dataset, ax: Axes | None, options: dict[str, Any]) -> Axes:
    from thalweg import plots

    dims, names = set(data.sizes), set(map(str, data.data_vars))
    if {"position", "stress"} <= names:
        return plots.plot_embedding(data, ax=ax, **options)
    if "barrier" in names and "t" in dims:
        draw = plots.plot_lines if "pair" in dims else plots.plot_line
        return draw(data, ax=ax, **options)
    if "density" in names and "eigenvalue" in dims:
        return plots.plot_density(data, ax=ax, **options)
    if "loss" in names and {"x", "y"} == set(data["loss"].dims):
        return plots.plot_contour(data, ax=ax, **options)
    if "loss" in names and {"x"} == set(data["loss"].dims):
        return plots.plot_profile(data, ax=ax, **options)
    if "loss" in names and {"x", "y", "z"} == set(data["loss"].dims):
        middle = data.isel(z=data.sizes["z"] // 2)
        return plots.plot_contour(middle, ax=ax, **options)
    raise InvalidArgument(
        f"plot: no picture is known of a data set of {', '.join(sorted(names)) or 'nothing'} over"
        f" {', '.join(sorted(map(str, dims))) or 'no dimension'}; the functions of thalweg.plots"
        " draw surfaces, lines, densities and embeddings, data.x.plot() of xarray anything."
    )


def _intervals(
    rows: list[Row], ax: Axes | None, label: str, *, limit: float | None = None, log: bool = False
) -> Axes:
    """Draw numbers with their intervals, one below the other."""
    from thalweg.plots.axes import axes_or_new, literal
    from thalweg.plots.palette import COLORS

    axes = axes_or_new(ax)
    for place, (_, value, low, high) in enumerate(rows):
        ends = [value if math.isnan(low) else low, value if math.isnan(high) else high]
        axes.plot(ends, [place, place], color=COLORS[0], linewidth=2, alpha=0.6)
        axes.plot(value, place, "o", color=COLORS[0])
    axes.set_yticks(range(len(rows)), [literal(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if limit is not None:
        axes.axvline(limit, color="#555555", linestyle=":", label=f"allowed {limit:g}")
        axes.legend(frameon=False, fontsize="small")
    if log and all(value > 0 for _, value, *_ in rows):
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.grid(alpha=0.3, linewidth=0.5)
    drawn: Axes = axes
    return drawn


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _flatness(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [
        (f"{m.name}, {m.form}", m.value, _number(m.low), _number(m.high)) for m in found.measures
    ]
    kept = [row for row in rows if math.isfinite(row[1])]
    return _intervals(kept, ax, "value, with its interval of 95 %", log=True)


def _eigenvalues(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    from thalweg.plots.axes import axes_or_new
    from thalweg.plots.palette import COLORS

    axes = axes_or_new(ax)
    values, errors = (t.double().cpu().numpy() for t in (found.values, found.errors))
    style: dict[str, Any] = {"fmt": "o", "color": COLORS[0], "capsize": 3, **options}
    axes.errorbar(range(1, len(values) + 1), values, yerr=errors, **style)
    axes.set(xlabel="rank", ylabel="eigenvalue")
    axes.set_xticks(range(1, len(values) + 1))
    axes.grid(alpha=0.3, linewidth=0.5)
    drawn: Axes = axes
    return drawn


def _trace(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    row = ("trace", found.value, found.value - found.error, found.value + found.error)
    return _intervals([row], ax, "trace, with its interval of 95 %")


def _degeneracy(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    import numpy as np
    import xarray as xr

    from thalweg.plots import plot_split

    counts = np.array([list(found.split.values())])
    split = xr.Dataset(
        {"directions": (("network", "cause"), counts)},
        coords={
            "cause": list(found.split),
            "case": ("network", ["network"]),
            "seed": ("network", [""]),
        },
    )
    return plot_split(split, ax=ax, **options)


def _basin(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    row = (found.verdict, found.barrier, found.low, found.high)
    return _intervals([row], ax, f"{found.quantity} barrier", limit=found.allowed)


def _noise(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [("noise level", found.value, found.low, found.high)]
    return _intervals(rows, ax, "noise, relative to the weights")


def _average(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    half = 1.96 * found.stderr
    rows = [("mean rise", found.value, found.value - half, found.value + half)]
    return _intervals(rows, ax, "rise of the landscape under noise")


def _worst(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [(f"ascent {i + 1}", h, math.nan, math.nan) for i, h in enumerate(found.heights)]
    return _intervals(rows, ax, "rise where the ascent ended")


def _volume(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [
        ("bracket", _number(found.value), _number(found.low), _number(found.high)),
        ("plain radial estimate", found.radial, math.nan, math.nan),
    ]
    return _intervals([r for r in rows if math.isfinite(r[1])], ax, "log-volume (nats)")


def _coefficient(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [
        (f"beta {r.beta:.3g}", r.value, r.value - 1.96 * r.stderr, r.value + 1.96 * r.stderr)
        for r in found.rungs
        if not r.reasons
    ]
    if found.value is not None:
        rows.append(("extrapolated", found.value, _number(found.low), _number(found.high)))
    return _intervals(rows, ax, "learning coefficient")


def _path(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    from thalweg.plots import plot_line

    axes = plot_line(found.profile, ax=ax, **options)
    axes.axhline(found.line_highest, color="#555555", linestyle=":", linewidth=0.9)
    axes.annotate(
        "highest of the straight line",
        *((0.02, found.line_highest),),
        fontsize="small",
        va="bottom",
    )
    return axes


def _history(column: str, across: str) -> Callable[[Any, Axes | None, dict[str, Any]], Axes]:
    def draw(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
        from thalweg.plots.axes import axes_or_new
        from thalweg.plots.palette import COLORS

        axes = axes_or_new(ax)
        rows = [row for row in found.history if row.get(column) is not None]
        style: dict[str, Any] = {"color": COLORS[0], **options}
        axes.plot([row[across] for row in rows], [row[column] for row in rows], **style)
        if all(row[column] > 0 for row in rows):
            axes.set_yscale("log")
        axes.set(xlabel=across, ylabel=column)
        axes.grid(alpha=0.3, linewidth=0.5)
        drawn: Axes = axes
        return drawn

    return draw


def _alignment(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    rows = [(name, value, math.nan, math.nan) for name, value in found.losses.items()]
    return _intervals(rows, ax, "mean loss at the mean of both networks")


def _margin(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    """Draw the proved and the broken box over decades, by layer where layers have units."""
    from thalweg.plots.axes import axes_or_new, literal
    from thalweg.plots.palette import COLORS

    axes: Axes = axes_or_new(ax)
    if found.verdict == "refused":
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "\n".join(["nothing is proved", *found.reasons]), ha="center", wrap=True
        )
        return axes
    widths = {"every weight": found.half_width}
    if found.scale == "layer":
        widths = found.layer_half_widths
    least, most = min(widths.values()), max(widths.values())
    most *= found.ratio if math.isfinite(found.ratio) else 1.0
    axes.set_xscale("log")
    axes.set_xlim(least / 10, most * 10)
    for place, width in enumerate(widths.values()):
        axes.plot([least / 10, width], [place, place], color=COLORS[0], linewidth=6, alpha=0.5)
        axes.plot(width, place, "|", color=COLORS[0], markersize=14, label=_once("proved", place))
        if math.isfinite(found.ratio):
            label = _once("broken by the attack", place)
            axes.plot(width * found.ratio, place, "x", color=COLORS[1], label=label)
    axes.set_yticks(range(len(widths)), [literal(name) for name in widths])
    axes.set_ylim(len(widths) - 0.5, -0.5)
    axes.set_xlabel("half width: how far each weight may move, all at once")
    axes.set_ylabel("layer" if found.scale == "layer" else "")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3, linewidth=0.5)
    return axes


def _once(label: str, place: int) -> str | None:
    """Name what is drawn in every row in the legend once."""
    return label if place == 0 else None


def _solutions(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    from thalweg.plots.axes import axes_or_new
    from thalweg.plots.palette import COLORS

    axes = axes_or_new(ax)
    weights = found.weights.ravel()
    axes.scatter(weights.real, weights.imag, s=9, color=COLORS[0], alpha=0.6, **options)
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.set(xlabel="real part of each weight", ylabel="imaginary part")
    drawn: Axes = axes
    return drawn


def _checkup(found: Any, ax: Axes | None, options: dict[str, Any]) -> Axes:
    """Draw the measures of flatness of two points beside one another, as shares of the first's."""
    compared = [v for v in found.verdicts if v.question == "Which is flatter?"]
    if compared:
        rows = [
            (f"{row['measure']}: {v.about}", row["last"] / row["first"], math.nan, math.nan)
            for v in compared
            for row in v.numbers["measures"]
            if row["first"]
        ]
        return _intervals(rows, ax, "measure of the second as a multiple of the first's", limit=1.0)
    rows = [
        (f"{name.replace('_', ' ')} {v.about}", *values)
        for v in found.verdicts
        if v.question == "How good is it?"
        for name, values in v.numbers.items()
    ]
    return _intervals(rows, ax, "value, with its interval of 95 %")


_BY_KIND: dict[str, Callable[[Any, Any, dict[str, Any]], Axes]] = {
    "Flatness": _flatness,
    "Eigenvalues": _eigenvalues,
    "Trace": _trace,
    "Degeneracy": _degeneracy,
    "OneBasin": _basin,
    "NoiseLevel": _noise,
    "AverageSharpness": _average,
    "WorstSharpness": _worst,
    "LogVolume": _volume,
    "LearningCoefficient": _coefficient,
    "Path": _path,
    "Flow": _history("value", "time"),
    "TrainResult": _history("loss", "step"),
    "Alignment": _alignment,
    "MarginCertificate": _margin,
    "Solutions": _solutions,
    "CheckUp": _checkup,
}
