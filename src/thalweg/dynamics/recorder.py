"""What watches a training loop and keeps its checkpoints and metrics; see `record`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from thalweg.dynamics.background_writer import BackgroundWriter
from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.dynamics.optimizer_state import set_rng
from thalweg.dynamics.optimizer_steps import Rounds, StepWatch
from thalweg.dynamics.recorded_state import (
    Moment,
    fingerprint,
    optimizers_state,
    plain_names,
    recorded_states,
    restore_model,
    restore_optimizers,
    versions,
)
from thalweg.dynamics.recorder_warnings import MARKING, RecorderWarnings
from thalweg.errors import CheckpointMismatch

logger = logging.getLogger("thalweg")

# Logs in a row, with changed weights at each and no step between, from which on steps are taken
# that are not seen. One or two happen where averaged weights are evaluated, or between the two
# halves of a sharpness-aware step.
_UNSEEN = 3
# Up to so many optimizers the moment behind each of their steps is taken. Of more (one for each
# weight) that would cost as much as the training, and it is taken once the round is whole.
_FEW = 8
_RESERVED = ("step", "trajectory")


def _never_raising(method: Callable[..., None]) -> Callable[..., None]:
    """Let no error out of a method that the user's training runs through."""

    @functools.wraps(method)
    def guarded(self: Recorder, *arguments: Any, **named: Any) -> None:
        try:
            method(self, *arguments, **named)
        except Exception as error:
            self._stop(error)

    return guarded


class Recorder:
    """
    Watches a training and keeps what a later look or an exact resume needs; see `record`.

    Attributes
    ----------
    step : int
        How many steps the training has taken.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Any],
        writer: CheckpointWriter,
        every: int,
        by_hand: bool,
    ) -> None:
        self.model, self.optimizers = model, tuple(optimizers)
        self.step = 0
        self._writer, self._every, self._by_hand = writer, every, by_hand
        self._background = BackgroundWriter()
        self._watch = StepWatch(self.optimizers, model, self, self._stop)
        self._rounds = Rounds(len(self._watch.participants))
        self._metrics: dict[str, float] = {}
        self._kept: int | None = None
        self._old: list[Path] = []
        self._moment: Moment | None = None
        self._first, self._seen, self._unseen = 0, False, 0
        self._at_first: tuple[int, ...] | None = None
        self._looked: tuple[int, ...] | None = None
        self._warnings = RecorderWarnings()
        self._entered = self._stopped = False

    def __enter__(self) -> Self:
        self._entered = True
        self._enter()
        self._watch.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.detach()
        self._entered = False
        self._keep_end(broken=error is not None)
        self.flush()
        self._say_what_was_not_seen()

    def log(self, **metrics: float | Tensor) -> None:
        """
        Note metrics of the present step, such as ``loss=..., error=...``.

        What is no number is left out, and said.
        """
        numbers = {name: self._number(name, value) for name, value in metrics.items()}
        self._log({name: number for name, number in numbers.items() if number is not None})

    def mark(self) -> None:
        """
        Say that a step of the training ends here.

        For loops whose steps cannot be seen: weights that are changed by hand, an optimizer
        without ``step``, or weights that are changed once more after it. From the first mark on
        marks alone count. One that follows the first step of an optimizer marks that step.
        """
        self._mark()

    def restore(self) -> int:
        """
        Load the last checkpoint back into model, optimizers and torch's global generators.

        Which weights are trained, and parameter groups that were added on the way, come back too.

        Returns
        -------
        int
            The step it was kept at, 0 if there is none: the loop goes on from there.

        Raises
        ------
        CheckpointMismatch
            If the model or the optimizers are not of the kind that was recorded.
        """
        self.flush()
        latest = self._writer.latest()
        self._old = []
        if latest is None:
            if self._kept is None:
                self._keep_beginning()
            return self.step
        tensors, about = latest
        try:
            states = recorded_states(self.optimizers, tensors, about)
            restore_model(self.model, tensors, about)
            restore_optimizers(self.optimizers, self.model, states, about)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointMismatch(
                f"the last checkpoint of {self._writer.trajectory!r} does not fit: {error}"
            ) from None
        set_rng(tensors)
        self.step = self._kept = self._background.written = about["step"]
        self._begin()
        return self.step

    @_never_raising
    def flush(self) -> None:
        """Wait until every checkpoint kept so far lies on the disk; leaving the block does so."""
        self._background.finish()

    @_never_raising
    def _enter(self) -> None:
        self._begin()
        self._stopped = not _is_first_process()
        if self._kept is None and not self._stopped:
            self._old = self._writer.paths()
        if not self._old:
            self._keep_beginning()

    def _begin(self) -> None:
        self._first, self._seen = self.step, False
        self._at_first = self._looked = fingerprint(self.model)
        self._unseen = 0
        self._rounds = Rounds(len(self._watch.participants))
        self._moment = self._now()

    def before_step(self, who: int) -> None:
        """Hear that an optimizer is about to step."""
        self._part_from_old()
        if not self._seen:
            self._keep_beginning()
        if self._by_hand or not self._rounds.open:
            return
        if self._rounds.comes_new(who):
            # Perhaps the last step ends here, perhaps it goes on: then it is kept again.
            if self.step % self._every == 0:
                self._keep_checkpoint(self._moment or self._now())
            return
        self.step += self._rounds.took_over(who)
        if self._rounds.begins(who):
            self._end_step(self._moment or self._now())

    def after_step(self, who: int) -> None:
        """Hear that an optimizer has stepped."""
        if self._by_hand:
            return
        self._looked, self._unseen = None, 0
        if self._rounds.begins(who):
            self.step, self._seen = self.step + 1, True
        self._rounds.add(who)
        for stranger in self._watch.strangers:
            self._warnings.counted_optimizer(stranger)
        if not self._stopped:
            few = len(self._watch.participants) <= _FEW
            self._moment = self._now() if few or self._rounds.finished else None

    def _end_step(self, moment: Moment) -> None:
        """Keep what is due once a step is over: when the next one begins, or at a mark."""
        self._rounds.close()
        if self.step % self._every == 0:
            self._keep_checkpoint(moment)
            self._metrics = {}

    @_never_raising
    def _mark(self) -> None:
        if not self._entered:
            self._warnings.outside()
            return
        self._part_from_old()
        counted = self.step - self._first
        if self._by_hand or counted == 0:
            self.step += 1
        elif counted > 1:
            self._warnings.late_mark(counted, self.step)
        self._by_hand = self._seen = True
        self._looked, self._unseen = None, 0
        self._end_step(self._now())

    @_never_raising
    def _log(self, metrics: dict[str, float]) -> None:
        if not self._entered and self._kept is None:
            self._warnings.outside()
        elif not self._stopped:
            if self._entered:
                self._part_from_old()
                self._look_for_unseen()
            self._metrics |= metrics
            self._writer.log(metrics, self.step)

    def _number(self, name: str, value: Any) -> float | None:
        """Give the value as a number; None where it is none."""
        try:
            if name in _RESERVED:
                raise TypeError("a name of the recorder's own")
            return float(value.detach() if isinstance(value, Tensor) else value)
        except Exception as error:
            self._warnings.no_number(name, value, error)
            return None

    def _part_from_old(self) -> None:
        """Record under another name where there is a trajectory that nobody asked to go on."""
        if not self._old:
            return
        taken, self._writer = self._writer, self._writer.beside()
        self._warnings.other_trajectory(
            *(taken.trajectory, taken.run.path, len(self._old), self._writer.trajectory)
        )
        self._old = []
        if self._at_first == fingerprint(self.model):
            self._keep_beginning()

    def _look_for_unseen(self) -> None:
        """Notice weights that change from log to log while no step is counted."""
        if self._watch.within_step:
            return
        # What writes behind torch's back leaves the versions as they are; the bits of all weights
        # are worth their price only until a step was seen.
        now = versions(self.model) if self._seen else fingerprint(self.model)
        if self._looked is not None:
            self._unseen = self._unseen + 1 if now != self._looked else 0
        self._looked = now
        if self._unseen == _UNSEEN:
            self._warnings.unseen_steps(self.step)

    @_never_raising
    def _say_what_was_not_seen(self) -> None:
        if self._seen or self._at_first in (None, fingerprint(self.model)):
            return
        logger.warning(
            "the weights have changed and no step was seen: of trajectory %r there are no"
            " checkpoints after step %d. %s",
            *(self._writer.trajectory, self.step, MARKING),
        )

    def uncounted_step(self, optimizer: Any) -> None:
        """Hear that an optimizer is about to change weights that no given one has."""
        if not self._by_hand:
            self._warnings.uncounted_optimizer(optimizer)

    def _now(self) -> Moment:
        return Moment.now(self.model, self.optimizers)

    @_never_raising
    def _keep_beginning(self) -> None:
        """
        Keep the checkpoint before the first step.

        Again where metrics were logged since, and late where weights had not been made before (lazy
        layers): the first forward pass, which makes them, is no step.
        """
        if self._at_first is None:
            if fingerprint(self.model) is None:
                return
            self._begin()
        late_metrics = self._metrics and not self.step
        if self._kept is None or (late_metrics and self._at_first == fingerprint(self.model)):
            self._keep_checkpoint(self._moment)
            self._metrics = {}

    @_never_raising
    def _keep_end(self, *, broken: bool) -> None:
        if self._old:
            return
        if self.step == self._first and self._at_first == fingerprint(self.model):
            self._keep_beginning()
        if self.step in (self._first, self._kept):
            return
        # A step that was interrupted half-way leaves weights that belong to no step.
        half_way = self._watch.within_step or (self._by_hand and self._seen)
        if broken and (half_way or (self._rounds.open and not self._rounds.finished)):
            return
        self._keep_checkpoint(self._moment if broken else self._now())

    def _keep_checkpoint(self, moment: Moment | None) -> None:
        if self._stopped or moment is None:
            return
        rename = plain_names(self.model)
        recorded = moment.state().renamed(rename)
        if recorded.left_out:
            self._warnings.left_out(recorded.left_out)
        tensors, about = self._optimizers_state(moment)
        about |= {
            "parameters": list(map(rename, moment.trained)),
            "loss": self._metrics.get("loss"),
            "error": self._metrics.get("error"),
            "metrics": self._metrics,
            "extra": recorded.extra,
            "left_out": recorded.left_out,
        }
        self._background.keep(self._writer, self.step, recorded.tensors | tensors, about)
        self._kept = self.step

    def _optimizers_state(self, moment: Moment) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return optimizers_state(self.optimizers, moment.groups, self.model)
        except Exception as error:
            self._warnings.optimizers_not_kept(error)
            return {}, {"optimizers": None, "groups": []}

    def _stop(self, error: Exception) -> None:
        """Give up recording, say so once, and let the training go on."""
        self._stopped = True
        written, failed = self._background.written, self._background.failed
        step = self.step if failed is None else failed
        self._warnings.stopped(step, written, self._writer.trajectory, self._writer.root, error)


def _is_first_process() -> bool:
    distributed = torch.distributed
    in_group = distributed.is_available() and distributed.is_initialized()
    return not in_group or distributed.get_rank() == 0
