"""One training under way: the loop, what it measures, what it keeps, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.dynamics.checkpoint_writer import CheckpointWriter, split_state
from thalweg.dynamics.landscape_state import LandscapeState
from thalweg.dynamics.methods import method_kind
from thalweg.dynamics.running_metrics import RunningMetrics
from thalweg.dynamics.settings import Plan, Settings, digest
from thalweg.errors import NotDefined
from thalweg.landscape.protocols import (
    Batched,
    Landscape,
    Stepped,
    evaluator,
    placed,
    words_of,
)
from thalweg.result import Result
from thalweg.run.events import Log
from thalweg.run.progress import Bar, Progress

Status = Literal["zero error", "error reached", "loss reached", "finished", "diverged"]

# The longest that a loss which is not finite goes unseen: looking at each would make an
# accelerator wait for the processor at every step.
_STEPS_BETWEEN_LOOKS = 50
# The full pass that decides whether training may stop is made once the running numbers are this
# near: it costs about half an epoch, and running numbers lag behind the weights.
_NEAR_ERROR, _NEAR_SAMPLES, _NEAR_LOSS = 0.005, 3, 2.0

logger = logging.getLogger("thalweg")


@dataclass(frozen=True)
class TrainResult(Result):
    """
    What a training came to.

    Attributes
    ----------
    w : Tensor
        Weights at the end, shape (W,); after a divergence the last ones seen finite.
    status : str
        ``"zero error"``, ``"error reached"`` or ``"loss reached"`` if training was stopped there,
        ``"finished"`` at its full length, ``"diverged"`` if a loss or weight was not finite.
    step : int
        The number of steps that led to ``w``.
    history : list of dict
        Rows with ``step``, ``epoch`` (completed ones, a float), ``lr`` (of the step before),
        ``loss`` and ``error`` of the landscape and ``test_loss`` and ``test_error`` at these
        weights (None where they were not measured or are not defined), ``running_loss`` and
        ``running_error``: means over the samples that training met since the row before, each at
        the weights of its own step.
    checkpoints : list of Path
        The files, in the order of their steps; none without a run.
    snapshots : list of (int, Tensor)
        Steps and weights, without a run.
    buffers : dict of str to Tensor
        The model's buffers at the end, as training left them.
    diverged_at : int or None
        How many steps had been taken when a loss or weight was first seen not finite.
    """

    w: Tensor
    status: Status
    step: int
    history: list[dict[str, Any]]
    checkpoints: list[Path] = field(default_factory=list)
    snapshots: list[tuple[int, Tensor]] = field(default_factory=list)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    diverged_at: int | None = None


class Training:
    """
    A training, from its first or last kept step to its end.

    Parameters
    ----------
    landscape, test : Landscape
        What is descended, and what is measured along with it.
    w0 : Tensor
        Where it begins.
    settings : Settings
        How.
    writer : CheckpointWriter or None
        Where its checkpoints go; None means that they stay in memory.
    about : mapping
        What else to write into them.
    log : Log or None
        Takes the rows of the history.
    """

    def __init__(
        self,
        landscape: Landscape,
        w0: Tensor,
        settings: Settings,
        *,
        test: Landscape | None,
        writer: CheckpointWriter | None,
        about: Mapping[str, Any],
        log: Log | None,
    ) -> None:
        self.landscape, self.test, self.settings = landscape, test, settings
        self.writer, self.about, self.log = writer, about, log
        kind = method_kind(settings.optimizer)
        self.w = placed(landscape, w0)
        batches = kind.batches and settings.batch_size is not None
        samples = landscape.samples if batches and isinstance(landscape, Batched) else None
        self.plan = Plan(settings, samples, recorded=writer is not None)
        self.method = kind.make(landscape, self.w, settings)
        self.identity = settings.describe() | {
            "w0": digest(self.w),
            "landscape": words_of(landscape),
            "test": None if test is None else words_of(test),
        }
        self._state = LandscapeState(landscape)
        self._stepping = landscape.stepping if isinstance(landscape, Stepped) else nullcontext
        self._evaluate = evaluator(landscape)
        self._evaluate_test = None if test is None else evaluator(test)
        self.running_metrics = RunningMetrics()
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.snapshots: list[tuple[int, Tensor]] = []
        self.status: Status | None = None
        self.diverged_at: int | None = None

    def run(
        self, resume: bool, progress: Progress, buffers: Mapping[str, Tensor] | None
    ) -> TrainResult:
        """Take all steps that are left; ``buffers`` are those to begin with."""
        with self._state.left_as_found():
            with self._under_way(resume, progress, buffers) as bar:
                while self.status is None:
                    with self._stepping():  # ends before anything is told
                        while not self._step(bar):
                            pass
                    self._look_after()
            return self.result()

    def steps(
        self, resume: bool, progress: Progress, buffers: Mapping[str, Tensor] | None
    ) -> Iterator[None]:
        """Take all steps that are left, stopping before each."""
        with self._under_way(resume, progress, buffers) as bar:
            while self.status is None:
                yield
                if self._step(bar):
                    self._look_after()

    @contextmanager
    def _under_way(
        self, resume: bool, progress: Progress, buffers: Mapping[str, Tensor] | None
    ) -> Iterator[Bar]:
        self._state.set_fixed(buffers or {})
        self._begin(resume)
        label = self.writer.trajectory if self.writer else "training"
        with progress(self.plan.total, label) as bar:
            bar.update(self.step)
            yield bar

    def _begin(self, resume: bool) -> None:
        recorded = None
        if self.writer is not None and not resume:
            self.writer.check_new()
        elif self.writer is not None:
            recorded = self.writer.resume(self.identity)
        if recorded is not None:
            self._restore(*recorded)
        else:
            if self.plan.notes(0):
                self._note()
            self._keep_checkpoint()
        self._good = self.step, self.w.clone(), self._state.buffers()

    def _step(self, bar: Bar) -> bool:
        """Take one, and say whether it is to be looked at."""
        plan, step = self.plan, self.step
        batch = plan.batch(step)
        outcome = self.method.step(step, batch, plan.rate(step))
        if batch is not None and outcome.wrong is None and self.settings.stop_error is not None:
            raise _no_error()
        self.running_metrics.add(outcome, plan.batch_length(step))
        self.step = step + 1
        bar.update(1)
        due = plan.notes(self.step) or plan.keeps(self.step)
        return due or self.step % _STEPS_BETWEEN_LOOKS == 0

    def _look_after(self) -> None:
        notes, keeps = self.plan.notes(self.step), self.plan.keeps(self.step)
        behind = self.running_metrics.settle()
        if behind is not None or not bool(torch.isfinite(self.w).all()):
            self._diverge(self.step - (behind or 0))
            return
        if notes:
            self._note()
        if self.status is None and self.step == self.plan.total:
            self.status = "finished"
        if keeps or self.status is not None:
            self._keep_checkpoint()
        self._good = self.step, self.w.clone(), self._state.buffers()

    def _note(self) -> None:
        step, plan = self.step, self.plan
        epoch, lr = step / plan.steps_per_epoch, plan.rate(max(step - 1, 0))
        row = {"step": step, "epoch": epoch, "lr": lr, **self.running_metrics.means()}
        closes = step > 0 and (step % plan.steps_per_epoch == 0 or step == plan.total)
        full = plan.evaluates(step) or (closes and self._is_near(row))
        row |= self._measure() if full else dict.fromkeys(_MEASURED)
        self.running_metrics.clear()
        self.history.append(row)
        for log in (self.log, self.writer.log if self.writer else None):
            if log is not None:
                log({name: value for name, value in row.items() if name != "step"}, step)
        if closes and full:
            self.status = self._reached(row)

    def _is_near(self, row: Mapping[str, Any]) -> bool:
        stop_error, stop_loss = self.settings.stop_error, self.settings.stop_loss
        error, loss = row["running_error"], row["running_loss"]
        margin = max(_NEAR_ERROR, _NEAR_SAMPLES / (self.plan.samples or 1))
        return (stop_error is not None and (error is None or error <= stop_error + margin)) or (
            stop_loss is not None and (loss is None or loss <= stop_loss * _NEAR_LOSS)
        )

    def _measure(self) -> dict[str, float | None]:
        train = self._evaluate(self.w)
        test = {} if self._evaluate_test is None else self._evaluate_test(self.w)
        values = (train["loss"], train.get("error"), test.get("loss"), test.get("error"))
        return dict(zip(_MEASURED, values, strict=True))

    def _reached(self, row: Mapping[str, Any]) -> Status | None:
        stop_error, stop_loss = self.settings.stop_error, self.settings.stop_loss
        if stop_error is not None and row["error"] is None:
            raise _no_error()
        if stop_error is not None and row["error"] <= stop_error:
            return "zero error" if row["error"] == 0 else "error reached"
        if stop_loss is not None and row["loss"] <= stop_loss:
            return "loss reached"
        return None

    def _diverge(self, at: int) -> None:
        self.status, self.diverged_at = "diverged", at
        self.step, w, buffers = self._good
        self.w.copy_(w)
        self._state.set_buffers(buffers)
        self._keep_checkpoint()
        logger.warning(
            "training diverged: after %d steps the loss or a weight was not finite. What was"
            " computed up to step %d is kept. A smaller lr or clip=1.0 may help.",
            *(at, self.step),
        )

    def _keep_checkpoint(self) -> None:
        if self.writer is None:
            if not self.snapshots or self.snapshots[-1][0] != self.step:
                self.snapshots.append((self.step, self.w.clone()))
            return
        tensors, structure = ({}, None) if self.status == "diverged" else self.method.state()
        weights = self.landscape.space.unpack(self.w)
        self.writer.keep(
            self.step, {**weights, **self._state.fixed(), **tensors}, self._describe(structure)
        )

    def _describe(self, structure: Any) -> dict[str, Any]:
        row = self.history[-1] if self.history and self.history[-1]["step"] == self.step else {}
        return {
            **self.about,
            "epoch": self.step / self.plan.steps_per_epoch,
            "parameters": list(self.landscape.space.names),
            **{name: row.get(name) for name in (*_MEASURED, "running_loss", "running_error")},
            "seed": self.settings.seed,
            "status": self.status,
            "diverged_at": self.diverged_at,
            "settings": self.identity,
            "history": self.history,
            "tally": self.running_metrics.state(),
            "optimizer": structure,
        }

    def _restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        w, fixed = split_state(self.landscape.space, tensors)
        self.w.copy_(w)
        self._state.set_fixed(fixed)
        self.step, self.history, self.status = about["step"], about["history"], about["status"]
        self.diverged_at = about["diverged_at"]
        self.running_metrics.restore(about["tally"])
        if self.status is None:
            self.method.restore(tensors, about["optimizer"])

    def result(self) -> TrainResult:
        """Give what it came to, once it has ended."""
        assert self.status is not None
        return TrainResult(
            w=self.w,
            status=self.status,
            step=self.step,
            history=self.history,
            checkpoints=self.writer.paths() if self.writer else [],
            snapshots=self.snapshots,
            buffers=self._state.buffers(),
            diverged_at=self.diverged_at,
        )


_MEASURED = ("loss", "error", "test_loss", "test_error")


def _no_error() -> NotDefined:
    return NotDefined(
        "stop_error is given, and this landscape has no classification error: it is a regression"
        " or shows no outputs. Write stop_loss=... instead."
    )
