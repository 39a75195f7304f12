"""Checkpoints of trainings by their distances: the picture, and how far it can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.measurements.embed import RESULT
from thalweg.measurements.figures import embedding_still
from thalweg.measurements.formatting import count, number
from thalweg.measurements.parts import Fact, Picture, Section, Table
from thalweg.plots import embedding_figure
from thalweg.plots.positions import losses
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr


def section(run: Run) -> Section | None:
    """Give the picture, and the stress of each layer; None where the run holds nothing of it."""
    if not run.has_result(RESULT):
        return None
    data = run.result(RESULT)
    stress = float(data["stress"].values[0])
    return Section(
        name="embed",
        title="Trainings by the distances of their checkpoints",
        lead="Where checkpoints lie to one another in weight space, in few dimensions: what is near"
        " in the picture is near in all weights, as far as the stress is small.",
        facts=[Fact("stress of the picture", f"{stress:.3g}", "0 shows every distance as it is")],
        parts=[_picture(data), _table(data)],
    )


def _picture(data: xr.Dataset) -> Picture:
    flat = data.sizes["dim"] == 2
    dark = "" if losses(data) is None else " Dark points have a low loss."
    choice = "" if flat or data.sizes["layer"] == 1 else " On screen, the menu shows each layer."
    caption = (
        f"{count(data.sizes['checkpoint'], 'checkpoint')}, placed by {data.attrs['method']}; one"
        " unit is a Euclidean distance of 1 between weights. A line joins the checkpoints of one"
        f" training, with a ring at its start and an open square at its end.{dark}{choice}"
    )
    screen = None if flat else embedding_figure(data)
    return Picture("embedding", "The picture of training", caption, embedding_still(data), screen)


def _table(data: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for place in range(data.sizes["layer"]):
        here = data.isel(layer=place)
        longest = number(float(here["distance"].max()))
        shown = (number(float(here["stress"])), number(float(here["fidelity"].min())), longest)
        rows.append((str(here["layer"].values), *shown))
    note = "Fidelity: the least correlation of shown with true distances from one checkpoint."
    head = ("layer", "stress", "least fidelity", "longest distance")
    return Table("How far the picture can be trusted", head, rows, note=note)
