"""Trainings as tasks: a trunk from a seed, a branch from a perturbed checkpoint of a trunk."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from thalweg.dynamics import TrainResult, moments, perturb, train
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run, Task, derive_seed, read_checkpoint, torch_generator

_COLUMNS = ("step", "epoch", "loss", "error", "test_loss", "test_error")


def trunk_task(config: dict[str, Any], seed: int, *, epochs: int, checkpoints: int) -> Task:
    """Specify the training of one network from its initialization."""
    arguments = _common(config) | {
        "seed": seed,
        "trajectory": f"seed{seed}",
        "epochs": epochs,
        "checkpoints": checkpoints,
    }
    label = f"training from seed {seed}"
    return Task("thalweg.studies.trainings:train_trunk", arguments, label=label, units=epochs)


def branch_task(
    config: dict[str, Any],
    trunk: Task,
    moment: str,
    copy: int,
    *,
    scale: float,
    epochs: int,
    checkpoints: int,
) -> Task:
    """Specify a perturbed copy of a trunk at a moment, trained on."""
    arguments = _common(config) | {
        "seed": trunk.arguments["seed"],
        "trajectory": f"{trunk.arguments['trajectory']}-{moment}-{copy}",
        "parent": trunk.arguments["trajectory"],
        "moment": moment,
        "copy": copy,
        "scale": scale,
        "epochs": epochs,
        "checkpoints": checkpoints,
    }
    label = f"copy {copy} of seed {trunk.arguments['seed']} perturbed at its {moment} moment"
    function = "thalweg.studies.trainings:train_branch"
    return Task(function, arguments, needs=(trunk,), label=label, units=epochs)


def train_trunk(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train one network from its seed and give its curves."""
    risk, model = _risk(arguments)
    result = _train(run, arguments, report, risk, risk.space.pack(model), arguments["seed"])
    return _curves(result)


def train_branch(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Perturb a trunk's checkpoint, train on, and give the curves."""
    risk, _ = _risk(arguments)
    names = [arguments[key] for key in ("moment", "copy")]
    paths = {int(path.stem): path for path in run.checkpoints(arguments["parent"])}
    step = moments(sorted(paths), [arguments["moment"]])[arguments["moment"]]
    tensors, _ = read_checkpoint(paths[step])
    noise = torch_generator(arguments["seed"], "perturbation", *names)
    start = perturb(risk.space, risk.space.pack(tensors), scale=arguments["scale"], generator=noise)
    seed = derive_seed(arguments["seed"], "branch", *names)
    result = _train(run, arguments, report, risk, start, seed, buffers=tensors)
    return _curves(result) | {"from_step": step}


def _common(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem": config["problem"],
        "training": config["training"],
        "evaluation_batch": config.get("evaluation_batch"),
    }


def _risk(arguments: dict[str, Any]) -> tuple[EmpiricalRisk, nn.Module]:
    problem = load_problem(
        arguments["problem"]["entry"], seed=arguments["seed"], **arguments["problem"]["settings"]
    )
    return EmpiricalRisk(problem, batch_size=arguments["evaluation_batch"]), problem.model


def _train(
    run: Run,
    arguments: dict[str, Any],
    report: Report,
    risk: EmpiricalRisk,
    start: Tensor,
    seed: int,
    *,
    buffers: dict[str, Tensor] | None = None,
) -> TrainResult:
    training = arguments["training"]
    steps = arguments["epochs"] * -(-risk.samples // training["batch_size"])
    every = max(1, steps // arguments["checkpoints"])
    return train(
        risk,
        start,
        **training,
        epochs=arguments["epochs"],
        every=every,
        evaluate_every=every,
        seed=seed,
        buffers=buffers,
        test=risk.on("test") if risk.problem.test is not None else None,
        run=run,
        trajectory=arguments["trajectory"],
        about={key: arguments[key] for key in ("parent", "moment", "copy") if key in arguments},
        progress=lambda total, label: _Told(report, total, arguments["epochs"]),
    )


class _Told:
    """A progress bar that tells the task driver, in epochs."""

    def __init__(self, report: Report, total: int, epochs: int) -> None:
        self.report, self.total, self.epochs, self.done = report, total, epochs, 0

    def update(self, n: int = 1, /) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        self.report(self.done * self.epochs // max(1, self.total))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _curves(result: TrainResult) -> dict[str, Any]:
    columns = {
        name: np.array([row.get(name, np.nan) for row in result.history], dtype=float)
        for name in _COLUMNS
    }
    return {"status": result.status, "steps": result.step} | columns
