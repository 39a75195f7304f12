"""``thalweg certify``: a proof that an exact zero of the training error lies near a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.measurements.checkpoint_rows import rows_dataset, rows_section
from thalweg.measurements.options import option
from thalweg.measurements.parts import Section
from thalweg.measurements.record import (
    Job,
    Measurement,
    Output,
    Written,
    cell,
    in_order,
    one_or_several,
)
from thalweg.measurements.told import UNITS_AN_EPOCH, Told
from thalweg.run import Report, Run, Task, task_result

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.certificates import Certificate
    from thalweg.problems.checkpoints import Point
    from thalweg.risk import EmpiricalRisk

RESULT = "certify/points"
_NUMBERS = ("equations", "weights", "residual", "singular_value", "radius", "distance", "nullity")
_SHOWN = ("verdict", *_NUMBERS[:4], "lipschitz", *_NUMBERS[4:6], "dimension", "nullity")
_ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "batch_size": 50}


@dataclass(frozen=True)
class Options:
    """How a point is come by that can be certified, and what its proof may trust."""

    train: bool = option(
        False, "First train: by Adam where there is no checkpoint, then by Gauss-Newton."
    )
    epochs: int = option(30, "Epochs of Adam.", least=1)
    steps: int = option(40, "Steps of Gauss-Newton, at most.", least=1)
    strict: bool = option(False, "Trust only verified products: about six times slower.")


def perform(job: Job) -> dict[str, Any]:
    """Train where that is asked for, and certify each checkpoint, in tasks of their own."""
    tasks = _proofs(job)
    if job.options["train"]:
        job.perform([_training(task.arguments) for task in tasks], "training")
    answers = job.answers(tasks, "certify")
    job.run.save_result(RESULT, rows_dataset([_as_row(answer) for answer in answers], _NUMBERS))
    return {"checkpoints": answers}


def _proofs(job: Job) -> list[Task]:
    """List a proof for each checkpoint, in batches that the risk chooses, for products, too."""
    from thalweg.measurements.places import each_point

    shared = {"evaluation_batch": None, "options": job.options}
    return [_proof(name, spec | shared) for name, spec in each_point(job.spec)]


def _proof(name: str, arguments: dict[str, Any]) -> Task:
    needs = (_training(arguments),) if arguments["options"]["train"] else ()
    function = "thalweg.measurements.certify:certify_point"
    return Task(function, arguments, needs, f"certificate of {name}")


def _training(arguments: dict[str, Any]) -> Task:
    """Cut off the training, which goes by fewer options than the proof."""
    options = {name: arguments["options"][name] for name in ("epochs", "steps")}
    units = options["epochs"] * UNITS_AN_EPOCH
    function = "thalweg.measurements.certify:train_point"
    return Task(function, arguments | {"options": options}, (), "training", units)


def train_point(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train from a checkpoint, or from the problem's own initialization, in a worker."""
    from thalweg.dynamics import train
    from thalweg.measurements.point import open_one, open_states
    from thalweg.risk import EmpiricalRisk

    told = Told(report, 0.0)
    options = arguments["options"]
    risk, w, _ = open_one(arguments, run)
    if "start" in arguments["at"]:
        problem, _ = open_states(arguments, run)
        single = EmpiricalRisk(problem)
        how = {**_ADAM, "epochs": options["epochs"], "progress": lambda total, label: told}
        w = train(single, single.space.pack(problem.model), **how).w
    solve: dict[str, Any] = {"optimizer": "gauss-newton", "steps": options["steps"]}
    solved = train(risk, w.double(), **solve, progress=lambda total, label: told)
    return {"w": solved.w.double().cpu().numpy()}


def certify_point(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Certify one checkpoint, in a worker."""
    from thalweg.certificates import certify_zero
    from thalweg.measurements.point import about_point

    risk, w, point = _certified_point(run, arguments)
    told = Told(report, 0.0)
    strict = arguments["options"]["strict"]
    certificate = certify_zero(risk, w, strict=strict, progress=lambda total, label: told)
    answer = {**certificate.to_dict(), "checkpoint": about_point(point)}
    return in_order(answer) | {"stated": certificate.statement is not None}


def _certified_point(run: Run, arguments: dict[str, Any]) -> tuple[EmpiricalRisk, Tensor, Point]:
    """Give a risk, the weights that are certified, and the checkpoint that they come from."""
    import torch

    from thalweg.measurements.point import open_one

    risk, w, point = open_one(arguments, run)
    if not arguments["options"]["train"]:
        return risk, w.double(), point
    trained = task_result(run, _training(arguments))
    assert trained is not None
    return risk, torch.as_tensor(trained["w"]), point


def write_file(job: Job, path: Path) -> Written:
    """Write the certificate of the one checkpoint, and say what its checker makes of it."""
    from thalweg.certificates.store import write_certificate

    (task,) = _proofs(job)
    (answer,), (result,) = job.answers([task], "certify"), job.perform([task], "certify")
    if not result["stated"]:
        why = "the network's structure is none that files hold"
        return Written([f"nothing is written to {path}: {why}"])
    certificate = _certificate(job.run, task, answer)
    # A point from which training went on is not the one that is certified.
    state = None if job.options["train"] else answer["checkpoint"]["sha256"]
    problem = {**job.spec["problem"], "entry": _from_here(job.spec["problem"]["entry"])}
    content = write_certificate(
        certificate, path, problem=problem, state=state, progress=job.progress
    )
    told = {name: content["claim"][name] for name in ("verdict", "reasons")}
    written = {"file": str(path), **told}
    return Written(_about_file(path, answer["verdict"], written), {"written": written})


def _certificate(run: Run, task: Task, answer: dict[str, Any]) -> Certificate:
    """Make the certificate again of what a task answered, with what it speaks of."""
    from thalweg.certificates import Certificate
    from thalweg.certificates.statement import state
    from thalweg.tracing.chain import Chain

    risk, w, _ = _certified_point(run, task.arguments)
    strict = task.arguments["options"]["strict"]
    statement = state(Chain(risk), w, outputs=None, strict=strict)
    known = {name: value for name, value in answer.items() if name != "checkpoint"}
    return Certificate(**known, statement=statement)


def _from_here(entry: str) -> str:
    """Write the path in an entry as from the current folder, where it lies in it."""
    path, colon, name = entry.partition(":")
    here = Path.cwd()
    return str(Path(path).relative_to(here)) + colon + name if here in Path(path).parents else entry


def _about_file(path: Path, verdict: str, written: dict[str, Any]) -> list[str]:
    """Say what was written, and what the checker makes of it."""
    if written["verdict"] == "certified":
        return [f"{path} is written, and verified: thalweg certify verify {path}"]
    if verdict != "certified":
        return [f"{path} is written and says that the certificate is refused: it will not verify"]
    return [
        f"{path} is written and refused, although the proof above holds: the checker, whose bounds"
        " are others, does not prove it, or the problem that it names is another:",
        *(f"  - {reason}" for reason in written["reasons"]),
    ]


def _as_row(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "status": answer["verdict"]}


def lines(found: dict[str, Any]) -> list[str]:
    """Write the parts of each proof, what failed, and what it takes for granted."""
    several = len(found["checkpoints"]) > 1
    rows: list[str] = []
    for answer in found["checkpoints"]:
        rows += [f"{answer['checkpoint']['file']}:"] * several
        rows += [f"{name.replace('_', ' '):<15} {cell(answer[name])}" for name in _SHOWN]
        for title in ("reasons", "notes", "assumptions"):
            rows += [f"{title}:"] * bool(answer[title]) + [f"  - {t}" for t in answer[title]]
    return rows


def section(run: Run) -> Section | None:
    """Give a table with a row for each checkpoint."""
    return rows_section(
        run,
        RESULT,
        _NUMBERS,
        name=RECORD.name,
        title="An exact zero near by",
        lead="Whether an exact zero of the squared training error is proved to lie next to each"
        " checkpoint, how far away at most, and how many directions are flat there.",
        note="The residual and the distance are upper bounds, the singular value is a lower one;"
        " zeros within the radius form a manifold of as many dimensions as the nullity says.",
    )


def failed(found: dict[str, Any]) -> bool:
    """Say whether a proof was refused, or the file of one."""
    verdicts = [answer["verdict"] for answer in found["checkpoints"]]
    refused = found.get("written", {}).get("verdict") == "refused"
    return refused or any(verdict != "certified" for verdict in verdicts)


RECORD = Measurement(
    name="certify",
    question="Prove that an exact zero of the squared training error lies next to a checkpoint.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    batchnorm="frozen",
    dtype="float64",
    checkpoints=(1, None),
    too_few="nothing is trained: give --checkpoint A, or --train",
    from_start=lambda options: bool(options.get("train")),
    answer=one_or_several,
    outputs=(
        Output(
            "--certificate",
            "Write the certificate here (.json) and its numbers beside it; so does --out with such"
            " a name.",
            lambda: ("json",),
            write_file,
            is_out=True,
            limit=(1, "is the proof of one point"),
        ),
    ),
    failed=failed,
)
