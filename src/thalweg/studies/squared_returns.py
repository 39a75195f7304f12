"""Tasks: networks with more weights than equations, at exact zeros of the squared loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.dynamics import train
from thalweg.errors import InvalidArgument
from thalweg.geometry.spectral_measure import SpectralMeasure
from thalweg.problems import load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run, Task
from thalweg.studies.alike import risk_alike
from thalweg.studies.flow_copies import perturb_landscape
from thalweg.studies.parents import on_draw
from thalweg.studies.trainings import UNITS_AN_EPOCH

# Problems whose targets can be rows of zeros and ones, and whose samples can be drawn.
_KNOWN = ("digits", "cifar10")
_GAUSS_NEWTON_STEPS, _ZERO = 60, 1e-18
# Below this share of the largest eigenvalue of J J' rounding decides.
_RANK = 1e-13


def squared_tasks(config: dict[str, Any]) -> list[Task]:
    """
    Specify the parents at exact zeros, each with its copies; none for a problem of one's own.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    """
    study, problem = config["perturb_and_return"], config["problem"]
    squared = study["squared"]
    if problem["entry"] not in _KNOWN:
        return []
    shared = {
        key: value for key, value in problem["settings"].items() if key in ("data", "data_seed")
    }
    few = config | {
        "problem": {"entry": problem["entry"], "settings": shared | squared["settings"]}
    }
    return [
        Task(
            "thalweg.studies.squared_returns:perturb_zero",
            {
                "problem": on_draw(few, number)["problem"],
                "seed": config["seed"] + number,
                "scale": study["scale"],
                "copies": squared["copies"],
                "epochs": squared["epochs"],
                "max_gradients": study["max_gradients"],
            },
            label=f"flow back to zeros of the squared loss, draw {config['seed'] + number}",
            units=max(1, round(UNITS_AN_EPOCH * squared["epochs_worth"])),
        )
        for number in range(squared["parents"])
    ]


def perturb_zero(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train one parent to an exact zero of the squared loss, perturb it, and follow the flow.

    Parameters
    ----------
    run : Run
        Not read.
    arguments : dict
        ``problem``, ``seed``, ``scale``, ``copies``, ``epochs`` and ``max_gradients``.
    report : callable
        Not used.

    Returns
    -------
    dict
        As `thalweg.studies.flow_copies.perturb_landscape` gives it, and ``weights``, ``equations``
        (outputs of all samples), ``rank`` of their Jacobian, ``parent_loss`` and ``top``, the
        largest curvature at the parent.

    Raises
    ------
    InvalidArgument
        If there are as many equations as weights.
    """
    problem = load_stored(arguments["problem"], seed=arguments["seed"])
    risk = risk_alike(problem, dtype=torch.float64)
    begin = risk.space.pack(problem.model).double()
    equations = risk.residuals(begin).numel()
    if equations >= risk.space.size:
        raise InvalidArgument(
            f"perturb_and_return.squared: {risk.space.size:,} weights for {equations:,} equations,"
            " an output of a sample each; zeros of the squared loss are degenerate where there are"
            " fewer equations than weights: write a smaller train_size in squared.settings."
        )
    near = train(
        risk, begin, epochs=arguments["epochs"], batch_size=risk.samples, seed=arguments["seed"]
    ).w
    home = train(risk, near, optimizer="gauss-newton", steps=_GAUSS_NEWTON_STEPS, stop_loss=_ZERO).w
    along = _AlongCurvatures(risk, home)
    figures = perturb_landscape(
        risk,
        home,
        top=along.top,
        measure=along,
        **{key: arguments[key] for key in ("seed", "scale", "copies", "max_gradients")},
    )
    return figures | {
        "weights": risk.space.size,
        "equations": equations,
        "rank": along.rank,
        "parent_loss": risk.value(home),
        "top": along.top,
    }


class _AlongCurvatures:
    """
    The exact spectral measure of displacements from a zero, where the Hessian is J'J by a factor.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of the squared loss, with fewer outputs of all samples than weights.
    home : Tensor
        Shape (W,), its zero.
    """

    def __init__(self, risk: EmpiricalRisk, home: Tensor) -> None:
        self._jacobian = risk.jacobian(home)
        gram = risk.gram(home)
        squares, self._vectors = torch.linalg.eigh(gram)
        self._kept = squares > _RANK * squares.max()
        self._squares, self.rank = squares[self._kept], int(self._kept.sum())
        uniform = torch.ones(len(squares), dtype=gram.dtype)
        self._factor = float((risk.gauss_newton(home).loss_hessian @ uniform)[0])
        self.top = self._factor * float(squares.max())

    def __call__(self, v: Tensor) -> SpectralMeasure:
        """Measure a displacement."""
        along = (self._vectors.T @ (self._jacobian @ v))[self._kept].square() / self._squares
        weights = (along / v.square().sum()).cpu().numpy()
        return SpectralMeasure(
            nodes=np.concatenate([[0.0], self._factor * self._squares.cpu().numpy()]),
            weights=np.concatenate([[max(0.0, 1 - weights.sum())], weights]),
            exact=True,
            products=1,
        )
