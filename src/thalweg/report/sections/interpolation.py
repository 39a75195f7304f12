"""Lines between models: within a basin, and from one basin to another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import count, number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_lines
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

LINES, PAIRS = RESULTS = ("interpolation/lines", "interpolation/pairs")
_CLAIMS = ("low", "mean-not-worse", "mean-better")
_COMPARED = ("mean_excess", "mean_over_best")
_GROUPS = {"seeds": "different seeds"}


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(PAIRS):
        return None
    pairs = run.result(PAIRS)
    return Section(
        name="interpolation",
        title="On the line between two models",
        lead="Loss and error on straight lines in weight space: between copies of one parent that "
        "were perturbed and trained on, and between networks of different seeds.",
        facts=list(_facts(pairs)),
        parts=list(_parts(run, pairs)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _facts(pairs: xr.Dataset) -> Iterator[Fact]:
    high = pairs["barrier"].sel(quantity="loss").values
    for group in dict.fromkeys(pairs["group"].values.tolist()):
        barriers = high[pairs["group"].values == group]
        yield Fact(
            f"highest barrier, {_name(group)}", number(float(barriers.max())), "training loss"
        )
    before = float(pairs["untrained_loss"].mean())
    parents = len(np.unique(pairs["draw"].values))
    yield Fact("loss before training", number(before), f"mean of {count(parents, 'parent')}")


def _name(group: str) -> str:
    return _GROUPS.get(group, f"one parent, {group} moment")


def _parts(run: Run, pairs: xr.Dataset) -> Iterator[Part]:
    if run.has_result(LINES):
        lines = run.result(LINES)
        yield Picture(
            "lines",
            "Along the lines",
            "Each curve is the line between two models, with the 95 % interval of a mean over "
            "samples as band; batch-norm statistics are re-estimated at every point. t = 0 and "
            "t = 1 are the models, t = 0.5 their mean. "
            + measured(run, *(f"interpolation/{name}" for name in _CLAIMS)),
            _still(lines),
        )
    yield _table(pairs)
    yield _means(pairs)


def _still(lines: xr.Dataset) -> Figure:
    names = [str(_name(group)) for group in lines["group"].values]
    shown = lines.assign_coords(group=("pair", names))
    panels = [name for name in ("loss", "error", "test_loss", "test_error") if name in lines]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.1 * rows + 0.6), layout="constrained")
    for place, variable in enumerate(panels, start=1):
        ax = plot_lines(shown, variable=variable, ax=figure.add_subplot(rows, columns, place))
        ax.set_ylim(bottom=0)
        if place <= len(panels) - columns:
            ax.set_xlabel("")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _table(pairs: xr.Dataset) -> Table:
    head = ("pair", "group", "distance", "barrier", "at t", "cross-fitted", "test barrier")
    loss = pairs.sel(quantity="loss")
    has_test = "test_loss" in pairs["quantity"].values
    test = pairs.sel(quantity="test_loss") if has_test else None
    rows: list[tuple[str, ...]] = [
        (
            str(pairs["pair"].values[i]),
            _name(str(pairs["group"].values[i])),
            number(float(pairs["length"][i])),
            _with_error(loss, "barrier", i),
            number(float(loss["barrier_at"][i])),
            _with_error(loss, "crossfit", i),
            "–" if test is None else _with_error(test, "barrier", i),
        )
        for i in range(pairs.sizes["pair"])
    ]
    title = "Barriers in loss, with standard errors over samples"
    return Table(title, head, rows, words=2)


def _means(pairs: xr.Dataset) -> Table:
    """Compare the mean of two models with both."""
    names = [str(name) for name in pairs["quantity"].values]
    rows = []
    for group in dict.fromkeys(pairs["group"].values.tolist()):
        of_group = pairs.isel(pair=pairs["group"].values == group)
        for name in names:
            figures = (of_group[key].sel(quantity=name).values for key in _COMPARED)
            cells = (number(float(np.mean(values))) for values in figures)
            rows.append((_name(group), name.replace("_", " "), *cells))
    title = "The mean of two models minus their average, and minus the better"
    return Table(title, ("group", "quantity", "minus average", "minus better"), rows, words=2)


def _with_error(data: xr.Dataset, name: str, i: int) -> str:
    return f"{number(float(data[name][i]))} ± {float(data[f'{name}_stderr'][i]):.1g}"
