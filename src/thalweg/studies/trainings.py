"""Trainings as tasks: a trunk from a seed, a branch from a perturbed checkpoint of a trunk."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import nn

from thalweg import dynamics
from thalweg.dynamics import TrainResult, moments, train
from thalweg.measurements.told import UNITS_AN_EPOCH as UNITS_AN_EPOCH
from thalweg.problems import load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run, Task
from thalweg.studies.alike import risk_alike
from thalweg.studies.watched_activations import Watch, with_polynomials

# Passes forward: to re-estimate statistics, over the training set, and over a test set; an epoch
# of training is three.
_UNITS_A_CHECKPOINT = 7
_COLUMNS = ("step", "epoch", "loss", "error", "test_loss", "test_error")


def trunk_task(
    config: dict[str, Any],
    seed: int,
    *,
    epochs: int,
    checkpoints: int,
    name: str = "",
    keep: bool = True,
    polynomial: dict[str, Any] | None = None,
    units: int | None = None,
) -> Task:
    """
    Specify the training of one network from its initialization.

    Parameters
    ----------
    config : dict
        With ``problem``, ``training`` and ``evaluation_batch``.
    seed : int
        Of initialization and order.
    epochs : int
        The longest it may take.
    checkpoints : int
        How often it is measured in full and, with ``keep``, written down.
    name : str
        Of its trajectory in the run, by default after the seed.
    keep : bool
        Write checkpoints; a training of seconds can do without.
    polynomial : dict, optional
        ``degree``, ``radius`` (a number or "calibrate") and ``margin`` of polynomials in place of
        the activations.
    units : int, optional
        How much work it is, where an epoch is not one of the run's problem.
    """
    trajectory = name or f"seed{seed}"
    arguments = _common(config) | {
        "seed": seed,
        "trajectory": trajectory,
        "epochs": epochs,
        "checkpoints": checkpoints,
    }
    # Only what differs from the plain training, so that studies share the plain one.
    arguments |= {} if keep else {"keep": False}
    arguments |= {} if polynomial is None else {"polynomial": polynomial}
    arguments |= {} if units is None else {"units": units}
    return Task(
        "thalweg.studies.trainings:train_trunk",
        arguments,
        label=f"training {trajectory}",
        units=units or _work(config["training"], epochs, checkpoints),
    )


def branch_task(
    config: dict[str, Any],
    trunk: Task,
    moment: str,
    copy: int,
    *,
    scale: float,
    epochs: int,
    checkpoints: int,
    variant: str = "",
    units: int | None = None,
) -> Task:
    """
    Specify a perturbed copy of a trunk at a moment, trained on.

    Parameters
    ----------
    config : dict
        With ``problem``, ``training`` and ``evaluation_batch``.
    trunk : Task
        As `trunk_task` gives it.
    moment : {"early", "middle", "final"}
        Where it leaves the trunk.
    copy : int
        Its number; it decides the noise and, with SGD, the order of the data.
    scale : float
        Of the noise, relative to each layer's weights.
    epochs : int
        The longest it may take; under full-batch gradient descent a step is an epoch.
    checkpoints : int
        How often it is measured in full and written down.
    variant : str
        Tells its trajectory from those of other scales and optimizers.
    units : int, optional
        How much work it is, where an epoch is not one of the run's problem.
    """
    ending = f"{copy}-{variant}" if variant else str(copy)
    trajectory = f"{trunk.arguments['trajectory']}-{moment}-{ending}"
    arguments = _common(config) | {
        "seed": trunk.arguments["seed"],
        "trajectory": trajectory,
        "parent": trunk.arguments["trajectory"],
        "moment": moment,
        "copy": copy,
        "scale": scale,
        "epochs": epochs,
        "checkpoints": checkpoints,
    }
    arguments |= {} if units is None else {"units": units}
    return Task(
        "thalweg.studies.trainings:train_branch",
        arguments,
        needs=(trunk,),
        label=f"training on {trajectory}",
        units=units or _work(config["training"], epochs, checkpoints),
    )


def train_trunk(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train one network from its seed and give its curves."""
    risk, model = _risk(arguments)
    name = arguments["trajectory"]
    watch = Watch(run, name, risk) if "polynomial" in arguments else None
    result = train(
        risk,
        risk.space.pack(model),
        seed=arguments["seed"],
        run=run if arguments.get("keep", True) else None,
        trajectory=name,
        log=watch,
        **_options(arguments, risk, report),
    )
    return _curves(result) | _sizes(risk) | (watch.columns(result) if watch else {})


def train_branch(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Perturb a trunk's checkpoint, train on, and give the curves."""
    risk, _ = _risk(arguments)
    moment = arguments["moment"]
    paths = {int(path.stem): path for path in run.checkpoints(arguments["parent"])}
    step = moments(sorted(paths), [moment])[moment]
    branch = dynamics.train_branch(
        risk,
        paths[step],
        moment=moment,
        step=step,
        copy=arguments["copy"],
        scale=arguments["scale"],
        seed=arguments["seed"],
        name=arguments["parent"],
        run=run,
        trajectory=arguments["trajectory"],
        **_options(arguments, risk, report),
    )
    return _curves(branch.result) | {"from_step": step}


def _common(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem": config["problem"],
        "training": config["training"],
        "evaluation_batch": config.get("evaluation_batch"),
    }


def _risk(arguments: dict[str, Any]) -> tuple[EmpiricalRisk, nn.Module]:
    problem = load_stored(arguments["problem"], seed=arguments["seed"])
    if "polynomial" in arguments:
        problem = with_polynomials(problem, **arguments["polynomial"])
    return risk_alike(problem, batch_size=arguments["evaluation_batch"]), problem.model


def _options(arguments: dict[str, Any], risk: EmpiricalRisk, report: Report) -> dict[str, Any]:
    training: dict[str, Any] = arguments["training"]
    epochs: int = arguments["epochs"]
    full = training.get("optimizer") == "gd"
    steps = epochs * (1 if full else -(-risk.samples // training["batch_size"]))
    every = max(1, steps // arguments["checkpoints"])
    units = arguments.get("units") or _work(training, epochs, arguments["checkpoints"])
    return training | {
        "epochs": epochs,
        "every": every,
        "evaluate_every": every,
        "test": risk.on("test") if risk.problem.test is not None else None,
        "progress": lambda total, label: _Told(report, total, units),
    }


def _sizes(risk: EmpiricalRisk) -> dict[str, Any]:
    """Count weights W, samples N and outputs C."""
    shape = risk.output_shape
    sizes = {"weights": risk.space.size, "samples": risk.samples}
    return sizes | ({} if shape is None else {"outputs": shape[-1]})


def _work(training: dict[str, Any], epochs: int, checkpoints: int) -> int:
    """Count units: a full gradient goes through the statistics of batch norm, too."""
    an_epoch = UNITS_AN_EPOCH * 5 // 2 if training.get("optimizer") == "gd" else UNITS_AN_EPOCH
    return epochs * an_epoch + checkpoints * _UNITS_A_CHECKPOINT


class _Told:
    """A progress bar that tells the task driver, in the task's units."""

    def __init__(self, report: Report, total: int, units: int) -> None:
        self.report, self.total, self.units, self.done = report, total, units, 0

    def update(self, n: int = 1, /) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        self.report(self.done * self.units // max(1, self.total))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _curves(result: TrainResult) -> dict[str, Any]:
    # Between full measurements a row has running numbers only, of weights on the way.
    rows = [row for row in result.history if row.get("loss") is not None]
    columns = {
        name: np.array([row.get(name, np.nan) for row in rows], dtype=float) for name in _COLUMNS
    }
    return {"status": result.status, "steps": result.step} | columns
