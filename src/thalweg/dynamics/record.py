"""Recording any training loop: checkpoints and metrics as it goes, the training unchanged."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.dynamics.optimizer_steps import weights_of
from thalweg.dynamics.recorder import Recorder
from thalweg.dynamics.recorder_warnings import MARKING
from thalweg.errors import InvalidArgument
from thalweg.run.store import Run

logger = logging.getLogger("thalweg")


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


def _listed(one_or_many: Any) -> list[Any]:
    if one_or_many is None:
        return []
    optimizers = list(one_or_many) if _is_series(one_or_many) else [one_or_many]
    for optimizer in optimizers:
        has_state = all(hasattr(optimizer, name) for name in ("state_dict", "load_state_dict"))
        if not has_state or isinstance(optimizer, nn.Module):
            raise InvalidArgument(
                f"got a {type(optimizer).__name__} as the optimizer, expected a torch optimizer, a"
                f" list of them, or None where the weights are changed by hand. {MARKING}"
            )
    return optimizers


def _is_series(optimizers: Any) -> bool:
    return hasattr(optimizers, "__iter__") and not hasattr(optimizers, "state_dict")


def _check_trains(optimizers: Sequence[Any], model: nn.Module) -> None:
    of_model = {id(parameter) for parameter in model.parameters()}
    for optimizer in optimizers:
        weights = weights_of(optimizer)
        if weights and not any(id(weight) in of_model for weight in weights):
            logger.warning(
                "recording: the %s holds none of the model's weights: its steps are counted, and"
                " the weights that are recorded may not be those it trains.",
                type(optimizer).__name__,
            )
