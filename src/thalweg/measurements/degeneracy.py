"""``thalweg degeneracy``: rank and nullity of the outputs' Jacobian at a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thalweg.measurements.checkpoint_tasks import measure_checkpoint, measure_each
from thalweg.measurements.options import option
from thalweg.measurements.parts import Fact, Section, Table
from thalweg.measurements.record import Job, Measurement, every_field, one_or_several
from thalweg.measurements.told import UNITS_AN_EPOCH
from thalweg.run import Report, Run

if TYPE_CHECKING:
    import xarray as xr

RESULT = "nullity/points"
_COUNTS = ("weights", "equations", "rank", "rank_low", "rank_high", "nullity")


@dataclass(frozen=True)
class Options:
    """What `thalweg.degeneracy` takes."""

    probes: int = option(10, "Random vectors, where eigenvalues are too many to list.", least=2)
    steps: int = option(60, "Products with each of them.", least=2)
    seed: int = option(0, "Seed of all that is random.", least=0)


def perform(job: Job) -> dict[str, Any]:
    """Measure each checkpoint in a task of its own."""
    answers = measure_each(job, measure_degeneracy, "degeneracy", units=UNITS_AN_EPOCH)
    job.run.save_result(RESULT, dataset(answers))
    return {"checkpoints": answers}


def measure_degeneracy(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure one checkpoint, in a worker."""
    from thalweg.geometry import degeneracy

    return measure_checkpoint(run, arguments, report, degeneracy)


def dataset(answers: list[dict[str, Any]]) -> xr.Dataset:
    """Label ranks, and directions by what explains them, by checkpoint."""
    import xarray as xr

    kinds = list(answers[0]["split"])
    split = [[answer["split"].get(kind, 0) for kind in kinds] for answer in answers]
    return xr.Dataset(
        {
            **{name: ("checkpoint", [answer[name] for answer in answers]) for name in _COUNTS},
            "split": (("checkpoint", "kind"), split, {"units": "directions"}),
            "clear": ("checkpoint", [answer["clear"] for answer in answers]),
        },
        coords={"checkpoint": [answer["checkpoint"]["file"] for answer in answers], "kind": kinds},
        attrs=answers[0]["described"] | {"method": answers[0]["method"]},
    )


def section(run: Run) -> Section | None:
    """Give a table of what explains the kernel, a column for each checkpoint."""
    if not run.has_result(RESULT):
        return None
    data = run.result(RESULT)
    files = [str(name).rpartition("/")[2] for name in data["checkpoint"].values]
    rows = [
        (str(kind), *(f"{int(n):,}" for n in data["split"].sel(kind=kind).values))
        for kind in data["kind"].values
        if data["split"].sel(kind=kind).values.any()
    ]
    facts = [_fact(name, data.isel(checkpoint=i)) for i, name in enumerate(files)]
    clear = all(bool(c) for c in data["clear"].values)
    gap = "" if clear else " The eigenvalues leave no clear gap at the threshold."
    return Section(
        name="degeneracy",
        title="Degeneracy",
        lead="Directions of the weights that change no output on the data to first order, and what"
        " explains them.",
        facts=facts,
        parts=[
            Table(
                "The kernel of the outputs' Jacobian",
                ("directions by what explains them", *files),
                rows,
                note=f"Kinds are counted one after the other, none twice.{gap}",
            )
        ],
    )


def _fact(name: str, here: xr.Dataset) -> Fact:
    weights, nullity = int(here["weights"]), int(here["nullity"])
    low, high = weights - int(here["rank_high"]), weights - int(here["rank_low"])
    note = f"of {weights:,} weights; {low:,} to {high:,}"
    return Fact(f"flat directions at {name}", f"{nullity:,}", note)


RECORD = Measurement(
    name="degeneracy",
    question="Measure rank and nullity of the outputs' Jacobian, and what explains the nullity.",
    options=Options,
    perform=perform,
    lines=every_field,
    section=section,
    results=(RESULT,),
    batchnorm="batch",
    checkpoints=(1, None),
    answer=one_or_several,
)
