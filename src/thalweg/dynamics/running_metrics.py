"""What training saw in passing: loss and error of its mini-batches, read only now and then."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics.methods import Outcome


class RunningMetrics:
    """Sums over the mini-batches since the last row of the history."""

    def __init__(self) -> None:
        self._pending: list[tuple[Outcome, int]] = []
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.seen = 0
        self._loss: float | None = 0.0
        self._wrong: int | None = 0

    def add(self, outcome: Outcome, samples: int) -> None:
        """Take what a step saw, without waiting for it."""
        self._pending.append((outcome, samples))

    def settle(self) -> int | None:
        """
        Wait for the numbers and add them up.

        Returns
        -------
        int or None
            How many steps before the present one the first loss stood that was not finite: 1 for
            the last step; None if all are finite.
        """
        pending, self._pending = self._pending, []
        losses = _numbers_if_ready([outcome.loss for outcome, _ in pending])
        wrong = _numbers_if_ready([outcome.wrong for outcome, _ in pending])
        for i, loss in enumerate(losses or ()):
            if not math.isfinite(loss):
                return len(pending) - i
        counts = [samples for _, samples in pending]
        self.seen += sum(counts)
        self._loss = _plus(self._loss, losses and _times(losses, counts))
        self._wrong = _plus(self._wrong, wrong)
        return None

    def means(self) -> dict[str, float | None]:
        """Give ``running_loss`` and ``running_error``, None where they are not known."""
        n = self.seen
        return {
            "running_loss": None if self._loss is None or not n else self._loss / n,
            "running_error": None if self._wrong is None or not n else self._wrong / n,
        }

    def state(self) -> dict[str, Any]:
        """Give the sums as JSON values."""
        return {"seen": self.seen, "loss": self._loss, "wrong": self._wrong}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the sums."""
        self.seen, self._loss, self._wrong = state["seen"], state["loss"], state["wrong"]


def _numbers_if_ready(numbers: list[Tensor | None]) -> list[Any] | None:
    ready = [number for number in numbers if number is not None]
    if len(ready) < len(numbers):
        return None
    # One wait for all: each alone would make an accelerator wait for the processor.
    return torch.stack(ready).tolist() if ready else []


def _times(means: list[float], counts: list[int]) -> list[float]:
    return [mean * count for mean, count in zip(means, counts, strict=True)]


def _plus(total: Any, parts: list[Any] | None) -> Any:
    return None if total is None or parts is None else total + sum(parts)
