"""Which minima noise selects: robustness at equal training loss over ladders of noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_ladder, plot_trends
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

ENDS, TRENDS, VOLUMES = (f"sgd_selection/{name}" for name in ("ends", "trends", "volumes"))
RESULTS = (ENDS, TRENDS)
_LADDERS = {
    "batch": "batch size",
    "rate": "learning rate",
    "langevin": "temperature",
    "decay": "batch size, weight decay",
}
_SHOWN = {
    "average": "mean rise",
    "loss_noise": "noise that doubles the loss",
    "margin": "margin",
    "test_error": "test error",
}
_COLUMNS = ("average", "worst", "loss_noise", "error_noise", "margin", "test_error", "distance")
_KINDS = {"small": "tanh network", "alike": "control: linear model"}


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(ENDS):
        return None
    ends = run.result(ENDS)
    return Section(
        name="sgd_selection",
        title="Which minimum noise selects",
        lead="Networks from the same initial weights, trained by less noise and more to the "
        "same training loss; there robustness is measured by numbers that rescaling of layers "
        "leaves alone, with the margin and the test error beside it.",
        facts=list(_facts(ends)),
        parts=list(_parts(run, ends)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _of(ends: xr.Dataset, case: str, ladder: str) -> xr.Dataset:
    return ends.isel(end=(ends["case"].values == case) & (ends["ladder"].values == ladder))


def _present(ends: xr.Dataset, case: str) -> list[str]:
    here = set(ends["ladder"].values[ends["case"].values == case].tolist())
    return [ladder for ladder in _LADDERS if ladder in here]


def _rung_names(ends: xr.Dataset, ladder: str) -> list[str]:
    """Name each rung as its noise: one over the batch size stands for it."""
    first = ends.isel(end=ends["parent"].values == ends["parent"].values.min()).sortby("rung")
    noises = first["noise"].values
    if ladder in ("batch", "decay"):
        return ["all" if noise == 0 else f"{1 / noise:.0f}" for noise in noises]
    return [f"{noise:g}" for noise in noises]


def _facts(ends: xr.Dataset) -> Iterator[Fact]:
    own = ends.isel(end=ends["case"].values == "networks")
    there = own["status"].values == "at level"
    level = float(np.median(own["loss"].values[there])) if there.any() else float("nan")
    yield Fact("ends at the level", f"{int(there.sum())} of {there.size}", f"loss {number(level)}")
    yield Fact("parents", f"{len(np.unique(own['parent'].values))}", "initial weights and samples")
    for ladder in _present(ends, "networks"):
        mine = _of(ends, "networks", ladder)
        ratio = _ratio(mine)
        yield Fact(f"mean rise, most noise to least: {_LADDERS[ladder]}", number(ratio), "ratio")


def _ratio(ends: xr.Dataset) -> float:
    """Give the geometric mean over parents of the last rung's mean rise over the first's."""
    logs = []
    for parent in np.unique(ends["parent"].values):
        mine = ends.isel(end=ends["parent"].values == parent).sortby("rung")
        first, last = float(mine["average"].values[0]), float(mine["average"].values[-1])
        logs.append(np.log(last / first) if first > 0 and last > 0 else np.nan)
    known = np.array(logs)[np.isfinite(logs)]
    return float(np.exp(known.mean())) if known.size else float("nan")


def _parts(run: Run, ends: xr.Dataset) -> Iterator[Part]:
    told = [
        f"By {words}: {figure}"
        for ladder, words in _LADDERS.items()
        if (figure := measured(run, f"sgd_selection/{ladder}"))
    ]
    yield Picture(
        "sgd_selection_ladders",
        "Robustness over the ladders of noise",
        "Columns: ladders, from little noise on the left to much on the right (batch sizes, “all” "
        "being gradient descent; learning rates; temperatures). Thin lines: parents, each of one "
        "set of initial weights and samples; thick: their mean, where all came to the level. A "
        "smaller mean rise, more noise that doubles the loss and a larger margin are more robust. "
        + " ".join(told),
        _ladders(ends),
    )
    if run.has_result(TRENDS):
        groups = {f"networks/{ladder}": words for ladder, words in _LADDERS.items()}
        yield _trend_picture(run, groups)
        known = {"alike/batch": "alike: batch size", "alike/langevin": "alike: temperature"}
        yield _known(run, known | {"widening/langevin": "widening valley: temperature"})
    yield _table(ends)
    if run.has_result(VOLUMES):
        yield _volumes(run, run.result(VOLUMES))


def _ladders(ends: xr.Dataset) -> Figure:
    ladders = _present(ends, "networks")
    figure = Figure(figsize=(2.9 * len(ladders), 2.1 * len(_SHOWN)), layout="constrained")
    grid = figure.subplots(len(_SHOWN), len(ladders), sharey="row", squeeze=False)
    for column, ladder in enumerate(ladders):
        mine = _of(ends, "networks", ladder)
        names = _rung_names(mine, ladder)
        for row, (variable, label) in enumerate(_SHOWN.items()):
            axes = grid[row, column]
            plot_ladder(
                mine,
                variable=variable,
                names=names,
                label=label if column == 0 else " ",
                logarithmic=variable != "test_error",
                ax=axes,
            )
        grid[0, column].set_title(_LADDERS[ladder], fontsize="medium")
    return figure


def _trend_picture(run: Run, groups: dict[str, str]) -> Picture:
    return Picture(
        "sgd_selection_trends",
        "Trends of each measure",
        "Of the pairs of rungs of a parent, those of which the noisier is more robust (or its test "
        "error lower), less those of which it is less so, by more than the measure's tolerance; "
        "mean over parents, with its interval. Broken line: what a claim asks of the mean of "
        "the first four.",
        _drawn(run, groups),
    )


def _known(run: Run, groups: dict[str, str]) -> Picture:
    return Picture(
        "sgd_selection_known",
        "The same where the answer is known",
        "A linear model, whose minima are all alike, must show no trend; a valley that widens must "
        "show one under Langevin dynamics. " + measured(run, "sgd_selection/known-case"),
        _drawn(run, groups),
    )


def _drawn(run: Run, groups: dict[str, str]) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plot_trends(run.result(TRENDS), groups=groups, threshold=1 / 3, ax=axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def _table(ends: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for ladder in _present(ends, "networks"):
        mine = _of(ends, "networks", ladder)
        for rung, name in enumerate(_rung_names(mine, ladder)):
            own = mine.isel(end=mine["rung"].values == rung)
            there = own.isel(end=own["status"].values == "at level")
            means = (
                float(np.nanmean(there[key].values)) if _any(there, key) else np.nan
                for key in _COLUMNS
            )
            rows.append(
                (
                    f"{_LADDERS[ladder]} {name}",
                    f"{there.sizes['end']} of {own.sizes['end']}",
                    f"{float(own['steps'].mean()):.0f} + {float(own['descended'].mean()):.0f}",
                    *(number(value) for value in means),
                )
            )
    head = (
        "rung",
        "at the level",
        "steps with noise + without",
        *(name.replace("_", " ") for name in _COLUMNS),
    )
    return Table("Ends of the trainings, means over parents", head, rows, words=1)


def _any(ends: xr.Dataset, key: str) -> bool:
    return key in ends and bool(np.isfinite(ends[key].values).any())


def _volumes(run: Run, volumes: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for i in range(volumes.sizes["end"]):
        one = volumes.isel(end=i)
        case = str(one["case"].values).removeprefix("volume-")
        noise = float(one["noise"].values)
        rows.append(
            (
                _KINDS[case],
                f"parent {int(one['parent'])}",
                f"batches of {1 / noise:.0f}" if noise else "all samples",
                _answer(one, "volume"),
                _answer(one, "coefficient"),
            )
        )
    return Table(
        "Log-volume and learning coefficient at the bottom below the ends",
        ("landscape", "parent", "noise", "log-volume (nats)", "learning coefficient"),
        rows,
        words=5,
        note="A refusal is told with the instrument's first reason, and counts as no number. "
        + measured(run, "sgd_selection/volume", "sgd_selection/coefficient"),
    )


def _answer(one: xr.Dataset, name: str) -> str:
    value, low, high = (float(one[name + end].values) for end in ("", "_low", "_high"))
    status = str(one[f"{name}_status"].values)
    if not np.isfinite(value):
        reason = str(one[f"{name}_reason"].values).partition(";")[0].partition(". ")[0]
        return f"{status}: {reason}"
    return f"{number(value)} ({number(low)} to {number(high)})"
