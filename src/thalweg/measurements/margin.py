"""``thalweg margin``: a box of weights on which no training sample is misclassified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from thalweg.measurements.checkpoint_tasks import measure_checkpoint, measure_each
from thalweg.measurements.options import option
from thalweg.measurements.parts import Fact, Section, Table
from thalweg.measurements.record import Job, Measurement, every_field, one_or_several
from thalweg.run import Report, Run

if TYPE_CHECKING:
    import xarray as xr

RESULT = "margin/points"
_NUMBERS = ("half_width", "attacked", "margin")


@dataclass(frozen=True)
class Options:
    """What `thalweg.certify_margin` takes."""

    scale: Literal["absolute", "layer"] = option(
        "absolute", "absolute, or layer: in units of each layer's scale."
    )
    attack: bool = option(True, "Look for the smallest box that breaks.")
    seconds: float = option(3600.0, "Time after which the widest box proved so far is the answer.")


def perform(job: Job) -> dict[str, Any]:
    """Prove and attack a box at each checkpoint, in a task of its own."""
    answers = measure_each(job, measure_margin, "margin")
    job.run.save_result(RESULT, dataset(answers))
    return {"checkpoints": answers}


def measure_margin(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Certify one checkpoint, in a worker."""
    from thalweg.certificates import certify_margin

    return measure_checkpoint(run, arguments, report, certify_margin)


def dataset(answers: list[dict[str, Any]]) -> xr.Dataset:
    """Label half widths by checkpoint: NaN where there is none."""
    import xarray as xr

    def column(name: str) -> list[float]:
        return [float("nan") if answer[name] is None else answer[name] for answer in answers]

    return xr.Dataset(
        {
            **{name: ("checkpoint", column(name)) for name in _NUMBERS},
            "verdict": ("checkpoint", [answer["verdict"] for answer in answers]),
            "why": ("checkpoint", ["; ".join(answer["reasons"]) for answer in answers]),
        },
        coords={"checkpoint": [answer["checkpoint"]["file"] for answer in answers]},
        attrs={"scale": answers[0]["scale"], "samples": answers[0]["samples"]},
    )


def section(run: Run) -> Section | None:
    """Give a row a checkpoint: the box that was proved, and the smallest that breaks."""
    if not run.has_result(RESULT):
        return None
    data = run.result(RESULT)
    rows: list[tuple[str, ...]] = []
    facts = []
    for i, file in enumerate(data["checkpoint"].values):
        here, name = data.isel(checkpoint=i), str(file).rpartition("/")[2]
        proved, broken = float(here["half_width"]), float(here["attacked"])
        verdict = str(here["verdict"].values)
        rows.append((name, verdict, str(here["why"].values), f"{proved:.4g}", f"{broken:.4g}"))
        facts.append(Fact(f"half width proved at {name}", f"{proved:.3g}", verdict))
    units = "of the weights" if data.attrs["scale"] == "absolute" else "of each layer's scale"
    return Section(
        name="margin",
        title="A box without errors",
        lead="Every weight may move by the half width, all at once, and no training sample is"
        " misclassified: proved in interval arithmetic.",
        facts=facts,
        parts=[
            Table(
                f"Half widths in units {units}",
                ("checkpoint", "verdict", "why", "proved", "broken at"),
                rows,
                words=3,
                note="Between the two columns nothing is known.",
            )
        ],
    )


RECORD = Measurement(
    name="margin",
    question="Prove a box of weights on which no training sample is misclassified, and attack it.",
    options=Options,
    perform=perform,
    lines=every_field,
    section=section,
    results=(RESULT,),
    batchnorm="frozen",
    checkpoints=(1, None),
    answer=one_or_several,
    failed=lambda found: any(answer["verdict"] != "certified" for answer in found["checkpoints"]),
)
