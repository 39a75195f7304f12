"""Polynomials in place of the ReLU: curves, differences with intervals, and excursions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number, percent
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_bands, plot_excursions
from thalweg.plots.curves import LABELS, is_measured
from thalweg.plots.palette import COLORS
from thalweg.report.about import summary
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

RUNS, CURVES, EXCURSIONS, FITS = RESULTS = (
    "polynomial_activations/runs",
    "polynomial_activations/curves",
    "polynomial_activations/excursions",
    "polynomial_activations/fits",
)
_DASHES = ("-", "--", "-.", ":")
_CLAIMS = ("polynomial_activations/training", "polynomial_activations/test")


def section(run: Run) -> Section | None:
    """Give what the study of polynomial activations found; None if the run holds none of it."""
    if not run.has_result(RUNS):
        return None
    runs = run.result(RUNS)
    return Section(
        name="polynomial_activations",
        title="Polynomials in place of the ReLU",
        lead="The same network, trained from the same seeds by the same recipe, with the ReLU and "
        "with its minimax polynomials: for these the number of zero-minimizers can be counted.",
        facts=list(_facts(runs)),
        parts=list(_parts(run, runs)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _facts(runs: xr.Dataset) -> Iterator[Fact]:
    for name in runs["activation"].values.tolist():
        of_activation = runs.sel(activation=name)
        ends = of_activation["status"].values.tolist()
        left_interval = ends.count("left the interval")
        value = percent(float(of_activation["test_error"].mean()))
        note = f"training error {percent(float(of_activation['error'].mean()))}"
        if left_interval:
            note += f"; {left_interval} of {len(ends)} left the interval"
        yield Fact(f"{name}: final test error", value, note)


def _parts(run: Run, runs: xr.Dataset) -> Iterator[Part]:
    if run.has_result(CURVES):
        yield _curves(run, run.result(CURVES), runs)
    yield _differences(run, runs)
    if run.has_result(EXCURSIONS):
        yield _excursions(run, run.result(EXCURSIONS))
    if run.has_result(FITS):
        yield _fits(run.result(FITS))


def _curves(run: Run, curves: xr.Dataset, runs: xr.Dataset) -> Picture:
    panels = [name for name in ("error", "test_error") if is_measured(curves, name)]
    figure = Figure(figsize=(5 * len(panels), 3.9), layout="constrained")
    data = curves.assign_coords(group=curves["activation"])
    styles = {
        name: {"color": color, "linestyle": dash, "linewidth": 1.6, "label": name}
        for name, color, dash in zip(
            runs["activation"].values.tolist(), cycle(COLORS), cycle(_DASHES), strict=False
        )
    }
    for place, variable in enumerate(panels, start=1):
        ax = figure.add_subplot(1, len(panels), place)
        plot_bands(data, variable=variable, styles=styles, logarithmic=True, ax=ax)
        ax.set(xlabel="epoch", ylabel=LABELS[variable])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, handlelength=3.2
    )
    return Picture(
        "polynomial_activations_curves",
        "Training and test error over time",
        f"Means over {runs.sizes['seed']} seeds; bands reach from the lowest seed to the highest. "
        "Errors on logarithmic axes, zero drawn at the smallest positive one. "
        + measured(run, *_CLAIMS),
        figure,
    )


def _differences(run: Run, runs: xr.Dataset) -> Table:
    summaries = summary(run).get("polynomial_activations", {})
    rows = [
        (
            name,
            _statuses(runs.sel(activation=name)),
            *(percent(float(runs[key].sel(activation=name).mean())) for key in _ERRORS),
            *(_interval(summaries.get(name, {}).get("difference", {}).get(k)) for k in _KINDS),
        )
        for name in runs["activation"].values.tolist()
    ]
    head = (
        "activation",
        "trainings ended",
        "final training error",
        "final test error",
        "difference in training error over time",
        "difference in final test error",
    )
    return Table("Against the ReLU network of the same seed (95 % intervals)", head, rows, words=2)


_ERRORS, _KINDS = ("error", "test_error"), ("training", "test")


def _statuses(trainings: xr.Dataset) -> str:
    names, counts = np.unique(trainings["status"].values, return_counts=True)
    return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))


def _interval(statistic: dict[str, Any] | None) -> str:
    if not statistic:
        return "–"
    return f"{statistic['value']:+.4f} ({statistic['low']:+.4f} to {statistic['high']:+.4f})"


def _excursions(run: Run, excursions: xr.Dataset) -> Picture:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    plot_excursions(excursions, ax=figure.add_subplot())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    infinite = int(np.isinf(excursions["factor"].values).sum())
    note = f" {infinite} rows after a NaN are drawn at the top." if infinite else ""
    return Picture(
        "polynomial_activations_excursions",
        "How far pre-activations went",
        "The largest absolute pre-activation of any layer and seed since the mark before, in units "
        f"of the half-width of its polynomial's interval; logarithmic axis.{note} "
        + measured(run, "polynomial_activations/interval"),
        figure,
    )


def _fits(fits: xr.Dataset) -> Table:
    methods = fits["fit"].values.tolist()
    rows = [
        (
            str(int(degree)),
            *(number(float(fits["error"].sel(degree=degree, fit=m))) for m in methods),
            number(0.140 / float(degree)),
        )
        for degree in fits["degree"].values
    ]
    title = "Errors of the ReLU's polynomial fits on [-r, r], in units of r"
    return Table(title, ("degree", *methods, "0.140 / degree"), rows)
