"""A recording that a trainer's callbacks begin and end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from thalweg.dynamics import record
from thalweg.dynamics.recorder import Recorder
from thalweg.run import Run


class Recording:
    """
    What callbacks of several libraries share: one recorder, opened and closed by events.

    Parameters
    ----------
    run : Run or path
        Where to record; a plain run directory is made at a new path.
    every : int
        Steps between checkpoints.
    trajectory : str
        Name of the training in the run.
    """

    def __init__(
        self, run: Run | str | os.PathLike[str], *, every: int = 100, trajectory: str = "main"
    ) -> None:
        self.run, self.every, self.trajectory = run, every, trajectory
        self.recorder: Recorder | None = None
        self._logged: tuple[int, dict[str, Any]] = (-1, {})

    def begin(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], others: Sequence[Any]
    ) -> None:
        """Record from here on; ``others`` are schedulers, for their states to be kept."""
        self.end()
        given: Any = [*optimizers, *others]
        self.recorder = record(
            model, given, run=self.run, every=self.every, trajectory=self.trajectory
        )
        self._logged = (-1, {})
        self.recorder.__enter__()

    def log(self, **metrics: Any) -> None:
        """Write figures of the step, beside those that it has, where a recorder is open."""
        numbers = {name: value for name, value in metrics.items() if value is not None}
        if self.recorder is None or not numbers:
            return
        step, known = self._logged
        # Trainers log several times a step, and of two records of a step the later one counts.
        together = known | numbers if step == self.recorder.step else numbers
        self._logged = self.recorder.step, together
        self.recorder.log(**together)

    def end(self, error: BaseException | None = None) -> None:
        """Keep the last checkpoint, and close."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.__exit__(type(error) if error else None, error, None)
