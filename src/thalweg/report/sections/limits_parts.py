"""What is left of perturbations in the limit: its picture and tables, beside the naive reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Table
from thalweg.plots.palette import COLORS
from thalweg.report.measured import measured
from thalweg.run import Run
from thalweg.studies.displacement import ELSEWHERE
from thalweg.studies.known_landscapes import KNOWN
from thalweg.studies.limits import RESOLUTION
from thalweg.studies.returns import MAIN, NARROW, PARENT, SIBLINGS, SQUARED
from thalweg.studies.shares import TOP

if TYPE_CHECKING:
    import xarray as xr

LIMITS, PATHS = "perturb_and_return/limits", "perturb_and_return/paths"
_WORDS = {
    MAIN: "the network, as the run trains it",
    NARROW: "a narrow network, its parent never at zero error",
    SQUARED: "networks with more weights than equations, zeros of the squared loss",
    **{name: known.words for name, known in KNOWN.items()},
}
_BANDS = ("top", "slow", "flat")
_TEXT: dict[str, Any] = {"ha": "left", "va": "bottom", "fontsize": "small", "color": "#555555"}


def limit_facts(limits: xr.Dataset) -> Iterator[Fact]:
    """Give the bounds of the network and of zeros of the squared loss."""
    for name, label in ((SQUARED, "at zeros of the squared loss"), (MAIN, "as the run trains it")):
        from_parent = _pairs_of(limits, name, PARENT)
        if from_parent.sizes["pair"]:
            low, high = (float(from_parent[key].mean()) for key in ("low", "high"))
            condition = float(from_parent["condition"].min())
            yield Fact(
                f"of the perturbation left in the limit, {label}",
                f"{number(low)} to {number(high)}",
                f"bowls up to condition number {number(condition)} are excluded",
            )


def limit_parts(run: Run, copies: xr.Dataset) -> Iterator[Part]:
    """Give the picture of the flows, and the tables of bounds and of shares."""
    if run.has_result(PATHS):
        yield Picture(
            "limits",
            "Left in the limit of ever longer training",
            "Distance from the parent along the gradient flow, in lengths of the perturbation. A "
            "bowl, however slow, closes it in the end; a flat direction never does. Each line is "
            "a copy. "
            + measured(run, "perturb_and_return/flat-squared", "perturb_and_return/apart-squared"),
            _paths(run.result(PATHS)),
        )
    if run.has_result(LIMITS):
        limits = run.result(LIMITS)
        yield _bounds(limits, copies)
        yield _shares(limits)


def _pairs_of(limits: xr.Dataset, landscape: str, kind: str) -> xr.Dataset:
    chosen = (limits["landscape"].values == landscape) & (limits["between"].values == kind)
    return limits.isel(pair=chosen)


def _names(limits: xr.Dataset) -> list[str]:
    present = set(limits["landscape"].values.tolist())
    return [name for name in _WORDS if name in present]


def _paths(paths: xr.Dataset) -> Figure:
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    ax = figure.add_subplot()
    for color, name in zip(COLORS, _names(paths), strict=False):
        of_landscape = paths.isel(record=paths["landscape"].values == name)
        label: str | None = _WORDS[name]
        for copy in dict.fromkeys(of_landscape["copy"].values.tolist()):
            path = of_landscape.isel(record=of_landscape["copy"].values == copy)
            later = path["time"].values > 0
            times, shares = path["time"].values[later], path["left"].values[later]
            ax.plot(times, shares, color=color, linewidth=1.2, label=label)
            label = None
    ax.axhline(ELSEWHERE, color="#555555", linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    ax.set_xlim(left=1e-2)
    ax.text(1.3e-2, ELSEWHERE, "the rule's threshold", **_TEXT)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("time of the gradient flow (one over the largest curvature)")
    ax.set_ylabel("distance from the parent\n(lengths of the perturbation)")
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize="small")
    return figure


def _bounds(limits: xr.Dataset, copies: xr.Dataset) -> Table:
    rows = []
    for name in _names(limits):
        from_parent, siblings = (_pairs_of(limits, name, kind) for kind in (PARENT, SIBLINGS))
        back = (
            f"{int(from_parent['back'].values.astype(bool).sum())} of {from_parent.sizes['pair']}"
        )
        means = [number(float(from_parent[key].mean())) for key in ("left", "low", "high")]
        apart = number(float(siblings["low"].mean())) if siblings.sizes["pair"] else "–"
        condition = number(float(from_parent["condition"].min()))
        rows.append(
            (_WORDS[name], _naive(from_parent, copies, name), back, *means, apart, condition)
        )
    return Table(
        "What is left of the perturbation: the paper's reading, and bounds for the limit of ever "
        "longer training (means of copies and parents, in lengths of the perturbation)",
        (
            "landscape",
            "paper's reading",
            "back",
            "left",
            "at least",
            "at most",
            "siblings",
            "bowls",
        ),
        rows,
        words=2,
        note="The paper's reading, copies that return and are at least half of the perturbation "
        "away after a training of fixed length, cannot tell a valley from a bowl with few steep "
        "directions and many that are slow: it finds the same in both. The bounds can: at least "
        f"and at most what is left where every curvature that counts is {RESOLUTION:g} of the "
        "largest or more, nothing of a copy that is not back. Siblings: at least so much is left "
        "between two copies. Bowls: condition numbers up to which no bowl holds the two points at "
        "their losses.",
    )


def _naive(limits: xr.Dataset, copies: xr.Dataset, name: str) -> str:
    if "naive_hits" in limits and np.isfinite(limits["naive_hits"].values[0]):
        hits, of = (int(limits[f"naive_{key}"].values[0]) for key in ("hits", "copies"))
        return f"{hits} of {of}, siblings {float(limits['naive_apart'].values[0]):.2f}"
    if name not in (MAIN, NARROW):
        return "–"
    chosen = copies.isel(
        member=(copies["network"].values == name)
        & (copies["moment"].values == "final")
        & (copies["optimizer"].values == "sgd")
    )
    hits = int((chosen["returned"].values & chosen["elsewhere"].values).sum())
    return f"{hits} of {chosen.sizes['member']}"


def _shares(limits: xr.Dataset) -> Table:
    rows = []
    for name in _names(limits):
        from_parent = _pairs_of(limits, name, PARENT)
        if "noise_top_low" not in from_parent:
            continue
        from_parent = from_parent.isel(pair=np.isfinite(from_parent["noise_top_low"].values))
        if from_parent.sizes["pair"]:
            rows += [_split(from_parent, name, of) for of in ("noise", "left")]
    return Table(
        "Along which curvatures the displacement lies: shares of its squared length at the parent",
        (
            "landscape",
            "displacement",
            "top eigenspace",
            "slow",
            "flat",
            "mean curvature",
            "certified",
        ),
        rows,
        words=2,
        note=f"Top eigenspace: curvatures of at least {TOP:g} of the largest; flat: less than "
        f"{RESOLUTION:g} of it; slow: between. Ranges are bounds by Chebyshev, Markov and "
        "Stieltjes from few Lanczos steps; single numbers are exact. Mean curvature: of the "
        "displacement, as a share of the largest. Certified: the flat share of all dimensions that "
        "counting gives, weights less equations.",
    )


def _split(limits: xr.Dataset, name: str, of: str) -> tuple[str, ...]:
    bands = [_range(limits, f"{of}_{band}") for band in _BANDS]
    words = "after the noise" if of == "noise" else "at the end"
    curvature = number(float(limits[f"{of}_curvature"].mean()))
    return (_WORDS[name], words, *bands, curvature, _certified(limits, name))


def _certified(limits: xr.Dataset, name: str) -> str:
    if name in KNOWN:
        return number(KNOWN[name].flat / len(KNOWN[name].curvatures))
    if name != SQUARED:
        return "–"
    weights, equations = (float(limits[key].values[0]) for key in ("weights", "equations"))
    return number(max(0.0, 1 - equations / weights))


def _range(limits: xr.Dataset, name: str) -> str:
    ends: list[Any] = [float(limits[f"{name}_{end}"].mean()) for end in ("low", "high")]
    if ends[1] - ends[0] < 1e-4:
        return f"{ends[0]:.3f}"
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
