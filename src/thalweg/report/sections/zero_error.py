"""Zero training error: which networks reach it, on true and on random labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import listing, number, percent, span
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import curves_figure, plot_reach
from thalweg.plots.interactive.curves import panels_of
from thalweg.report.figures import curves_still
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

CELLS, CURVES = RESULTS = ("zero_error/cells", "zero_error/curves")

_COUNTS = (
    "Equations are counted in three ways: N, where one scalar output is fitted exactly; N(C−1) "
    "inequalities, where each sample's class must come first; NC, where all outputs are fitted "
    "exactly under the squared loss."
)
_HEAD = (
    "network",
    "labels",
    "W",
    "N",
    "C",
    "W / N",
    "W / N(C−1)",
    "W / NC",
    "reach zero",
    "misclassified",
    "mean test error",
    "most epochs",
)


def section(run: Run) -> Section | None:
    """Give what the study of zero error found; None if the run holds nothing of it."""
    if not run.has_result(CELLS):
        return None
    cells = run.result(CELLS)
    curves = run.result(CURVES) if run.has_result(CURVES) else None
    return Section(
        name="zero_error",
        title="Zero training error",
        lead="Networks trained until they misclassify no training sample, on the true labels and "
        f"on labels drawn at random. {_COUNTS}",
        facts=list(_facts(cells)),
        parts=list(_parts(run, cells, curves)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _cells_of(cells: xr.Dataset, key: str, *values: str) -> xr.Dataset:
    return cells.isel(cell=np.flatnonzero(np.isin(cells[key].values, values)))


def _facts(cells: xr.Dataset) -> Iterator[Fact]:
    for labels in ("true", "random"):
        networks = _cells_of(_cells_of(cells, "labels", labels), "part", "network")
        for name in dict.fromkeys(_network(name) for name in networks["name"].values):
            own = _of_network(networks, name)
            missed, tests = own["misclassified"].values, own["test_error"].values
            note = f"test error {span(tests[np.isfinite(tests)])}" if len(tests) else ""
            value = f"{int((missed == 0).sum())} of {missed.size} draws"
            yield Fact(f"{name.replace('-', ' ')}: zero training error on", value, note)
    sweep = _cells_of(cells, "part", "sweep")
    for labels in ("true", "random"):
        ratio = _all_zero_from(_cells_of(sweep, "labels", labels))
        value = "none of the sweep" if ratio is None else f"W / N(C−1) = {number(ratio)}"
        yield Fact(f"{labels} labels: every network reaches zero from", value)


def _all_zero_from(sweep: xr.Dataset) -> float | None:
    missed = sweep["per_inequality"].values[sweep["misclassified"].values > 0]
    ratios = sweep["per_inequality"].values
    above = ratios[ratios > (missed.max() if missed.size else 0)]
    return float(above.min()) if above.size else None


def _parts(run: Run, cells: xr.Dataset, curves: xr.Dataset | None) -> Iterator[Part]:
    sweep = _cells_of(cells, "part", "sweep")
    if sweep.sizes["cell"]:
        yield _reach(run, sweep)
    whole = _cells_of(cells, "part", "network", "control", "near")
    if curves is not None:
        yield _training(run, curves, whole)
    names = dict.fromkeys(_network(name) for name in whole["name"].values)
    rows = [_row(name, _of_network(whole, name)) for name in names]
    yield Table("Networks at full size, and controls of as many epochs", _HEAD, rows, words=2)
    yield Table(
        "The sweep over widths",
        ("W", "W / N", "W / N(C−1)", "W / NC", *_SWEEP_HEAD),
        [_sweep_row(_of_weights(sweep, w)) for w in np.unique(sweep["weights"].values)],
        words=0,
    )


_SWEEP_HEAD = (
    "true labels: reach zero",
    "training error",
    "test error",
    "random labels: reach zero",
    "training error",
    "test error",
)


def _reach(run: Run, sweep: xr.Dataset) -> Picture:
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    plot_reach(sweep, ax=figure.add_subplot())
    samples, outputs = int(sweep["samples"].values[0]), int(sweep["outputs"].values[0])
    return Picture(
        "zero_error_reach",
        "Weights an equation, and the error that training reaches",
        f"Each mark is the training error of one network on {samples} samples in {outputs} "
        "classes; full lines are means over seeds, broken lines the test errors. Dotted lines: as "
        f"many weights as equations by each count, N = {samples:,}, N(C−1) = "
        f"{samples * (outputs - 1):,} and NC = {samples * outputs:,}. True labels have structure "
        "and ask for fewer weights than random ones, which must be memorized. "
        + _measured(run, sweep=True),
        figure,
    )


def _training(run: Run, curves: xr.Dataset, whole: xr.Dataset) -> Picture:
    panels = panels_of(curves)
    few = _cells_of(whole, "part", "control", "near")["weights"].values
    controls = listing([f"{int(weights):,}" for weights in np.unique(few)])
    narrow = f" Those called narrow, below and above are controls of {controls} weights."
    return Picture(
        "zero_error_curves",
        "Training at full size",
        f"Losses and errors over all samples of the first draw against the epoch, batch-norm "
        f"statistics re-estimated where they were measured; training stops at zero error.{narrow} "
        + _measured(run, sweep=False),
        curves_still(curves, panels, "epoch"),
        curves_figure(curves, against="epoch"),
    )


def _measured(run: Run, *, sweep: bool) -> str:
    names = [claim["name"] for claim in run.claims if claim["study"] == "zero_error"]
    return measured(run, *(name for name in names if ("/sweep-" in name) == sweep))


def _network(trajectory: str) -> str:
    return trajectory.rpartition("-seed")[0]


def _of_network(whole: xr.Dataset, name: str) -> xr.Dataset:
    matches = [_network(trajectory) == name for trajectory in whole["name"].values]
    return whole.isel(cell=np.flatnonzero(matches))


def _row(name: str, cells: xr.Dataset) -> tuple[str, ...]:
    cell, missed = cells.isel(cell=0), cells["misclassified"].values
    return (
        name,
        str(cell["labels"].values),
        *(f"{int(cell[key]):,}" for key in ("weights", "samples", "outputs")),
        *(number(float(cell[key])) for key in ("per_sample", "per_inequality", "per_output")),
        f"{int((missed == 0).sum())} of {missed.size}",
        f"{missed.min():,} to {missed.max():,}",
        percent(float(cells["test_error"].mean())),
        number(float(cells["epochs"].max())),
    )


def _of_weights(sweep: xr.Dataset, weights: int) -> xr.Dataset:
    return sweep.isel(cell=np.flatnonzero(sweep["weights"].values == weights))


def _sweep_row(cells: xr.Dataset) -> tuple[str, ...]:
    first = cells.isel(cell=0)
    ratios = [number(float(first[k])) for k in ("per_sample", "per_inequality", "per_output")]
    words = [f"{int(first['weights']):,}", *ratios]
    for labels in ("true", "random"):
        some = _cells_of(cells, "labels", labels)
        missed = some["misclassified"].values
        errors = (missed / some["samples"].values, some["test_error"].values)
        words.append(f"{int((missed == 0).sum())} of {missed.size}")
        words += [percent(float(values.mean())) for values in errors]
    return tuple(words)
