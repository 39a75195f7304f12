"""``thalweg spectrum``: eigenvalues, density and trace of the Hessian at checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from thalweg.measurements.options import defaults, option
from thalweg.measurements.record import Job, Measurement
from thalweg.run import Run

if TYPE_CHECKING:
    from thalweg.measurements.parts import Section

EIGENVALUES, DENSITY, TRACE = RESULTS = (
    "spectrum/eigenvalues",
    "spectrum/density",
    "spectrum/trace",
)


@dataclass(frozen=True)
class Options:
    """What of a spectrum is measured, and how exactly."""

    k: int = option(5, "How many eigenvalues.", least=0, flag="-k")
    which: Literal["largest", "smallest", "both"] = option("largest", "Which of them.")
    rtol: float = option(1e-3, "Relative error allowed to an eigenvalue.")
    density: bool = option(False, "Estimate the density, and the number of eigenvalues near zero.")
    probes: int = option(10, "Random vectors of the density.", least=2)
    steps: int = option(50, "Products with each of them.", least=2)
    near_zero: float = option(
        1e-3, "What counts as near zero, as a share of the largest magnitude."
    )
    trace: bool = option(False, "Estimate the trace.")
    trace_rtol: float = option(0.05, "Standard error allowed to the trace, relative.")
    operator: Literal["hessian", "gauss-newton"] = option("hessian", "Whose spectrum.")
    seed: int = option(0, "Seed of all that is random.", least=0)


def settle(given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
    """Complete the options, and check them."""
    from thalweg.measurements.spectrum_parts import check_spectrum

    chosen = {**defaults(Options), **given}
    check_spectrum(chosen)
    return chosen


def perform(job: Job) -> dict[str, Any]:
    """Do the tasks of each checkpoint, and save what they measured."""
    from thalweg.measurements.places import each_point
    from thalweg.measurements.spectrum_parts import gather, parts

    groups = [parts(spec, job.options) for _, spec in each_point(job.spec)]
    job.perform([task for tasks in groups for task in tasks], "spectrum")
    return gather(job.run, groups, job.options)


def lines(found: dict[str, Any]) -> list[str]:
    """Write eigenvalues with their errors, the density's summary, the trace, by checkpoint."""
    if "checkpoints" not in found:
        return _lines(found)
    rows: list[str] = []
    for number, answer in enumerate(found["checkpoints"]):
        about = answer["checkpoint"]
        rows += [""] * bool(number) + [f"{about['file']}:"]
        rows += [f"  - {note}" for note in about["notes"]]
        rows += _lines(answer)
    return rows


def _lines(answer: dict[str, Any]) -> list[str]:
    rows = [f"{answer['operator']} of {answer['size']:,} weights; {answer['products']:,} products"]
    if "eigenvalues" in answer:
        rows.append(f"\neigenvalues ({answer['status']})")
        rows.append(f"{'value':>13} {'residual':>11} {'error':>11}")
        for row in answer["eigenvalues"]:
            rows.append(f"{row['value']:>13.7g} {row['residual']:>11.2g} {row['error']:>11.2g}")
    if "density" in answer:
        near, about = answer["near_zero"], answer["density"]
        rows.append(
            f"\ndensity: {about['probes']} probes of {about['steps']} steps\n"
            f"eigenvalues within {near['threshold']:.3g} of zero: {near['count']:,.0f}"
            f" ({100 * near['share']:.3g} %)\n"
            f"  95% interval: {near['low']:,.0f} to {near['high']:,.0f}. The moments that the steps"
            f" know leave {near['least']:,.0f} to {near['most']:,.0f} open (more --steps), the rest"
            f" is the scatter of the random vectors (standard error {near['stderr']:.2g}; more"
            " --probes)"
        )
    if "trace" in answer:
        trace = answer["trace"]
        rows.append(
            f"\ntrace: {trace['value']:.6g} ± {trace['stderr']:.2g} (standard error), 95% within"
            f" {trace['error']:.2g} ({trace['status']})"
        )
    return rows


def section(run: Run) -> Section | None:
    """Give the section of the report."""
    from thalweg.measurements.spectrum_section import section as drawn

    return drawn(run)


RECORD = Measurement(
    name="spectrum",
    question="Measure the spectrum of the Hessian at checkpoints, and draw it.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=RESULTS,
    settle=settle,
    checkpoints=(1, None),
    kept=True,
)
