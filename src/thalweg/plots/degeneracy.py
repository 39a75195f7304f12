"""Pictures of degeneracy: eigenvalues with their gap, what explains a nullity, proved boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.palette import COLORS, UNMEASURED

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_STYLES = ("-", "--", ":", "-.")
# Told apart in grey, too.
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


def plot_eigenvalues(spectra: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """
    Draw eigenvalues of J J^T by rank, with the thresholds below which they count as zero.

    Parameters
    ----------
    spectra : xarray.Dataset
        ``eigenvalue (network, index)``, descending, NaN behind the last; ``threshold (network)``;
        the coordinate ``case`` chooses the colour.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        An eigenvalue of zero is drawn at the bottom.
    """
    axes = axes_or_new(ax)
    values = spectra["eigenvalue"].values
    thresholds = spectra["threshold"].values
    floor = 1e-6 * float(np.min(thresholds, initial=1.0))
    cases = list(dict.fromkeys(spectra["case"].values.tolist()))
    for number, case in enumerate(cases):
        for place, row in enumerate(values[spectra["case"].values == case]):
            shown = np.maximum(row[np.isfinite(row)], floor)
            axes.plot(
                np.arange(1, len(shown) + 1),
                shown,
                color=COLORS[number % len(COLORS)],
                linestyle=_STYLES[number % len(_STYLES)],
                linewidth=1.3,
                label=literal(case) if place == 0 else None,
            )
    if len(thresholds):
        low, high = float(thresholds.min()), float(thresholds.max())
        axes.axhspan(floor, low, color=UNMEASURED, alpha=0.15, linewidth=0)
        axes.axhline(high, color="#555555", linewidth=0.8, linestyle=(0, (1, 1)))
        axes.annotate(
            "below the threshold: zero to rounding",
            (0.02, low),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize="small",
            color="#555555",
        )
    axes.set_yscale("log")
    axes.set(xlabel="rank of the eigenvalue", ylabel="eigenvalue of J Jᵀ", ylim=(floor, None))
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(frameon=False, loc="best")
    return cast("Axes", axes)


def plot_split(split: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """
    Draw what explains the nullity of each network as one bar of parts.

    Parameters
    ----------
    split : xarray.Dataset
        ``directions (network, cause)`` with the coordinate ``case`` and, where there are several
        of a case, ``seed``.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        Causes of no network are left out; parts bear their numbers where there is room.
    """
    axes = axes_or_new(ax)
    counts = split["directions"].values
    labels = [
        f"{literal(str(case))} {seed}"
        for case, seed in zip(split["case"].values, split["seed"].values, strict=True)
    ]
    rows, starts = np.arange(len(labels)), np.zeros(len(labels))
    most = float(counts.sum(axis=1).max(initial=1))
    for number, cause in enumerate(split["cause"].values):
        parts = counts[:, number]
        if not parts.any():
            continue
        bars = axes.barh(
            rows,
            parts,
            left=starts,
            color=COLORS[number % len(COLORS)],
            alpha=0.75,
            edgecolor="white",
            hatch=_HATCHES[number % len(_HATCHES)],
            label=str(cause),
        )
        written = [f"{int(count):,}" if count > 0.05 * most else "" for count in parts]
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.bar_label(bars, written, label_type="center", fontsize="small", bbox=box)
        starts = starts + parts
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.set(xlabel="directions of weight space in which no output changes")
    axes.legend(
        frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3
    )
    return cast("Axes", axes)


def plot_boxes(boxes: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """
    Draw for each network up to where a box is proved, and from where on it is broken.

    Parameters
    ----------
    boxes : xarray.Dataset
        ``half_width`` and ``attacked (network)``, with the coordinate ``seed``; boxes of
        half-width zero are left out.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        The half-width is on a logarithmic scale; between the marks nothing is known.
    """
    axes = axes_or_new(ax)
    proved = boxes["half_width"].values > 0
    low, high = (boxes[name].values[proved] for name in ("half_width", "attacked"))
    rows = np.arange(len(low))
    axes.hlines(rows, low, high, color=UNMEASURED, linewidth=4, alpha=0.6, label="not known")
    axes.plot(low, rows, "o", color=COLORS[0], label="proved: no sample misclassified up to here")
    axes.plot(high, rows, "X", color=COLORS[1], label="attacked: a sample misclassified")
    axes.set_yticks(rows, [f"network {seed}" for seed in boxes["seed"].values[proved]])
    axes.set_ylim(len(low) - 0.5, -0.5)
    axes.set_xscale("log")
    ends = np.concatenate([low, high])
    if ends.size:
        axes.set_xlim(0.8 * ends.min(), 1.25 * ends.max())
    axes.set(xlabel="half-width: how far all weights may move at once")
    axes.grid(alpha=0.3, linewidth=0.5, which="both")
    axes.legend(
        frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3
    )
    return cast("Axes", axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        frameon=False,
        fontsize="small",
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        borderaxespad=0.3,
    )
