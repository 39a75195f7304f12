"""``thalweg volume``: the log-volume below a level of the loss around checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thalweg.measurements.checkpoint_rows import first_lines, rows_dataset, rows_section
from thalweg.measurements.checkpoint_tasks import measure_checkpoint, measure_each
from thalweg.measurements.options import option
from thalweg.measurements.parts import Section
from thalweg.measurements.record import Job, Measurement, cell, one_or_several
from thalweg.measurements.told import UNITS_AN_EPOCH
from thalweg.run import Report, Run

RESULT = "volume/points"
_NUMBERS = ("value", "low", "high", "radial", "misses", "virial", "rhat")
_PARTS = 6


@dataclass(frozen=True)
class Options:
    """What `thalweg.log_volume` takes."""

    level: float = option(0.1, "Rise of the loss that bounds the set.")
    localization: float = option(
        0.0, "Weighs the volume by a Gaussian around the weights: 1 / its variance."
    )
    chains: int = option(32, "Chains that are drawn side by side.", least=8)
    seed: int = option(0, "Seed of all that is random.", least=0)


def perform(job: Job) -> dict[str, Any]:
    """Measure each checkpoint in a task of its own."""
    answers = measure_each(job, measure_volume, "volume", units=_PARTS * UNITS_AN_EPOCH)
    job.run.save_result(RESULT, rows_dataset(answers, _NUMBERS))
    return {"checkpoints": answers}


def measure_volume(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure one checkpoint, in a worker."""
    from thalweg.geometry import log_volume

    return measure_checkpoint(run, arguments, report, log_volume, units=UNITS_AN_EPOCH)


def section(run: Run) -> Section | None:
    """Give a table with a row for each checkpoint."""
    return rows_section(
        run,
        RESULT,
        _NUMBERS,
        name=RECORD.name,
        title="Log-volume",
        lead="The logarithm of the volume in which the loss stays below a level, in nats, between"
        " two sides.",
        note="The radial estimate is the plain one, from distances along random directions, and"
        " what it misses is the bracket's middle minus it.",
    )


def lines(found: dict[str, Any]) -> list[str]:
    """Write what matters of each checkpoint."""
    return [line for answer in found["checkpoints"] for line in _lines(answer)]


def _lines(answer: dict[str, Any]) -> list[str]:
    low, high, radial, misses, virial, rhat = (cell(answer[name]) for name in _NUMBERS[1:])
    rows = first_lines(answer)
    if answer["value"] is not None:
        rows += [
            f"  log-volume {low} to {high} nats",
            f"  plain radial estimate {radial}, which misses {misses}",
        ]
    return [*rows, f"  virial {virial}, R-hat {rhat}"]


RECORD = Measurement(
    name="volume",
    question="Bracket the log-volume around checkpoints in which the loss stays below a level.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    checkpoints=(1, None),
    answer=one_or_several,
)
