"""``thalweg flatness``: how flat the loss is around each of several checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thalweg.measurements.checkpoint_rows import short_names
from thalweg.measurements.checkpoint_tasks import measure_checkpoint, measure_each
from thalweg.measurements.options import option
from thalweg.measurements.parts import Fact, Section, Table
from thalweg.measurements.record import Job, Measurement, cell
from thalweg.measurements.told import UNITS_AN_EPOCH
from thalweg.run import Report, Run

if TYPE_CHECKING:
    import xarray as xr

RESULT = "flatness/measures"
# Gradients and products of all measures, roughly, in epochs of training.
_EPOCHS = 400


@dataclass(frozen=True)
class Options:
    """What `thalweg.flatness` takes."""

    noise: float = option(0.05, "Size of noise, relative to the weights.")
    radius: float = option(0.01, "Distance of the worst direction, relative to the weights.")
    rise: float = option(0.1, "Rise of the loss that noise may bring.")
    error_rise: float = option(0.01, "Rise of the error, as a share of samples.")
    pairs: int = option(20, "Pairs of noise in a mean.", least=2)
    copies: int = option(20, "Noisy copies of a level.", least=6)
    seed: int = option(0, "Seed of all that is random.", least=0)


def perform(job: Job) -> dict[str, Any]:
    """Measure each checkpoint in a task of its own."""
    answers = measure_each(job, measure_flatness, "flatness", units=_EPOCHS * UNITS_AN_EPOCH)
    job.run.save_result(RESULT, dataset(answers))
    return {"checkpoints": answers}


def measure_flatness(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take all measures at one checkpoint, in a worker."""
    from thalweg.measurements.bounded_flatness import flatness

    return measure_checkpoint(run, arguments, report, flatness, units=UNITS_AN_EPOCH)


def dataset(answers: list[dict[str, Any]]) -> xr.Dataset:
    """Label measures by checkpoint, name and form: NaN where a measure has no such number."""
    import numpy as np
    import xarray as xr

    first = answers[0]["measures"]
    numbers = {
        key: np.array([[_float(m[key]) for m in answer["measures"]] for answer in answers])
        for key in ("value", "low", "high", "stderr")
    }
    words = {key: [str(m[key]) for m in first] for key in ("name", "form", "flatter")}
    words["invariant"] = [", ".join(m["invariant"]) for m in first]
    status = [[str(m["status"]) for m in answer["measures"]] for answer in answers]
    return xr.Dataset(
        {
            **{key: (("checkpoint", "measure"), table) for key, table in numbers.items()},
            "status": (("checkpoint", "measure"), status),
            "loss": ("checkpoint", [answer["value"] for answer in answers]),
        },
        coords={
            "checkpoint": [answer["checkpoint"]["file"] for answer in answers],
            **{key: ("measure", column) for key, column in words.items()},
        },
        attrs={**answers[0]["described"], **answers[0]["settings"]},
    )


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def lines(found: dict[str, Any]) -> list[str]:
    """Write a row a measure for each checkpoint."""
    return [line for answer in found["checkpoints"] for line in _lines(answer)]


def _lines(answer: dict[str, Any]) -> list[str]:
    rows = [f"{answer['checkpoint']['file']}: loss {answer['value']:.5g}"]
    rows += [f"  - {note}" for note in answer["checkpoint"]["notes"]]
    heads = f"{'measure':<12} {'units':<9} {'value':>10} {'from':>10} {'to':>10}"
    rows.append(f"{heads}  {'flatter is':<10} {'status':<13} invariant under")
    for measure in answer["measures"]:
        numbers = " ".join(f"{cell(measure[key]):>10}" for key in ("value", "low", "high"))
        rows.append(
            f"{measure['name']:<12} {measure['form']:<9} {numbers}  {measure['flatter']:<10}"
            f" {measure['status']:<13} {', '.join(measure['invariant'])}"
        )
    notes = {measure["note"]: measure["name"] for measure in answer["measures"] if measure["note"]}
    return [*rows, *(f"  {name}: {note}" for note, name in notes.items())]


def section(run: Run) -> Section | None:
    """Give a table of all measures, a column for each checkpoint."""
    if not run.has_result(RESULT):
        return None
    data = run.result(RESULT)
    names = list(short_names(data["checkpoint"].values))
    rows = [
        (
            str(data["name"].values[j]),
            str(data["form"].values[j]),
            str(data["flatter"].values[j]),
            "yes" if "rescaling" in str(data["invariant"].values[j]) else "no",
            *(_with_interval(data.isel(checkpoint=i, measure=j)) for i in range(len(names))),
        )
        for j in range(data.sizes["measure"])
    ]
    head = ("measure", "units", "flatter is", "invariant under rescaling", *names)
    note = (
        "Intervals of 95%: over noise, over random vectors, of an eigenvalue its error; of the"
        " worst direction from the rise that was found to one that no direction exceeds, where"
        " that is proved. A value that is not invariant changes where one layer is"
        " multiplied and the next divided, though the network computes the same."
    )
    facts = [
        Fact(f"loss of {name}", f"{float(data['loss'][i]):.4g}") for i, name in enumerate(names)
    ]
    return Section(
        name="flatness",
        title="Flatness",
        lead="How far the loss rises around each checkpoint, in units of all weights, of each, and"
        " of each filter.",
        facts=facts,
        parts=[Table("Measures of flatness", head, rows, words=4, note=note)],
    )


def _with_interval(here: xr.Dataset) -> str:
    value, low, high = (float(here[key]) for key in ("value", "low", "high"))
    if low != low:
        return f"{value:.4g}"
    ends = f"from {low:.3g}" if high != high else f"{low:.3g}, {high:.3g}"
    return f"{value:.4g} ({ends})"


RECORD = Measurement(
    name="flatness",
    question="Measure how flat the loss is around checkpoints, in plain and in relative units.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    checkpoints=(1, None),
    answer=lambda _, found: {"checkpoints": found["checkpoints"]},
)
