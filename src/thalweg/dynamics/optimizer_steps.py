"""The steps of a training: which optimizers take them, and where one ends and the next begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

# Where torch wraps the ``step`` of every optimizer to call the hooks.
_HOOKS = "torch.optim.optimizer"


class Stepping(Protocol):
    """What is told of the steps; `who` is one of the participants."""

    def before_step(self, who: int) -> None:
        """Weights are about to change."""

    def after_step(self, who: int) -> None:
        """Weights have changed."""

    def uncounted_step(self, optimizer: Optimizer) -> None:
        """Other weights of the model are about to change, by an optimizer that was not given."""


def inner_optimizers(optimizer: Any) -> list[Any]:
    """
    List the optimizers that another one holds, at any depth.

    Sharpness-aware and look-ahead optimizers hold one; classes that join several hold a list.
    """
    optimizers = [optimizer]
    for holder in optimizers:
        optimizers += [
            inner for inner in _optimizers_in(holder) if not _is_among(inner, optimizers)
        ]
    return optimizers[1:]


def _optimizers_in(holder: Any) -> Iterator[Any]:
    for value in list(getattr(holder, "__dict__", {}).values()):
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, dict | list | tuple):
            items = [value]
        yield from (item for item in items if isinstance(item, Optimizer))


def _is_among(sought: Any, items: Sequence[Any]) -> bool:
    return any(item is sought for item in items)


def distinct(items: Iterable[Any]) -> list[Any]:
    """List the objects, each once."""
    return list({id(item): item for item in items}.values())


def weights_of(optimizer: Any) -> list[Tensor]:
    """List the tensors of all its parameter groups."""
    groups = getattr(optimizer, "param_groups", ())
    return [weight for group in groups for weight in group["params"]]


class StepWatch:
    """
    Watches optimizers and tells of each step they take, once.

    torch calls its hooks for every optimizer of the process. A step counts if the optimizer is one
    of those given, or changes weights of one of them: the inner optimizer of a sharpness-aware one
    whose ``step`` is never called, or one that took another's place. A step within a step (a
    closure, an inner optimizer) is part of it, and one that a `torch.amp.GradScaler` skips is none.

    Parameters
    ----------
    optimizers : sequence
        Optimizers, or objects that hold some.
    model : nn.Module
        What they train.
    listener : Stepping
        What is told.
    failed : callable
        What is told of an error, which must not reach the training.
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        model: nn.Module,
        listener: Stepping,
        failed: Callable[[Exception], None],
    ) -> None:
        self._model = model
        self.participants = distinct(
            participant for optimizer in optimizers for participant in _stepping(optimizer)
        )
        self.strangers: list[Optimizer] = []
        self._known = [
            *optimizers,
            *(i for optimizer in optimizers for i in inner_optimizers(optimizer)),
        ]
        self._listener, self._failed = listener, failed
        self._running: list[Optimizer] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self) -> None:
        """Begin to watch."""
        # A compiled step must not trace into what is done here; loading dynamo takes seconds.
        plain = torch.compiler.disable if "torch._dynamo" in sys.modules else _as_it_is
        self._handles = [
            register_optimizer_step_pre_hook(plain(self._before)),
            register_optimizer_step_post_hook(plain(self._after)),
        ]

    def detach(self) -> None:
        """End watching."""
        for handle in self._handles:
            handle.remove()

    @property
    def within_step(self) -> bool:
        """Whether a step has begun and not ended: it runs, or was broken off by an error."""
        return bool(self._running)

    def _before(self, optimizer: Optimizer, *_: object) -> None:
        try:
            self._begin(optimizer)
        except Exception as error:
            self._failed(error)

    def _after(self, optimizer: Optimizer, *_: object) -> None:
        try:
            self._end(optimizer)
        except Exception as error:
            self._failed(error)

    def _begin(self, optimizer: Optimizer) -> None:
        # A step that an error broke off never ended; its caller caught the error and went on.
        while self._running and not _is_running(self._running[-1]):
            self._running.pop()
        who = self._participant(optimizer)
        if who is None:
            self._look_at_other(optimizer)
            return
        if _skips(optimizer):
            return
        self._running.append(optimizer)
        if len(self._running) == 1:
            self._listener.before_step(who)

    def _end(self, optimizer: Optimizer) -> None:
        if not _is_among(optimizer, self._running):
            return
        while self._running.pop() is not optimizer:
            pass
        who = self._participant(optimizer)
        if who is not None and not self._running:
            self._listener.after_step(who)

    def _look_at_other(self, optimizer: Optimizer) -> None:
        if self._running or _is_among(optimizer, self._known):
            return
        self._known.append(optimizer)
        of_model = {id(weight) for weight in self._model.parameters()}
        if any(id(weight) in of_model for weight in weights_of(optimizer)):
            self._listener.uncounted_step(optimizer)

    def _participant(self, optimizer: Optimizer) -> int | None:
        """Number the participant whose step this is; None if it is none of ours."""
        for number, participant in enumerate(self.participants):
            if participant is optimizer:
                return number
        changed = {id(weight) for weight in weights_of(optimizer)}
        for number, participant in enumerate(self.participants):
            if any(id(weight) in changed for weight in weights_of(participant)):
                if not _is_among(optimizer, self._known):
                    self._known.append(optimizer)
                    self.strangers.append(optimizer)
                return number
        return None


def _as_it_is(hook: Any) -> Any:
    return hook


def _stepping(optimizer: Any) -> list[Any]:
    """Name those whose calls of ``step`` torch tells of: the optimizer, or those it holds."""
    if getattr(getattr(type(optimizer), "step", None), "hooked", False):
        return [optimizer]
    return [participant for inner in _optimizers_in(optimizer) for participant in _stepping(inner)]


def _is_running(optimizer: Optimizer) -> bool:
    """Look for an optimizer's ``step`` among those that go on around the one that begins."""
    frame: FrameType | None = sys._getframe(1)
    around = -1
    while frame is not None:
        if frame.f_code.co_name == "wrapper" and frame.f_globals.get("__name__") == _HOOKS:
            around += 1
            if around and frame.f_locals.get("self") is optimizer:
                return True
        frame = frame.f_back
    return False


def _skips(optimizer: Optimizer) -> bool:
    """Say whether a GradScaler makes a fused optimizer skip its step; others it does not call."""
    overflow = getattr(optimizer, "found_inf", None)
    return overflow is not None and float(overflow) > 0


class Rounds:
    """
    Where several optimizers take turns: which of their steps make one step of the training.

    The order is that in which they first stepped. A step of the training begins where an optimizer
    steps that is not behind the last one in that order, so that each steps at most once in it; two
    of a GAN, a step each, make one, and five of the critic and one of the generator make five.
    Where one takes over from others that had steps of their own until then, its first step looks
    like the end of their last one; its second tells.

    Parameters
    ----------
    count : int
        How many optimizers there are.

    Examples
    --------
    >>> rounds, begun = Rounds(2), 0
    >>> for who in (1, 0, 1, 1, 0):
    ...     begun += rounds.took_over(who) + rounds.begins(who)
    ...     rounds.add(who)
    >>> begun
    3
    """

    def __init__(self, count: int) -> None:
        self._places: dict[int, int] = {}
        self._last = -1
        self._stepped: set[int] = set()
        self._expected = set(range(count))
        self._newcomer: int | None = None
        self.open = False

    def begins(self, who: int) -> bool:
        """Say whether a step of this optimizer begins another step of the training."""
        return not self.open or self._places.get(who, len(self._places)) <= self._last

    def comes_new(self, who: int) -> bool:
        """Say whether an optimizer steps for the first time after others had steps of their own."""
        return self.open and who not in self._places and self._stepped == self._expected

    def took_over(self, who: int) -> bool:
        """Say whether a newcomer steps again at once: its first was a step of its own."""
        return self.open and who == self._newcomer

    def add(self, who: int) -> None:
        """Note that an optimizer has stepped."""
        newcomer = who if self.comes_new(who) else None
        if self.begins(who):
            self._expected, self._stepped = self._stepped or self._expected, set()
        self._last = self._places.setdefault(who, len(self._places))
        self._stepped.add(who)
        self._newcomer = newcomer
        self.open = True

    def close(self) -> None:
        """End the present step of the training."""
        self.open = False

    @property
    def finished(self) -> bool:
        """Whether all have stepped that did in the step before; at first, all there are."""
        return self._expected <= self._stepped
