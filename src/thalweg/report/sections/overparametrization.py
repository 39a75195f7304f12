"""What more weights change: zero error, nullity, robustness, margin and test error by W / N."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number, percent
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_ladder, plot_trends
from thalweg.plots.palette import COLORS
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

CELLS, TRENDS = RESULTS = ("overparametrization/cells", "overparametrization/trends")
_SHOWN = {
    "error": "training error",
    "test_error": "test error",
    "average": "mean rise",
    "loss_noise": "noise that doubles the loss",
    "margin": "margin",
    "nullity_share": "nullity / W",
}
_LINEAR = ("error", "test_error", "nullity_share")
_LABELS = {"true": COLORS[0], "random": COLORS[1]}


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(CELLS):
        return None
    cells = run.result(CELLS)
    own = cells.isel(end=cells["part"].values == "networks")
    own = own.assign(nullity_share=1 - own["rank"] / own["weights"])
    return Section(
        name="overparametrization",
        title="From too few weights to far too many",
        lead="Networks of several widths on the same samples, trained to one training loss: what "
        "they reach, and how degenerate, robust and general the ends are.",
        facts=list(_facts(own)),
        parts=list(_parts(run, cells, own)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _labels(cells: xr.Dataset, labels: str) -> xr.Dataset:
    return cells.isel(end=cells["labels"].values == labels)


def _weights(cells: xr.Dataset) -> list[float]:
    """Give the weights of each rung."""
    rungs = np.unique(cells["rung"].values)
    return [float(cells["weights"].values[cells["rung"].values == rung][0]) for rung in rungs]


def _facts(own: xr.Dataset) -> Iterator[Fact]:
    samples = int(own["samples"].values[0])
    weights = _weights(own)
    yield Fact(
        "weights a sample", f"{number(weights[0] / samples)} to {number(weights[-1] / samples)}"
    )
    for labels in _LABELS:
        mine = _labels(own, labels)
        wrong = mine["misclassified"].values > 0
        above = mine["weights"].values > (mine["weights"].values[wrong].max() if wrong.any() else 0)
        least = (
            float(mine["weights"].values[above].min()) / samples if above.any() else float("nan")
        )
        yield Fact(
            f"{labels} labels: zero error on every draw from", number(least), "weights a sample"
        )


def _parts(run: Run, cells: xr.Dataset, own: xr.Dataset) -> Iterator[Part]:
    yield Picture(
        "overparametrization_widths",
        "What more weights change",
        "Against the number of weights a sample, true labels and random ones; thin lines: draws, "
        "thick ones their means where all draws have a number. Robustness and margin are drawn "
        "where the level of the loss was reached. The nullity was taken on some draws. "
        + measured(
            run, *(f"overparametrization/{n}" for n in ("zero-error", "full-rank", "flatter"))
        ),
        _widths(own),
    )
    if run.has_result(TRENDS):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        plot_trends(
            run.result(TRENDS),
            groups={labels: f"{labels} labels" for labels in _LABELS},
            threshold=1 / 3,
            ax=figure.add_subplot(),
        )
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
        yield Picture(
            "overparametrization_trends",
            "Trends over widths",
            "Of the pairs of widths of a draw, those of which the wider is more robust (or its "
            "test error lower), less those of which it is less so; mean over draws, with its "
            "interval. Broken line: what the claims ask for. "
            + measured(run, "overparametrization/margin", "overparametrization/test-error"),
            figure,
        )
    yield _table(own)
    small = cells.isel(end=cells["part"].values == "small")
    if small.sizes["end"]:
        yield _small(small)


def _widths(own: xr.Dataset) -> Figure:
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    grid = figure.subplots(2, 3)
    samples = int(own["samples"].values[0])
    names = [number(weights / samples) for weights in _weights(own)]
    for axes, (variable, label) in zip(grid.flat, _SHOWN.items(), strict=True):
        for labels, color in _LABELS.items():
            mine = _labels(own, labels)
            mine = mine.isel(end=np.isfinite(mine[variable].values))
            if mine.sizes["end"]:
                plot_ladder(
                    mine,
                    variable=variable,
                    names=names,
                    label=label,
                    logarithmic=variable not in _LINEAR,
                    color=color,
                    ax=axes,
                )
        axes.set_xlabel("weights a sample, W / N")
    handles = [
        grid.flat[0].plot([], [], color=color, marker="o", label=f"{labels} labels")[0]
        for labels, color in _LABELS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _table(own: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for labels in _LABELS:
        mine = _labels(own, labels)
        for rung in np.unique(mine["rung"].values):
            rows.append(_row(labels, mine.isel(end=mine["rung"].values == rung)))
    head = (
        "labels",
        "W",
        "W / N",
        "W / N(C−1)",
        "W / NC",
        "reach zero",
        "training error",
        "test error",
        "rank of J",
        "nullity",
        "of it symmetries",
        "dead",
        "mean rise",
        "margin",
    )
    return Table("Networks by width, means over draws", head, rows, words=1)


def _row(labels: str, own: xr.Dataset) -> tuple[str, ...]:
    weights = float(own["weights"].values[0])
    counts = (float(own[key].values[0]) for key in ("samples", "inequalities", "equations"))
    rank = _mean(own, "rank")
    return (
        labels,
        f"{weights:,.0f}",
        *(number(weights / count) for count in counts),
        f"{int((own['misclassified'].values == 0).sum())} of {own.sizes['end']}",
        percent(_mean(own, "error")),
        percent(_mean(own, "test_error")),
        f"{rank:,.0f}" if np.isfinite(rank) else "–",
        f"{weights - rank:,.0f}" if np.isfinite(rank) else "–",
        *(number(_mean(own, key)) for key in ("symmetries", "dead", "average", "margin")),
    )


def _mean(own: xr.Dataset, key: str) -> float:
    values = own[key].values[np.isfinite(own[key].values)]
    return float(values.mean()) if values.size else float("nan")


def _small(small: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for rung in np.unique(small["rung"].values):
        own = small.isel(end=small["rung"].values == rung)
        cells = [f"{float(own['weights'].values[0]):,.0f}"]
        for name in ("coefficient", "volume"):
            given = int(np.isfinite(own[name].values).sum())
            cells += [number(_mean(own, name)), f"{given} of {own.sizes['end']}"]
        rows.append(tuple(cells))
    return Table(
        "Small tanh networks: learning coefficient and log-volume where they are given",
        ("W", "coefficient, mean", "given", "log-volume (nats), mean", "given"),
        rows,
        words=0,
        note="Where the instrument refuses there is no number. Volumes of different W have "
        "different units and are not to be compared.",
    )
