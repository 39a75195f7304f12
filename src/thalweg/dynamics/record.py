"""Recording any training loop: checkpoints and metrics as it goes, the training unchanged."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from thalweg.dynamics.background_writer import BackgroundWriter
from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.dynamics.optimizer_state import set_rng
from thalweg.dynamics.optimizer_steps import Rounds, StepWatch, weights_of
from thalweg.dynamics.recorded_state import (
    Moment,
    fingerprint,
    optimizers_state,
    plain_names,
    restore_model,
    restore_optimizers,
    versions,
)
from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.run.store import Run

logger = logging.getLogger("thalweg")

# Logs in a row, with changed weights at each and no step between, from which on steps are taken
# that are not seen. One or two happen where averaged weights are evaluated, or between the two
# halves of a sharpness-aware step.
_UNSEEN = 3
# Up to so many optimizers the moment behind each of their steps is taken. Of more (one for each
# weight) that would cost as much as the training, and it is taken once the round is whole.
_FEW = 8
_RESERVED = ("step", "trajectory")
_MARKING = "Call recorder.mark() at the end of each step, after the weights were changed."


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
        self._told: set[str] = set()
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
            restore_model(self.model, tensors, about)
            restore_optimizers(self.optimizers, self.model, tensors, about)
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
                self._keep(self._moment or self._now())
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
        self._say_of_strangers()
        if not self._stopped:
            few = len(self._watch.participants) <= _FEW
            self._moment = self._now() if few or self._rounds.finished else None

    def _end_step(self, moment: Moment) -> None:
        """Keep what is due once a step is over: when the next one begins, or at a mark."""
        self._rounds.close()
        if self.step % self._every == 0:
            self._keep(moment)
            self._metrics = {}

    @_never_raising
    def _mark(self) -> None:
        if not self._entered:
            self._say_once("outside", _OUTSIDE)
            return
        self._part_from_old()
        counted = self.step - self._first
        if self._by_hand or counted == 0:
            self.step += 1
        elif counted > 1:
            self._say_once(
                "late mark",
                f"{counted} steps of the optimizers were counted before the first"
                f" recorder.mark(); from here on marks alone count, and this is step {self.step}."
                " To count marks from the beginning, write tw.record(..., by_hand=True).",
            )
        self._by_hand = self._seen = True
        self._looked, self._unseen = None, 0
        self._end_step(self._now())

    @_never_raising
    def _log(self, metrics: dict[str, float]) -> None:
        if not self._entered and self._kept is None:
            self._say_once("outside", _OUTSIDE)
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
            self._say_once(
                f"metric {name}",
                f"the metric {name!r} is left out: {type(value).__name__} is no number ({error})."
                " Log numbers, such as loss=float(loss).",
            )
            return None

    def _part_from_old(self) -> None:
        """Record under another name where there is a trajectory that nobody asked to go on."""
        if not self._old:
            return
        old, self._writer = self._writer, self._writer.beside()
        self._say_once(
            "old",
            f"trajectory {old.trajectory!r} of {old.run.path} has {len(self._old)} checkpoints"
            f" already; this training is recorded as {self._writer.trajectory!r}. Call"
            " recorder.restore() before the loop to go on from the last, or write"
            " trajectory='another name'.",
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
            self._say_once(
                "unseen",
                f"the weights change and no step is seen (counted: {self.step}). {_MARKING}",
            )

    @_never_raising
    def _say_what_was_not_seen(self) -> None:
        if self._seen or self._at_first in (None, fingerprint(self.model)):
            return
        logger.warning(
            "the weights have changed and no step was seen: of trajectory %r there are no"
            " checkpoints after step %d. %s",
            *(self._writer.trajectory, self.step, _MARKING),
        )

    def uncounted_step(self, optimizer: Any) -> None:
        """Hear that an optimizer is about to change weights that no given one has."""
        if not self._by_hand:
            self._say_once(
                f"stranger {id(optimizer)}",
                f"an optimizer ({type(optimizer).__name__}) that was not given to tw.record changes"
                " weights of the model. Its steps are not counted and its state is not kept: give"
                " all, tw.record(model, [...]), or call recorder.mark() at the end of each step.",
            )

    def _say_of_strangers(self) -> None:
        for optimizer in self._watch.strangers:
            self._say_once(
                f"stranger {id(optimizer)}",
                f"steps of an optimizer ({type(optimizer).__name__}) that was not given to"
                " tw.record are counted, for it changes the same weights; its state is not kept,"
                " so recorder.restore() cannot go on exactly. Give all: tw.record(model, [...]).",
            )

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
            self._keep(self._moment)
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
        self._keep(self._moment if broken else self._now())

    def _keep(self, moment: Moment | None) -> None:
        if self._stopped or moment is None:
            return
        rename = plain_names(self.model)
        kept = moment.state().renamed(rename)
        if kept.left_out:
            self._say_what_is_left_out(kept.left_out)
        tensors, about = self._optimizers_state(moment)
        about |= {
            "parameters": list(map(rename, moment.trained)),
            "loss": self._metrics.get("loss"),
            "error": self._metrics.get("error"),
            "metrics": self._metrics,
            "extra": kept.extra,
            "left_out": kept.left_out,
        }
        self._background.keep(self._writer, self.step, kept.tensors | tensors, about)
        self._kept = self.step

    def _optimizers_state(self, moment: Moment) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return optimizers_state(self.optimizers, moment.groups, self.model)
        except Exception as error:
            self._say_once(
                "optimizers",
                f"the state of the optimizer cannot be kept: {error} The weights are recorded;"
                " recorder.restore() will refuse.",
            )
            return {}, {"optimizers": None, "groups": []}

    def _say_what_is_left_out(self, left_out: dict[str, str]) -> None:
        listed = "; ".join(f"{name} ({reason})" for name, reason in sorted(left_out.items())[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        self._say_once("left out", f"checkpoints leave out {listed}{more}. The rest is recorded.")

    def _say_once(self, key: str, message: str) -> None:
        if key not in self._told:
            self._told.add(key)
            logger.warning("recording: %s", message)

    def _stop(self, error: Exception) -> None:
        """Give up recording, say so once, and let the training go on."""
        self._stopped = True
        written, failed = self._background.written, self._background.failed
        kept = "nothing" if written is None else f"the checkpoints up to step {written}"
        self._say_once(
            "stopped",
            f"stopped at step {self.step if failed is None else failed} by"
            f" {type(error).__name__}: {error}. The training goes on; {kept} of trajectory"
            f" {self._writer.trajectory!r} in {self._writer.root} stay, what follows is lost.",
        )


_OUTSIDE = (
    "nothing is recorded outside of the block: write 'with tw.record(...) as recorder:' around the"
    " loop."
)


def record(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None,
    *,
    run: Run | str | os.PathLike[str],
    every: int = 100,
    trajectory: str = "main",
    by_hand: bool = False,
) -> Recorder:
    """
    Record any training loop: a context manager around it.

    Inside the block a checkpoint is kept before the first step, after each ``every`` steps of the
    training, and at the end, also where the block ends by an error or Ctrl-C. Each holds the
    model's weights, trained and frozen, the rest of its ``state_dict``, the optimizers' states and
    torch's global random state, under the names of the plain model where it is compiled or
    wrapped. The training itself is not touched: its weights are the same, bit for bit, with and
    without recording, and nothing that goes wrong in a recorder ends it: the recorder warns once
    (logger "thalweg") and stops.

    Parameters
    ----------
    model : nn.Module
        What is trained; several networks as one ``nn.ModuleDict``.
    optimizer : torch.optim.Optimizer, sequence of them, or None
        What trains it. Their steps are counted, and those of any other that changes the same
        weights, such as the inner optimizer of a sharpness-aware one; of one that changes other
        weights of the model it is said that it was not given. Where several take turns, a
        step of the training is a round in which each steps at most once, in the order in which
        they first did. A step that a gradient scaler skips is none. None: see ``by_hand``.
        Learning-rate schedulers and gradient scalers may stand in the sequence, for their states
        to be kept with the rest.
    run : Run or path
        Where to record; a plain run directory is made at a new path.
    every : int
        Steps between checkpoints.
    trajectory : str
        Name of this training in the run. Where it is taken and ``restore()`` is not called, the
        training is recorded under the next free name (``"main-2"``), and that is said.
    by_hand : bool
        Count a step where ``recorder.mark()`` is called, and nowhere else: for weights changed by
        hand, or another idea of a step. Without an optimizer it is always so.

    Returns
    -------
    Recorder
        With ``log(loss=..., error=...)``, ``mark()``, ``step``, and ``restore()``, which goes back
        to the last checkpoint and returns its step.

    Raises
    ------
    InvalidArgument
        If ``every`` is less than one, the model or an optimizer is none, or no run can be made.
    RunConflict
        If ``run`` is a folder that holds something else.

    Notes
    -----
    A resumed loop repeats the rest exactly if its data follow from the step or from torch's global
    generators at a step's beginning, and if all that has a state of its own (optimizers,
    schedulers, a gradient scaler) was given. The checkpoint of a step is taken when the next one
    begins, or at the end of the block: what follows an optimizer's step (``log``, a scheduler's
    step, clipped weights) belongs to it. It is copied at once and written by a thread, at most two
    at a time: a disk that does not follow makes the training wait, and memory holds two copies of
    the state. Of the processes of a distributed training, the first one records.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with record(model, optimizer, run=folder, every=2) as recorder:
    ...         for _ in range(recorder.restore(), 5):
    ...             loss = model(torch.ones(1, 2)).square().sum()
    ...             optimizer.zero_grad()
    ...             loss.backward()
    ...             optimizer.step()
    ...     recorder.step
    5
    """
    if every < 1:
        raise InvalidArgument(f"every={every}; write a number of steps from 1 on.")
    if not isinstance(model, nn.Module):
        raise InvalidArgument(
            f"got a {type(model).__name__} as the model, expected a torch.nn.Module; join several"
            " networks as torch.nn.ModuleDict({'generator': g, 'critic': c})."
        )
    optimizers = _listed(optimizer)
    _check_trains(optimizers, model)
    writer = CheckpointWriter(run, trajectory)
    return Recorder(model, optimizers, writer, every, by_hand or not optimizers)


def _is_first_process() -> bool:
    distributed = torch.distributed
    ours = distributed.is_available() and distributed.is_initialized()
    return not ours or distributed.get_rank() == 0


def _listed(given: Any) -> list[Any]:
    optimizers = [] if given is None else list(given) if _is_series(given) else [given]
    for optimizer in optimizers:
        kept = all(hasattr(optimizer, name) for name in ("state_dict", "load_state_dict"))
        if not kept or isinstance(optimizer, nn.Module):
            raise InvalidArgument(
                f"got a {type(optimizer).__name__} as the optimizer, expected a torch optimizer, a"
                f" list of them, or None where the weights are changed by hand. {_MARKING}"
            )
    return optimizers


def _is_series(given: Any) -> bool:
    return hasattr(given, "__iter__") and not hasattr(given, "state_dict")


def _check_trains(optimizers: Sequence[Any], model: nn.Module) -> None:
    ours = {id(parameter) for parameter in model.parameters()}
    for optimizer in optimizers:
        weights = weights_of(optimizer)
        if weights and not any(id(weight) in ours for weight in weights):
            logger.warning(
                "recording: the %s holds none of the model's weights: its steps are counted, and"
                " the weights that are recorded may not be those it trains.",
                type(optimizer).__name__,
            )
