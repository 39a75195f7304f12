"""Networks with polynomial activations in training: how they are made, and how they are watched."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from thalweg.dynamics import TrainResult
from thalweg.polynomial import replace_activations
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import Run
from thalweg.run.events import EventLog, read_events

# Samples on which pre-activations are looked at for "calibrate".
_CALIBRATION = 250


def with_polynomials(
    problem: Problem, *, degree: int, radius: float | Literal["calibrate"], margin: float = 2.0
) -> Problem:
    """Give the same problem with polynomials in place of the model's activations."""
    samples = problem.samples("train")
    some = samples.slice(0, min(_CALIBRATION, len(samples)))
    model = replace_activations(problem.model, degree, radius=radius, data=[some], margin=margin)
    return dataclasses.replace(problem, model=model)


class Watch:
    """
    Write down, epoch by epoch, how far pre-activations left the polynomials' intervals.

    The record lies in the run, not in memory, so that a training that was killed and resumed has
    it from its first epoch on.

    Parameters
    ----------
    run : Run
        Where the record is kept, in ``excursions.jsonl``.
    trajectory : str
        Of the training.
    risk : EmpiricalRisk
        What is descended.
    """

    def __init__(self, run: Run, trajectory: str, risk: EmpiricalRisk) -> None:
        self.path, self.trajectory, self.risk = run.inside("excursions.jsonl"), trajectory, risk
        self._log = EventLog(self.path, trajectory=trajectory)

    def __call__(self, metrics: dict[str, Any], step: int, /) -> None:
        """Take a row of the history: note what was seen since the one before."""
        seen = self.risk.excursions(reset=True).values()
        factor = max(record.factor for record in seen)
        self._log(
            {
                "seen": sum(record.seen for record in seen),
                "outside": sum(record.outside for record in seen),
                # JSON has no infinity.
                "factor": factor if math.isfinite(factor) else None,
            },
            step,
        )

    def columns(self, result: TrainResult) -> dict[str, Any]:
        """
        Give the record of a training that has ended as columns.

        Parameters
        ----------
        result : TrainResult
            Of the training.

        Returns
        -------
        dict
            ``excursion_step``; ``excursion_seen`` and ``excursion_outside``: pre-activations since
            the row before, and those of them outside their interval; ``excursion_factor``: the
            largest in units of its radius, infinite after a NaN.
        """
        # A divergence ends between two rows.
        if result.diverged_at is not None and any(e.seen for e in self.risk.excursions().values()):
            self({}, result.diverged_at)
        rows = [row for row in read_events(self.path) if row["trajectory"] == self.trajectory]
        rows.sort(key=lambda row: row["step"])
        factors = [math.inf if row["factor"] is None else row["factor"] for row in rows]
        return {
            "excursion_step": np.array([row["step"] for row in rows]),
            "excursion_seen": np.array([row["seen"] for row in rows]),
            "excursion_outside": np.array([row["outside"] for row in rows]),
            "excursion_factor": np.array(factors),
        }
