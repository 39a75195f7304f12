"""Which model of basins networks fit: profiles over scales, posterior, checks, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.basins import FAMILIES
from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots.palette import COLORS
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

FITS, PROFILES, MEMORIES, PREDICTIVE = RESULTS = tuple(
    f"basins/{name}" for name in ("fits", "profiles", "memories", "predictive")
)
NETWORKS = "networks"
_SHOWN = {
    "returned": "share of children that return",
    "sibling_barrier": "barrier between siblings",
    "cousin_barrier": "barrier between cousins",
}
_BESIDE = ("valley", "basins", "tree")
# Barriers between this and its negative are drawn on a linear scale, larger ones on a logarithmic.
_LINEAR = 1e-3


def section(run: Run) -> Section | None:
    """Give what the study found; None if the run holds nothing of it."""
    if not run.has_result(FITS):
        return None
    fits = run.result(FITS)
    return Section(
        name="basins",
        title="One valley, basins side by side, or basins inside basins",
        lead="Networks are trained, perturbed at two moments and six scales, trained on, and "
        "perturbed again. What comes of it is compared with the same protocol on six families of "
        "landscapes that can be simulated; none of them is an answer, too.",
        facts=list(_facts(run, fits)),
        parts=list(_parts(run, fits)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _networks(data: xr.Dataset, dim: str) -> xr.Dataset:
    return data.isel({dim: data["kind"].values == NETWORKS})


def _facts(run: Run, fits: xr.Dataset) -> Iterator[Fact]:
    own = _networks(fits, "signature")
    answers = own["family"].values.tolist()
    most = max(dict.fromkeys(answers), key=answers.count)
    yield Fact("the answer", most, f"{answers.count(most)} of {len(answers)} signatures")
    shares = own["posterior"].mean("signature")
    best = str(shares["among"].values[int(shares.values.argmax())])
    yield Fact(f"posterior of {best}", number(float(shares.max())), "if it is one of the six")
    yield Fact("misfit", number(float(own["misfit"].median())), "median; none below 0.05")
    if run.has_result(MEMORIES):
        nested = _networks(run.result(MEMORIES), "set")["nested"].values
        yield Fact("basins inside basins", f"{int(nested.sum())} of {len(nested)}", "widths")


def _parts(run: Run, fits: xr.Dataset) -> Iterator[Part]:
    if run.has_result(PROFILES):
        yield Picture(
            "basins_profiles",
            "What perturbations do, by their scale",
            "Networks of each width, and simulated landscapes of three families (one set of "
            "parameters each); bars are standard errors by parent. A child returns where the line "
            "to its parent has no barrier; barriers are shares of the loss that training takes "
            f"away, linear up to {_LINEAR:g}; below zero where lines lie below the chord.",
            _profiles(run.result(PROFILES)),
        )
    yield Picture(
        "basins_posterior",
        "Which family a signature is of",
        "Rows: signatures of networks, four on each draw of samples, and of landscapes of which "
        "the family is known. Darker: more of the posterior, which adds up to 1 among the six. A "
        "cross: the best family does not fit, so that the answer is none of them. "
        + measured(
            run, *(f"basins/{name}" for name in ("side-by-side", "one-valley", "described"))
        ),
        _posteriors(fits),
    )
    if run.has_result(PREDICTIVE):
        yield _checks(run.result(PREDICTIVE))
    if run.has_result(MEMORIES):
        yield Picture(
            "basins_memory",
            "Lines of descent that remember where they began",
            "Barrier of siblings after one long step minus that of cousins after as long a way in "
            "short steps, at equal distance. Filled: more than chance by permutation. Two filled "
            "points, a factor of 4 apart and an open one between, are basins inside basins. "
            + measured(run, "basins/inside-basins"),
            _memories(run.result(MEMORIES)),
        )
    yield _table(fits)


def _named(kind: str, rung: int) -> str:
    return f"networks, width {rung + 1}" if kind == NETWORKS else f"{kind} {rung + 1}"


def _profiles(profiles: xr.Dataset) -> Figure:
    figure = Figure(figsize=(9.5, 3.7), layout="constrained")
    grid = figure.subplots(1, len(_SHOWN))
    kinds, rungs = profiles["kind"].values, profiles["rung"].values
    shown = [i for i, kind in enumerate(kinds) if kind == NETWORKS]
    shown += [int(np.flatnonzero(kinds == family)[0]) for family in _BESIDE if family in kinds]
    for axes, (variable, label) in zip(grid, _SHOWN.items(), strict=True):
        for color, i in zip(COLORS, shown, strict=False):
            line = profiles.isel(set=i)
            known = kinds[i] != NETWORKS
            axes.errorbar(
                line["scale"].values,
                line[variable].values,
                line[f"{variable}_stderr"].values,
                color=color,
                marker="o",
                markersize=3,
                linestyle="--" if known else "-",
                linewidth=1.2,
                label=str(kinds[i]) if known else _named(str(kinds[i]), int(rungs[i])),
            )
        _scale_axis(axes, profiles["scale"].values)
        axes.set_xlabel("scale of the noise")
        axes.set_title(label, fontsize="medium")
        if variable != "returned":
            axes.set_yscale("symlog", linthresh=_LINEAR)
            axes.axhline(0, color="0.6", linewidth=0.8)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _posteriors(fits: xr.Dataset) -> Figure:
    order = [*np.flatnonzero(fits["kind"].values == NETWORKS)]
    order += [i for i, kind in enumerate(fits["kind"].values) if kind != NETWORKS]
    rows = fits.isel(signature=order)
    figure = Figure(figsize=(7.5, 0.14 * len(order) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rows["posterior"].values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="posterior")
    _cross_out(axes, rows)
    kinds = [
        _named(str(kind), int(rung)) if kind == NETWORKS else str(kind)
        for kind, rung in zip(rows["kind"].values, rows["rung"].values, strict=True)
    ]
    firsts = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    ends = [*firsts[1:], len(kinds)]
    middles = [(first + last - 1) / 2 for first, last in zip(firsts, ends, strict=True)]
    axes.set_yticks(middles, [kinds[i] for i in firsts], fontsize="small")
    for first in firsts[1:]:
        axes.axhline(first - 0.5, color="0.7", linewidth=0.6)
    axes.set_xticks(range(len(FAMILIES)), list(FAMILIES), fontsize="small")
    return figure


def _cross_out(axes: Axes, rows: xr.Dataset) -> None:
    """Mark the best family of signatures that it does not fit."""
    names = list(FAMILIES)
    for i, (best, family) in enumerate(
        zip(rows["best"].values, rows["family"].values, strict=True)
    ):
        if best != family:
            axes.plot(names.index(str(best)), i, "x", color=COLORS[1], markersize=5)


def _checks(checks: xr.Dataset) -> Picture:
    inside = checks["inside"].mean("feature").values
    figure = Figure(figsize=(9.5, 2.6 * len(inside)), layout="constrained")
    grid = figure.subplots(len(inside), 1, sharex=True, squeeze=False)[:, 0]
    place = np.arange(checks.sizes["feature"])
    for axes, rung in zip(grid, range(len(inside)), strict=True):
        mine = checks.isel(rung=rung)
        held = mine["inside"].values.astype(bool)
        axes.vlines(place, mine["low"].values, mine["high"].values, color="0.7", linewidth=3)
        for keep, color in ((held, COLORS[0]), (~held, COLORS[1])):
            axes.plot(place[keep], mine["observed"].values[keep], "o", color=color, markersize=3)
        axes.set_title(f"width {rung + 1}: {inside[rung]:.0%} inside", fontsize="medium")
        axes.set_ylabel("feature")
    _name_figures(grid, [str(name) for name in checks["feature"].values])
    return Picture(
        "basins_predictive",
        "What the best family would give instead",
        "Grey: from the least to the most of signatures simulated with the parameters nearest to "
        "the networks'; dots: the networks, those outside in the second colour. A family that "
        "fits has most inside. Of each figure the scales stand in order, the smallest first; "
        "barriers by logarithms of both signs.",
        figure,
    )


def _name_figures(grid: np.ndarray, features: list[str]) -> None:
    """Part the features by the figure that they are of, and name it below the last axes."""
    # The last two, of parents, have no scales.
    figures = ["parents" if "parents" in name else name.partition(" at ")[0] for name in features]
    firsts = [i for i, name in enumerate(figures) if i == 0 or name != figures[i - 1]]
    for axes in grid:
        for first in firsts[1:]:
            axes.axvline(first - 0.5, color="0.85", linewidth=0.6)
    ends = [*firsts[1:], len(figures)]
    middles = [(first + end - 1) / 2 for first, end in zip(firsts, ends, strict=True)]
    names = [figures[first].replace("_", " ") for first in firsts]
    grid[-1].set_xticks(middles, names, rotation=45, ha="right", fontsize="small")


def _scale_axis(axes: Axes, scales: np.ndarray) -> None:
    """Lay scales out evenly, each by its number."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(scales, [f"{scale:.3g}" for scale in scales], fontsize="small")
    axes.minorticks_off()


def _memories(memories: xr.Dataset) -> Figure:
    kinds = [k for k in (NETWORKS, "tree", "valley", "basins") if k in memories["kind"].values]
    figure = Figure(figsize=(9.5, 3.1), layout="constrained")
    grid = figure.subplots(1, len(kinds), squeeze=False)[0]
    scales = memories["scale"].values
    for axes, kind in zip(grid, kinds, strict=True):
        mine = memories.isel(set=memories["kind"].values == kind)
        for color, i in zip(COLORS, range(mine.sizes["set"]), strict=False):
            difference = mine["difference"].values[i]
            kept = mine["remembered"].values[i].astype(bool)
            axes.plot(scales, difference, color=color, linewidth=1)
            axes.plot(scales[kept], difference[kept], "o", color=color)
            axes.plot(scales[~kept], difference[~kept], "o", color=color, markerfacecolor="white")
        axes.axhline(0, color="0.6", linewidth=0.8)
        _scale_axis(axes, scales)
        axes.set_title(f"{kind}: {int(mine['nested'].sum())} of {mine.sizes['set']}", fontsize=10)
        axes.set_xlabel("scale")
    grid[0].set_ylabel("difference of barriers")
    return figure


def _table(fits: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    kinds = fits["kind"].values
    for kind in (NETWORKS, *dict.fromkeys(k for k in kinds.tolist() if k != NETWORKS)):
        mine = fits.isel(signature=kinds == kind)
        for rung in np.unique(mine["rung"].values):
            own = mine.isel(signature=mine["rung"].values == rung)
            answers = own["family"].values.tolist()
            told = ", ".join(f"{name} {answers.count(name)}" for name in dict.fromkeys(answers))
            shares = [number(float(own["posterior"].sel(among=name).mean())) for name in FAMILIES]
            misfit = number(float(own["misfit"].mean()))
            rows.append((_named(str(kind), int(rung)), told, misfit, *shares))
    head = ("signatures of", "answers", "misfit", *FAMILIES)
    return Table("Families by signature, means over draws", head, rows, words=2)
