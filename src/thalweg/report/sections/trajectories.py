"""The global picture: where trainings go in weight space, and how faithfully that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.measurements.figures import embedding_still
from thalweg.measurements.formatting import count, listing, number, percent, span
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import curves_figure, embedding_figure, height_figure
from thalweg.plots.interactive.curves import panels_of
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import trajectories
from thalweg.plots.positions import losses
from thalweg.report.about import summary, weight_count
from thalweg.report.figures import (
    curves_still,
    height_still,
    layers_still,
    stress_still,
)
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

EMBEDDING, CURVES = RESULTS = ("trajectories/embedding", "trajectories/curves")

_WEIGHT_SPACE = (
    "Distances in the picture stand for Euclidean distances between weight vectors, not between "
    "the functions they compute: networks far apart here can agree on every input, as two do that "
    "differ by the order of their hidden units."
)


def section(run: Run) -> Section | None:
    """Give what the study of trajectories found; None if the run holds nothing of it."""
    embedding, curves = (run.result(r) if run.has_result(r) else None for r in RESULTS)
    if embedding is None and curves is None:
        return None
    summarized = summary(run).get("trajectories", {})
    if embedding is not None and curves is not None:
        embedding = _with_moments(embedding, curves)
    parts: list[Part] = []
    if embedding is not None:
        parts += _embedding_parts(embedding, weight_count(run))
    if curves is not None:
        parts += _curve_parts(curves)
    if embedding is not None:
        parts += _stress_parts(embedding)
    if summarized.get("trajectories"):
        parts.append(_finals(summarized["trajectories"], _parents(curves, summarized)))
    return Section(
        name="trajectories",
        title="Where training leads",
        lead="Networks trained from several seeds, and copies of one of them that were perturbed "
        "on the way and trained on, in one picture of weight space.",
        facts=list(_facts(summarized, curves, embedding)),
        parts=parts,
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _with_moments(embedding: xr.Dataset, curves: xr.Dataset) -> xr.Dataset:
    """Tell the embedding at which moment each trajectory branched, which only the curves know."""
    if "moment" not in curves or "trajectory" not in embedding or "moment" in embedding:
        return embedding
    pairs = zip(curves["trajectory"].values, curves["moment"].values, strict=True)
    moments = {str(name): str(moment) for name, moment in pairs}
    column = [moments.get(str(name), "") for name in embedding["trajectory"].values]
    return embedding.assign_coords(moment=("checkpoint", column))


def _parents(curves: xr.Dataset | None, summarized: dict[str, Any]) -> dict[str, str]:
    if curves is None:
        return dict.fromkeys(summarized.get("trajectories", {}), "")
    pairs = zip(curves["trajectory"].values, curves["parent"].values, strict=True)
    return {str(name): str(parent) for name, parent in pairs}


def _facts(
    summarized: dict[str, Any], curves: xr.Dataset | None, embedding: xr.Dataset | None
) -> Iterator[Fact]:
    finals, parents = summarized.get("trajectories", {}), _parents(curves, summarized)
    trunks = [final for name, final in finals.items() if not parents.get(name)]
    branches = [final for name, final in finals.items() if parents.get(name)]
    if "zero_error_seeds" in summarized and trunks:
        value = f"{summarized['zero_error_seeds']} of {len(trunks)}"
        yield Fact("seeds that reached zero training error", value)
    back = [final for final in branches if "error" in final]
    if back:
        zero = sum(final["error"] == 0 for final in back)
        yield Fact("perturbed copies that reached it", f"{zero} of {len(back)}")
    tests = [final["test_error"] for final in trunks if "test_error" in final]
    if tests:
        mean = f"mean of {count(len(tests), 'seed')}: {percent(float(np.mean(tests)))}"
        yield Fact("final test error", span(tests), mean if len(set(tests)) > 1 else "")
    if embedding is not None:
        stress = float(embedding["stress"].values[0])
        yield Fact("stress of the picture", number(stress), "0: every distance shown right")


def _embedding_parts(embedding: xr.Dataset, weights: int | None) -> Iterator[Part]:
    layers = [str(name) for name in embedding["layer"].values]
    whole = layers[0]
    measured = losses(embedding)
    caption, marks = _what_is_drawn(embedding, weights), _how_marked(embedding)
    note = "" if measured is None else log_scale(measured).note
    choice = " On screen, the menu shows each layer by itself." if len(layers) > 1 else ""
    yield Picture(
        "embedding",
        "The picture of training",
        " ".join(filter(None, [caption + choice, marks, note, _WEIGHT_SPACE])),
        embedding_still(embedding),
        embedding_figure(embedding),
    )
    if measured is not None:
        yield _height(embedding, whole, note)
    if len(layers) > 1:
        yield _layers(embedding, layers[1:])


def _what_is_drawn(embedding: xr.Dataset, weights: int | None) -> str:
    shown = [trajectory for trajectory in trajectories(embedding, "checkpoint") if trajectory.name]
    branches = [trajectory for trajectory in shown if trajectory.parent]
    moments = list(dict.fromkeys(trajectory.moment for trajectory in branches if trajectory.moment))
    size = "" if weights is None else f" of {weights:,} weights"
    text = f"{count(embedding.sizes['checkpoint'], 'checkpoint')} of a network{size}"
    if shown:
        text += f", from {count(len(shown) - len(branches), 'training')}"
    if branches:
        at = f" at {listing(moments)} moments" if moments else ""
        text += (
            f" and {count(len(branches), 'perturbed copy', 'perturbed copies')} branched off{at}"
        )
    method = embedding.attrs.get("method", "an embedding")
    return f"{text}. Placed by {method}; one unit is a Euclidean distance of 1 between weights."


def _how_marked(embedding: xr.Dataset) -> str:
    dark = "" if losses(embedding) is None else " Dark points have a low training loss."
    if "trajectory" not in embedding:
        return dark.strip()
    lines = "A line joins the checkpoints of one training, with a ring at its start and an open "
    return (
        f"{lines}square at its end; branches are broken lines in the colour of their trunk.{dark}"
    )


def _height(embedding: xr.Dataset, layer: str, note: str) -> Picture:
    places = embedding["position"].sel(layer=layer).transpose("checkpoint", "dim").values
    spread = (places**2).sum(axis=0)
    share = f"{100 * spread[:2].sum() / spread.sum():.0f} %" if spread.sum() > 0 else "all"
    return Picture(
        "height",
        "The loss as height",
        f"The first two axes of the same picture, which hold {share} of its spread, with the "
        f"training loss as height on a logarithmic scale. {note} Only the points were measured; "
        "between them nothing is known of the loss.",
        height_still(embedding),
        height_figure(embedding, layer=layer),
    )


def _layers(embedding: xr.Dataset, layers: list[str]) -> Picture:
    ranked = sorted(layers, key=lambda layer: float(embedding["stress"].sel(layer=layer)))
    return Picture(
        "embedding_layers",
        "Layer by layer",
        f"Each layer embedded by the distances of its own weights; the first two axes. Layer "
        f"{ranked[0]} "
        f"is shown best, layer {ranked[-1]} worst. Scales and axes differ from panel to panel: "
        "only distances within a panel compare.",
        layers_still(embedding, layers),
    )


def _curve_parts(curves: xr.Dataset) -> Iterator[Part]:
    panels = panels_of(curves)
    if not panels:
        return
    against = "epoch" if np.isfinite(curves["epoch"].values).any() else "step"
    notes = [log_scale(curves[name].values).note for name in panels if name.endswith("loss")]
    tests = "" if "test_loss" in panels else " No test samples were measured."
    start = _branch_start(curves, against)
    yield Picture(
        "curves",
        "Training curves",
        f"Every training against its {against}, losses on logarithmic axes; test figures are drawn "
        f"where they were measured.{tests}{start} {' '.join(filter(None, notes))}".strip(),
        curves_still(curves, panels, against),
        curves_figure(curves, against=against),
    )


def _branch_start(curves: xr.Dataset, against: str) -> str:
    first = curves[against].values[curves["parent"].values != ""]
    if first.size and np.nanmin(first) == np.nanmin(curves[against].values):
        return f" Branches count their own {against}s, from the perturbation."
    return ""


def _stress_parts(embedding: xr.Dataset) -> Iterator[Part]:
    whole = embedding.isel(layer=0)
    worst = int(np.nanargmin(np.nan_to_num(whole["fidelity"].values, nan=np.inf)))
    where = f"checkpoint {worst}"
    if "trajectory" in whole and str(whole["trajectory"].values[worst]):
        where = f"{whole['trajectory'].values[worst]} at step {int(whole['step'].values[worst])}"
    yield Picture(
        "stress",
        "How faithful the picture is",
        "Left: Kruskal's stress-1, the root mean square error of the shown distances relative to "
        "the distances themselves, with Kruskal's words for it. Right: for each checkpoint (ticks; "
        "dot: their median) the correlation of its shown distances with its true ones. The "
        f"checkpoint of the whole network shown worst is {where}, with a fidelity of "
        f"{number(float(whole['fidelity'].values[worst]))}.",
        stress_still(embedding),
    )
    yield Table(
        "Stress and fidelity",
        ("layer", "stress-1", "median fidelity", "lowest fidelity"),
        [_faithful(embedding.isel(layer=i)) for i in range(embedding.sizes["layer"])],
    )


def _faithful(layer: xr.Dataset) -> tuple[str, ...]:
    fidelity = layer["fidelity"].values
    measured = fidelity[np.isfinite(fidelity)]
    figures = (np.median(measured), measured.min()) if measured.size else (np.nan, np.nan)
    values = (float(layer["stress"]), *map(float, figures))
    return (str(layer["layer"].values), *map(number, values))


def _finals(finals: dict[str, dict[str, Any]], parents: dict[str, str]) -> Table:
    columns = ("loss", "error", "test_loss", "test_error")
    rows = [
        (
            name,
            parents.get(name) or "a seed of its own",
            str(final.get("status", "")),
            f"{final['steps']:,}" if "steps" in final else "–",
            *(number(final.get(column)) for column in columns),
        )
        for name, final in finals.items()
    ]
    heads = ("trajectory", "from", "ended", "steps", "loss", "error", "test loss", "test error")
    return Table("Where each training ended", heads, rows, words=3)
