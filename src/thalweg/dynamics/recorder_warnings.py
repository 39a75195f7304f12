"""What a recorder says of a training, each once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger("thalweg")

MARKING = "Call recorder.mark() at the end of each step, after the weights were changed."


class RecorderWarnings:
    """Warnings of one recorder, in the log "thalweg"; what was said before is not said again."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def _once(self, subject: str, message: str) -> None:
        if subject not in self._said:
            self._said.add(subject)
            logger.warning("recording: %s", message)

    def outside(self) -> None:
        """Say that metrics or marks come while nothing is recorded."""
        self._once(
            "outside",
            "nothing is recorded outside of the block: write 'with tw.record(...) as recorder:'"
            " around the loop.",
        )

    def late_mark(self, counted: int, step: int) -> None:
        """Say that steps were counted before the first mark."""
        self._once(
            "late mark",
            f"{counted} steps of the optimizers were counted before the first recorder.mark(); from"
            f" here on marks alone count, and this is step {step}. To count marks from the"
            " beginning, write tw.record(..., by_hand=True).",
        )

    def no_number(self, name: str, value: Any, error: Exception) -> None:
        """Say that a metric is left out."""
        self._once(
            f"metric {name}",
            f"the metric {name!r} is left out: {type(value).__name__} is no number ({error}). Log"
            " numbers, such as loss=float(loss).",
        )

    def other_trajectory(self, taken: str, run: Path, checkpoints: int, trajectory: str) -> None:
        """Say that the trajectory asked for holds an earlier training, which is left alone."""
        self._once(
            "other trajectory",
            f"trajectory {taken!r} of {run} has {checkpoints} checkpoints already; this training is"
            f" recorded as {trajectory!r}. Call recorder.restore() before the loop to go on from"
            " the last, or write trajectory='another name'.",
        )

    def unseen_steps(self, step: int) -> None:
        """Say that weights change by steps that nothing tells of."""
        self._once("unseen", f"the weights change and no step is seen (counted: {step}). {MARKING}")

    def uncounted_optimizer(self, optimizer: Any) -> None:
        """Say that an optimizer that was not given changes other weights of the model."""
        self._once(
            f"optimizer {id(optimizer)}",
            f"an optimizer ({type(optimizer).__name__}) that was not given to tw.record changes"
            " weights of the model. Its steps are not counted and its state is not kept: give all,"
            " tw.record(model, [...]), or call recorder.mark() at the end of each step.",
        )

    def counted_optimizer(self, optimizer: Any) -> None:
        """Say that an optimizer that was not given changes weights of one that was."""
        self._once(
            f"optimizer {id(optimizer)}",
            f"steps of an optimizer ({type(optimizer).__name__}) that was not given to tw.record"
            " are counted, for it changes the same weights; its state is not kept, so"
            " recorder.restore() cannot go on exactly. Give all: tw.record(model, [...]).",
        )

    def optimizers_not_kept(self, error: Exception) -> None:
        """Say that checkpoints hold the weights alone."""
        self._once(
            "optimizers",
            f"the state of the optimizer cannot be kept: {error} The weights are recorded;"
            " recorder.restore() will refuse.",
        )

    def left_out(self, reasons: Mapping[str, str]) -> None:
        """Say which entries of the model's state no checkpoint holds, by name with the reason."""
        listed = "; ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items())[:5])
        more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        self._once("left out", f"checkpoints leave out {listed}{more}. The rest is recorded.")

    def stopped(
        self, step: int, written: int | None, trajectory: str, folder: Path, error: Exception
    ) -> None:
        """Say by what recording ended, and what there is of it."""
        recorded = "nothing" if written is None else f"the checkpoints up to step {written}"
        self._once(
            "stopped",
            f"stopped at step {step} by {type(error).__name__}: {error}. The training goes on;"
            f" {recorded} of trajectory {trajectory!r} in {folder} stay, what follows is lost.",
        )
