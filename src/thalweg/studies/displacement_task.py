"""Task: the curvatures at a trained parent, and which of them a copy's displacement lies along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from thalweg.dynamics.checkpoint_writer import split_state
from thalweg.geometry.spectral_measure import spectral_measure
from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.problems import Problem, load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run, Task, read_checkpoint
from thalweg.studies.alike import risk_alike
from thalweg.studies.shares import shares
from thalweg.studies.trainings import UNITS_AN_EPOCH

# A product with the Gauss-Newton matrix costs as much as so many epochs on the same samples.
_EPOCHS_A_PRODUCT = 3
_TOP_PRODUCTS, _TOP_RTOL = 15, 0.05


def displacement_task(config: dict[str, Any], parent: Task, copy: Task) -> Task:
    """
    Specify the curvatures at the end of a parent's training.

    Parameters
    ----------
    config : dict
        With ``perturb_and_return``, whose ``curvature`` names ``samples`` and ``products``.
    parent, copy : Task
        The parent's training, and that of a copy of its end.
    """
    size = config["perturb_and_return"]["curvature"]
    return Task(
        "thalweg.studies.displacement_task:split_displacement",
        {
            "problem": parent.arguments["problem"],
            "parent": parent.arguments["trajectory"],
            "copy": copy.arguments["trajectory"],
            **size,
        },
        needs=(parent, copy),
        label=f"curvatures at {parent.arguments['trajectory']}",
        units=UNITS_AN_EPOCH * _EPOCHS_A_PRODUCT,
    )


def split_displacement(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Measure the largest curvature at a parent, and split a copy's displacement over curvatures.

    Parameters
    ----------
    run : Run
        Where both lie.
    arguments : dict
        ``problem``, ``parent`` and ``copy``, the trajectories; ``samples``, of the first so many
        the top eigenvector and the shares are; ``products`` for the shares.
    report : callable
        Not used.

    Returns
    -------
    dict
        ``top``: the curvature along that eigenvector on other samples, which had no part in
        choosing it, where there are any; ``noise`` and ``left``: shares of the displacement after
        the perturbation and at the end.
    """
    problem = load_stored(arguments["problem"])
    seen, unseen = _parted(problem, arguments["samples"])
    risk = risk_alike(seen)
    home = _end(run, arguments["parent"], risk, -1)
    operator = risk.gauss_newton(home)
    largest = top_eigenvalues(operator, 1, rtol=_TOP_RTOL, max_products=_TOP_PRODUCTS, probe=0)
    along, top = largest.vectors[:, 0], float(largest.values[0])
    figures: dict[str, Any] = {}
    for name, which in (("noise", 0), ("left", -1)):
        away = _end(run, arguments["copy"], risk, which) - home
        measure = spectral_measure(operator, away, products=arguments["products"])
        figures[name] = shares(measure, top)
    return figures | {"top": _curvature(unseen, run, arguments["parent"], along)}


def _parted(problem: Problem, samples: int) -> tuple[Problem, Problem]:
    """Part the training data into the first so many samples and up to four times as many others."""
    data = problem.samples("train")
    if not data.joined or len(data) < 2 * samples:
        return problem, problem
    stop = min(len(data), 5 * samples)
    return (
        replace(problem, train=data.slice(0, samples)),
        replace(problem, train=data.slice(samples, stop)),
    )


def _end(run: Run, trajectory: str, risk: EmpiricalRisk, which: int) -> Tensor:
    """Read a point of a trajectory; the risk takes on the frozen weights and buffers with it."""
    w, fixed = split_state(risk.space, read_checkpoint(run.checkpoints(trajectory)[which])[0])
    risk.set_fixed(fixed)
    return w


def _curvature(problem: Problem, run: Run, parent: str, along: Tensor) -> float:
    risk = risk_alike(problem)
    home = _end(run, parent, risk, -1)
    v = along.double()
    return float(v @ (risk.gauss_newton(home) @ along).double())
