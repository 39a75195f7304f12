"""What a training was asked to do, checked, and the plan of steps that follows from it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.dynamics.schedule import Schedule, describe_schedule, resolve_schedule
from thalweg.errors import InvalidArgument
from thalweg.run.seeds import torch_generator

# Checkpoints over a full-batch training whose interval is not given: its epochs are single steps.
_FULL_BATCH_CHECKPOINTS = 100


@dataclass(frozen=True)
class Settings:
    """The arguments of `thalweg.train` that decide what is computed."""

    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    batch_size: int | None
    schedule: str | Schedule
    epochs: int | None
    steps: int | None
    stop_error: float | None
    stop_loss: float | None
    clip: float | None
    seed: int
    every: int | None
    evaluate_every: Literal["epoch", "end"] | int
    temperature: float | None = None

    def __post_init__(self) -> None:
        resolve_schedule(self.schedule)
        if (self.epochs is None) == (self.steps is None):
            raise InvalidArgument(
                f"epochs={self.epochs} and steps={self.steps}: the length of a training is one of"
                " them. Write epochs=20, or steps=10000."
            )
        for name in ("lr", "clip"):
            _check_value(name, getattr(self, name), lambda value: value > 0, "a positive number")
        for name in ("momentum", "weight_decay", "stop_error", "temperature"):
            _check_value(name, getattr(self, name), lambda value: value >= 0, "a number from 0 on")
        for name in ("batch_size", "every", "evaluate_every", "epochs", "steps"):
            value = getattr(self, name)
            if name == "evaluate_every" and value in ("epoch", "end"):
                continue
            _check_value(name, value, _is_count, "a whole number from 1 on")

        if self.temperature is not None and self.optimizer != "langevin":
            raise InvalidArgument(
                f"optimizer={self.optimizer!r} with temperature={self.temperature}: only"
                " optimizer='langevin' has one; write that, or leave out temperature."
            )

    def describe(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self) | {"schedule": describe_schedule(self.schedule)}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_value(name: str, value: Any, good: Any, expected: str) -> None:
    if value is None:
        return
    if isinstance(value, str) or not good(value) or not math.isfinite(value):
        raise InvalidArgument(f"{name}={value!r}; write {expected}.")


class Plan:
    """
    Which samples each step sees, and what happens after which step.

    Parameters
    ----------
    settings : Settings
        What was asked for.
    samples : int or None
        Number of training samples; None for full-batch steps, each an epoch of its own.
    recorded : bool
        Whether there is a run to write checkpoints to.
    """

    def __init__(self, settings: Settings, samples: int | None, *, recorded: bool) -> None:
        self.settings, self.samples = settings, samples
        batch = settings.batch_size
        self.steps_per_epoch = 1 if samples is None or batch is None else -(-samples // batch)
        epochs = settings.epochs
        self.total = settings.steps or (epochs or 0) * self.steps_per_epoch
        self._every = settings.every or (self._default_every() if recorded else self.total)
        self._factor = resolve_schedule(settings.schedule)
        self._order: tuple[int, Tensor] | None = None

    def _default_every(self) -> int:
        if self.samples is not None:
            return self.steps_per_epoch
        return -(-self.total // _FULL_BATCH_CHECKPOINTS)

    def rate(self, step: int) -> float:
        """Learning rate of the step that follows ``step`` completed ones."""
        return self.settings.lr * float(self._factor(step / self.total))

    def batch(self, step: int) -> Tensor | None:
        """Indices of the samples of the step that follows ``step`` completed ones."""
        if self.samples is None:
            return None
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch_generator(self.settings.seed, "order", epoch)
            self._order = epoch, torch.randperm(self.samples, generator=generator)
        return self._order[1][self._bound(place) : self._bound(place + 1)]

    def batch_length(self, step: int) -> int:
        """Number of samples of the step that follows ``step`` completed ones."""
        place = step % self.steps_per_epoch
        return 1 if self.samples is None else self._bound(place + 1) - self._bound(place)

    def _bound(self, place: int) -> int:
        # Nearly equal batches: a last one of a single sample would break batch norm.
        return (self.samples or 0) * place // self.steps_per_epoch

    def keeps(self, step: int) -> bool:
        """Say whether a checkpoint is due after ``step`` steps."""
        return step % self._every == 0 or step == self.total

    def evaluates(self, step: int) -> bool:
        """Say whether a full measurement is due after ``step`` steps."""
        every = self.settings.evaluate_every
        if every == "end":
            return step == self.total
        interval = self.steps_per_epoch if every == "epoch" else every
        return step % interval == 0 or step == self.total

    def notes(self, step: int) -> bool:
        """Say whether a row of the history is due after ``step`` steps."""
        if self.evaluates(step):
            return True
        every = self.steps_per_epoch if self.samples is not None else (self.settings.every or 1)
        return step > 0 and step % every == 0


def digest(w: Tensor) -> str:
    """Hash a weight vector: the same for the same numbers in the same dtype."""
    plain = w.detach().cpu().contiguous()
    content = plain.view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(str(plain.dtype).encode() + content).hexdigest()[:32]
