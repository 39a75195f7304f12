"""``thalweg learning-coefficient``: local learning coefficients of checkpoints."""

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

RESULT = "learning_coefficient/points"
_NUMBERS = ("value", "low", "high", "multiplicity", "sampler_error", "estimator_bias")
_RUNG = ("beta", "localization", "value", "stderr", "virial", "rhat", "acceptance")
_RUNGS = 24


@dataclass(frozen=True)
class Options:
    """What `thalweg.learning_coefficient` takes."""

    budget: int = option(40_000, "Gradients of each chain, over all temperatures.", least=1000)
    chains: int = option(16, "Chains that are drawn side by side.", least=4)
    seed: int = option(0, "Seed of all that is random.", least=0)


def perform(job: Job) -> dict[str, Any]:
    """Measure each checkpoint in a task of its own."""
    units = _RUNGS * UNITS_AN_EPOCH
    answers = measure_each(job, measure_coefficient, "learning coefficient", units=units)
    job.run.save_result(RESULT, rows_dataset(answers, _NUMBERS))
    return {"checkpoints": answers}


def measure_coefficient(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure one checkpoint, in a worker."""
    from thalweg.geometry import learning_coefficient

    return measure_checkpoint(run, arguments, report, learning_coefficient, units=UNITS_AN_EPOCH)


def section(run: Run) -> Section | None:
    """Give a table with a row for each checkpoint."""
    return rows_section(
        run,
        RESULT,
        _NUMBERS,
        name=RECORD.name,
        title="Learning coefficient",
        lead="How fast the volume of low loss vanishes around each checkpoint: half the number of"
        " stiff directions where the minimum is smooth, less where it is not.",
        note="From low to high in 95 % of cases. The sampler's error and the estimator's bias are"
        " those of the coldest temperature that counts.",
    )


def lines(found: dict[str, Any]) -> list[str]:
    """Write what matters of each checkpoint, and a row for each temperature."""
    return [line for answer in found["checkpoints"] for line in _lines(answer)]


def _lines(answer: dict[str, Any]) -> list[str]:
    rows = first_lines(answer)
    if answer["value"] is not None:
        value, low, high, error, bias = (
            cell(answer[name]) for name in ("value", "low", "high", "sampler_error", _NUMBERS[-1])
        )
        named = answer["multiplicity"] or "not decided"
        rows += [
            f"  learning coefficient {value} ({low} to {high}), multiplicity {named}",
            f"  sampler error {error}, estimator bias {bias}",
        ]
    rows.append(" ".join(f"{head:>12}" for head in _RUNG) + "  counts")
    for rung in answer["rungs"]:
        numbers = " ".join(f"{cell(rung[head]):>12}" for head in _RUNG)
        rows.append(f"{numbers}  {'no' if rung['reasons'] else 'yes'}")
    return rows


RECORD = Measurement(
    name="learning-coefficient",
    question="Estimate the local learning coefficient at checkpoints, or say why it cannot be.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    checkpoints=(1, None),
    answer=one_or_several,
)
