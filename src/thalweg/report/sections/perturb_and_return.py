"""Perturb and return: do copies come back to zero error, how far from home, how far apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_bands, plot_matrix
from thalweg.plots.palette import COLORS
from thalweg.report.measured import measured
from thalweg.report.sections.limits_parts import (
    LIMITS,
    PATHS,
    limit_facts,
    limit_parts,
)
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

COPIES, DISTANCES, CURVES, ENDS = (
    f"perturb_and_return/{name}" for name in ("copies", "distances", "curves", "ends")
)
RESULTS = (COPIES, DISTANCES, CURVES, ENDS, LIMITS, PATHS)
_DASHES: dict[str, Any] = {"sgd": "-", "gd": "--"}
_NAMES = {"sgd": "SGD", "gd": "full-batch gradient descent"}
_CONTROLS = {"narrow": ", narrow network"}
_MEANS = (
    "start_error",
    "epochs_to_zero",
    "displacement",
    "displacement_filters",
    "distance_final",
)
_ROWS = (
    ("loss", "training loss\n(mean per sample)", True),
    ("home", "distance from where it was\n(Euclidean, weights)", False),
    ("siblings", "mean distance from siblings\n(Euclidean, weights)", False),
)


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(COPIES):
        return None
    copies = run.result(COPIES)
    main = copies.isel(member=copies["network"].values == "main")
    return Section(
        name="perturb_and_return",
        title="Perturb and return",
        lead="A network was perturbed early, in the middle and at the end of its training, and "
        "each copy trained on: does it come back to zero training error, where to, and is it only "
        "slow to come all the way?",
        facts=[*_facts(main), *(limit_facts(run.result(LIMITS)) if run.has_result(LIMITS) else ())],
        parts=list(_parts(run, copies, main)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _facts(main: xr.Dataset) -> Iterator[Fact]:
    for moment in dict.fromkeys(main["moment"].values.tolist()):
        of_moment = main.isel(member=main["moment"].values == moment)
        back = int(of_moment["returned"].values.sum())
        yield Fact(
            f"copies from the {moment} moment back at zero error",
            f"{back} of {len(of_moment.member)}",
        )
    final = main.isel(member=main["moment"].values == "final")
    if final.sizes["member"]:
        stays = final["displacement"].values
        yield Fact(
            "of the perturbation that remains, final moment",
            f"{np.min(stays):.2f} to {np.max(stays):.2f}",
            "1: as far away as the noise had put it",
        )


def _parts(run: Run, copies: xr.Dataset, main: xr.Dataset) -> Iterator[Part]:
    yield from limit_parts(run, copies)
    if run.has_result(CURVES) and run.has_result(DISTANCES):
        yield Picture(
            "returns",
            "The way back",
            "Copies trained on by SGD (solid) and by full-batch gradient descent (dashed; its "
            "epoch is one step, and it stops at zero error), by the moment of the perturbation "
            "(columns) and its scale relative to each layer's weights (colours). Lines are means "
            "of the copies, bands reach from the lowest to the highest. "
            + measured(run, "perturb_and_return/flat"),
            _returns(run.result(CURVES), run.result(DISTANCES), main),
        )
    if run.has_result(ENDS):
        yield Picture(
            "ends",
            "How far apart they end",
            "Euclidean distances between the weights at the end of every copy, and from the parent "
            "at each moment; blocks share moment, optimizer and scale. Dark within a block: "
            "siblings ended near one another. " + measured(run, "perturb_and_return/apart"),
            _ends(run.result(ENDS)),
        )
    yield _table(copies)


def _returns(curves: xr.Dataset, distances: xr.Dataset, main: xr.Dataset) -> Figure:
    groups = dict(zip(main["trajectory"].values, main["group"].values, strict=True))
    named = [str(groups.get(name, "")) for name in curves["trajectory"].values]
    curves = curves.assign_coords(group=("record", named))
    moments = list(dict.fromkeys(main["moment"].values.tolist()))
    looks = _looks(main)
    figure = Figure(figsize=(3.6 * len(moments) + 0.6, 8.6), layout="constrained")
    axes = figure.subplots(len(_ROWS), len(moments), squeeze=False, sharex="col", sharey="row")
    for (variable, label, logarithmic), row in zip(_ROWS, axes, strict=True):
        data = curves if variable in curves else distances
        row[0].set_ylabel(label)
        for moment, ax in zip(moments, row, strict=True):
            of_moment = set(main["group"].values[main["moment"].values == moment].tolist())
            styles = {group: style for group, style in looks.items() if group in of_moment}
            plot_bands(data, variable=variable, styles=styles, logarithmic=logarithmic, ax=ax)
        if not logarithmic:
            row[0].set_ylim(bottom=0)
    for moment, top, bottom in zip(moments, axes[0], axes[-1], strict=True):
        top.set_title(f"perturbed at the {moment} moment", fontsize="medium")
        bottom.set_xlabel("epoch after the perturbation")
    _legend(figure, main)
    return figure


def _scales(main: xr.Dataset) -> dict[float, str]:
    scales = np.unique(main["scale"].values)
    return {float(scale): COLORS[i % len(COLORS)] for i, scale in enumerate(scales)}


def _looks(main: xr.Dataset) -> dict[str, dict[str, Any]]:
    colors = _scales(main)
    rows = zip(
        *(main[name].values.tolist() for name in ("group", "scale", "optimizer")), strict=True
    )
    return {
        group: {"color": colors[scale], "linestyle": _DASHES[optimizer], "linewidth": 1.4}
        for group, scale, optimizer in rows
    }


def _legend(figure: Figure, main: xr.Dataset) -> None:
    from matplotlib.lines import Line2D

    marks = {f"noise {scale:g}": Line2D([], [], color=c) for scale, c in _scales(main).items()}
    for optimizer in dict.fromkeys(main["optimizer"].values.tolist()):
        dash = _DASHES[optimizer]
        marks[_NAMES[optimizer]] = Line2D([], [], color="#555555", linestyle=dash)
    figure.legend(
        list(marks.values()), list(marks), loc="outside lower center", ncols=6, frameon=False
    )


def _ends(ends: xr.Dataset) -> Figure:
    rows = zip(*(ends[name].values for name in ("moment", "optimizer", "scale")), strict=True)
    labels = [
        f"{moment}, {_NAMES[str(optimizer)].split(' ')[0]}, {scale:g}" if optimizer else "parent"
        for moment, optimizer, scale in rows
    ]
    figure = Figure(figsize=(8, 7), layout="constrained")
    plot_matrix(
        ends["distance"].values,
        labels=labels,
        title="Euclidean distance of weights",
        ax=figure.add_subplot(),
    )
    return figure


def _table(copies: xr.Dataset) -> Table:
    head = ("perturbed", "by", "noise", "error then", "back", "epochs", "left", "filters", "to end")
    rows = []
    for group in dict.fromkeys(copies["group"].values.tolist()):
        of_moment = copies.isel(member=copies["group"].values == group)
        first = of_moment.isel(member=0)
        moment = f"{first['moment'].values} moment{_CONTROLS.get(str(first['network'].values), '')}"
        means = (number(_mean(of_moment[name].values)) for name in _MEANS)
        start, epochs, *places = means
        back = f"{int(of_moment['returned'].values.sum())} of {of_moment.sizes['member']}"
        optimizer = _NAMES[str(first["optimizer"].values)].split(" ")[0]
        scale = f"{float(first['scale']):g}"
        rows.append((moment, optimizer, scale, start, back, epochs, *places))
    title = (
        "Means of the copies: training error after the perturbation, copies back at zero and "
        "epochs to it, what is left of the perturbation (in units of its length; in directions of "
        "filters), distance to where the parent's training ended"
    )
    return Table(title, head, rows, words=2)


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
