"""Copies trained at once: one batch of models a step, each copy with a record of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from thalweg.dynamics.methods import method_kind
from thalweg.dynamics.train import prepare, train
from thalweg.dynamics.training import Training, TrainResult
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Replicable, require
from thalweg.risk.batched_models import BatchedModels, Request
from thalweg.run.progress import Bar, silent

_SIGNATURE = inspect.signature(train)


def train_together(
    risk: Any, starts: Sequence[Tensor], options: Sequence[Mapping[str, Any]]
) -> list[TrainResult]:
    """
    Train from several points in step, the gradients of all as one batch of models.

    Parameters
    ----------
    risk : Replicable
        An `EmpiricalRisk`. What is descended; left as it was found.
    starts : sequence of Tensor
        Where each copy begins, shape (W,).
    options : sequence of mappings
        The arguments of `train` for each copy. ``progress`` is that of the first, for all.

    Returns
    -------
    list of TrainResult
        What `train` gives for each copy, up to the rounding of sums taken in another order. Each
        ends by itself and is resumed by itself, together with others or alone.

    Raises
    ------
    InvalidArgument
        If the landscape is not `Replicable`, or a training takes no mini-batches.
    InvalidProblem
        If the model cannot be evaluated as a batch of models.
    """
    risk = require(risk, Replicable, "together=True", "write together=False")
    copies: BatchedModels = risk.copies(len(starts))
    calls = [
        _arguments(member, w0, own)
        for member, w0, own in zip(copies.members, starts, options, strict=True)
    ]
    progress = calls[0]["progress"]
    trainings = [_prepared(call) for call in calls]
    before = risk.fixed()
    try:
        with progress(sum(training.plan.total for training in trainings), "copies") as bar:
            _go_in_step(copies, trainings, calls, bar)
    finally:
        risk.set_fixed(before)
    return [training.result() for training in trainings]


def _arguments(member: Any, w0: Tensor, own: Mapping[str, Any]) -> dict[str, Any]:
    bound = _SIGNATURE.bind(member, w0, **own)
    bound.apply_defaults()
    return dict(bound.arguments)


def _prepared(call: dict[str, Any]) -> Training:
    # Before a run directory is made.
    if not method_kind(call["optimizer"]).batches or call["batch_size"] is None:
        raise InvalidArgument(
            f"together=True takes mini-batches, got optimizer={call['optimizer']!r} with"
            f" batch_size={call['batch_size']}; write optimizer='sgd', or together=False."
        )
    return prepare(call)


def _go_in_step(
    copies: BatchedModels, trainings: Sequence[Training], calls: Sequence[dict[str, Any]], bar: Bar
) -> None:
    walks = [
        training.steps(call["resume"], silent, call["buffers"])
        for training, call in zip(trainings, calls, strict=True)
    ]
    under_way = [i for i, walk in enumerate(walks) if next(walk, _END) is None]
    bar.update(sum(training.step for training in trainings))
    while under_way:
        copies.prepare([_next_request(i, trainings[i]) for i in under_way])
        bar.update(len(under_way))
        under_way = [i for i in under_way if next(walks[i], _END) is None]


def _next_request(i: int, training: Training) -> Request:
    batch = training.plan.batch(training.step)
    assert batch is not None
    return Request(i, training.w, batch)


_END = object()
