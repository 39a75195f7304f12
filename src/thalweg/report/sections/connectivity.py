"""Whether networks are joined: barriers of straight, aligned and curved ways, and their tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.basins import merge_levels
from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_disconnectivity
from thalweg.plots.palette import COLORS
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

PAIRS, KNOWN, TREE = RESULTS = tuple(f"connectivity/{n}" for n in ("pairs", "known", "tree"))
_WAYS = {"straight": "straight line", "aligned": "aligned", "curve": "curve"}
_LINES = {
    "straight": "independent networks",
    "aligned": "independent, aligned",
    "curve": "independent, by a curve",
    "copies": "copies of one network",
    "half_aligned": "control: half of the order undone",
    "shuffled": "control: in random order",
    "permuted": "control: a permuted copy",
    "permuted_aligned": "the permuted copy, aligned",
}
_PASSES = {
    "straight lines alone": ("line",),
    "aligned networks, too": ("line", "aligned"),
    "curves, too": ("line", "aligned", "bezier"),
}
# Barriers below are drawn here: one of exactly zero has no place on the axis.
_LEAST = 1e-5


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(PAIRS):
        return None
    pairs = run.result(PAIRS)
    return Section(
        name="connectivity",
        title="Whether networks are joined",
        lead="Two networks trained from initial weights of their own, on the same samples: how far "
        "the training loss rises on the straight line between them, on the line once the units of "
        "one are in the order of the other, and on a curve that was trained to low loss.",
        facts=list(_facts(pairs)),
        parts=list(_parts(run, pairs)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _facts(pairs: xr.Dataset) -> Iterator[Fact]:
    yield Fact("pairs of networks", f"{pairs.sizes['pair']}", "each on its own draw of samples")
    for way, words in _WAYS.items():
        mean = float(pairs["barrier"].sel(line=way).mean())
        yield Fact(f"barrier, {words}", number(mean), "of the loss that training takes away")


def _parts(run: Run, pairs: xr.Dataset) -> Iterator[Part]:
    yield Picture(
        "connectivity_ways",
        "Training loss along three ways between two networks",
        "Thin: each pair, thick: their mean. "
        + measured(run, *(f"connectivity/{name}" for name in ("curve", "alignment", "one-basin"))),
        _ways(pairs),
    )
    yield Picture(
        "connectivity_barriers",
        "Barriers of all pairs, and of the controls",
        "A dot a pair; bars are means. The broken line is what claims allow; what has no barrier "
        f"stands at {_LEAST:g}. "
        + measured(run, *(f"connectivity/{name}" for name in ("copies", "permuted-copy"))),
        _barriers(pairs),
    )
    if run.has_result(TREE):
        yield _tree(run.result(TREE))
    yield _table(pairs)
    if run.has_result(KNOWN):
        yield _known(run, run.result(KNOWN))


def _ways(pairs: xr.Dataset) -> Figure:
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    axes = figure.add_subplot()
    t = pairs["t"].values
    for color, (way, words) in zip(COLORS, _WAYS.items(), strict=False):
        losses = pairs[f"loss_{way}"].values
        losses = losses[np.isfinite(losses).all(1)]
        if len(losses):
            axes.plot(t, losses.T, color=color, linewidth=0.7, alpha=0.4)
            axes.plot(t, losses.mean(0), color=color, linewidth=2.2, label=words)
    axes.set_xlabel("share of the way")
    axes.set_ylabel("training loss")
    axes.set_yscale("log")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _barriers(pairs: xr.Dataset) -> Figure:
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    axes = figure.add_subplot()
    lines = [line for line in _LINES if np.isfinite(pairs["barrier"].sel(line=line)).all()]
    for place, line in enumerate(reversed(lines)):
        barriers = np.maximum(pairs["barrier"].sel(line=line).values, _LEAST)
        color = COLORS[1] if "control" in _LINES[line] else COLORS[0]
        axes.plot(barriers, np.full(len(barriers), place), "o", color=color, alpha=0.6)
        axes.plot([barriers.mean()] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2)
    axes.axvline(0.05, color="0.5", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(lines)), [_LINES[line] for line in reversed(lines)])
    axes.set_xscale("log")
    axes.set_xlabel("barrier, as a share of the loss that training takes away")
    return figure


def _tree(tree: xr.Dataset) -> Picture:
    here = set(tree["way"].values.tolist())
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    grid = figure.subplots(1, len(_PASSES), sharey=True)
    values = tree["value"].values
    labels = [f"{'ABCDEFGHIJ'[i // 2 % 10]}{i % 2 + 1}" for i in range(len(values))]
    for axes, (words, ways) in zip(grid, _PASSES.items(), strict=True):
        lowest = tree["passes"].sel(way=[way for way in ways if way in here]).min("way").values
        plot_disconnectivity(
            values, merge_levels(lowest), labels=labels, ylabel="training loss", ax=axes
        )
        axes.set_yscale("log")
        axes.set_title(words, fontsize="medium")
        axes.set_xlabel("network")
        axes.label_outer()
    return Picture(
        "connectivity_tree",
        "At which loss networks join",
        "Two copies (1, 2) each of several networks (A, B, ...) on one draw of samples hang from "
        "the level at which they join others, by way of any others: by straight lines, by lines "
        "to networks brought into one order, and by curves. A pass that was found bounds the "
        "lowest one from above.",
        figure,
    )


def _table(pairs: xr.Dataset) -> Table:
    lines = [line for line in _LINES if line in pairs["line"].values]
    rows = [
        (
            f"{int(pair)}",
            number(float(mine["loss_end"])),
            *(number(float(mine["barrier"].sel(line=line))) for line in lines),
        )
        for pair in pairs["pair"].values
        for mine in [pairs.sel(pair=pair)]
    ]
    head = ("pair", "training loss", *(_LINES[line] for line in lines))
    return Table(
        "Barriers of every pair, as shares of the loss that training takes away",
        head,
        rows,
        words=1,
    )


def _known(run: Run, known: xr.Dataset) -> Table:
    rows = []
    for landscape in dict.fromkeys(known["landscape"].values.tolist()):
        mine = known.isel(case=known["landscape"].values == landscape)
        cells = (number(float(mine[name].mean())) for name in ("straight", "curve"))
        rows.append((landscape, f"{mine.sizes['case']}", *cells))
    return Table(
        "The same search where the answer is known",
        ("landscape", "draws", "barrier of the line", "of the curve"),
        rows,
        words=1,
        note="Basins on a plain: no way between them is lower than the plain, a barrier of 1. One "
        "winding valley: a curve along it has none. " + measured(run, "connectivity/known-case"),
    )
