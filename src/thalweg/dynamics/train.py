"""Training on any landscape: exact to resume, at the price of a plain loop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.dynamics.methods import method_kind
from thalweg.dynamics.schedule import Schedule
from thalweg.dynamics.settings import Settings
from thalweg.dynamics.training import Training, TrainResult
from thalweg.errors import InvalidWeights
from thalweg.landscape import Landscape
from thalweg.run.events import Log
from thalweg.run.progress import Progress, silent
from thalweg.run.store import Run


def train(
    landscape: Landscape,
    w0: Tensor,
    *,
    optimizer: str = "sgd",
    lr: float = 0.05,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    batch_size: int | None = 100,
    schedule: str | Schedule = "cosine",
    epochs: int | None = None,
    steps: int | None = None,
    stop_error: float | None = None,
    stop_loss: float | None = None,
    clip: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
    every: int | None = None,
    evaluate_every: Literal["epoch", "end"] | int = "end",
    test: Landscape | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    run: Run | str | os.PathLike[str] | None = None,
    trajectory: str = "main",
    resume: bool = True,
    about: Mapping[str, Any] | None = None,
    log: Log | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """
    Train from ``w0`` on any landscape.

    Parameters
    ----------
    landscape : Landscape
        What is descended. It is left as it was found, buffers included.
    w0 : Tensor
        Where training begins, shape (W,); not changed.
    optimizer : {"sgd", "adam", "gd", "langevin", "gauss-newton"}
        Stochastic gradient descent with momentum, Adam, full-batch gradient descent, whose every
        step is an epoch, or overdamped Langevin dynamics, gradient descent with Gaussian noise of
        a ``temperature``. On a landscape without samples all are full-batch. Damped
        Gauss-Newton, full-batch too, takes a trained point to a residual of rounding size: it
        needs the squared loss in float64 and memory for a matrix of M x M numbers, M = N C, and
        uses neither ``lr`` nor ``schedule``. Others of `torch.optim` by the names of their classes
        (``"adamw"``, ``"rmsprop"``, ``"nadam"``, ...), with torch's defaults but for ``lr``,
        ``momentum`` and ``weight_decay``.
    lr : float
        Learning rate at the start.
    momentum : float, optional
        By default 0.9 for ``"sgd"`` and 0 for ``"gd"``; not used by ``"adam"``
        and ``"langevin"``.
    weight_decay : float
        Factor of the weights that is added to the gradient.
    batch_size : int or None
        The largest number of samples a step sees. An epoch is split into batches of nearly equal
        size. None means full-batch: each step takes the gradient of the landscape itself.
    schedule : {"cosine", "constant"} or callable
        Factor of the learning rate as a function of the share of all steps that is done (0 to 1).
    epochs, steps : int, optional
        The length of the training: one of them.
    stop_error : float, optional
        Stop at the end of an epoch with at most this classification error on all samples. The
        error is measured in full where the epoch's running error is within 0.005 or 3 samples
        of it.
    stop_loss : float, optional
        Stop at the end of an epoch with at most this loss over all samples, measured in full where
        the running loss is within a factor of 2 of it.
    clip : float, optional
        The longest gradient (Euclidean norm); a longer one is scaled down to it.
    temperature : float, optional
        Of ``"langevin"``, in units of the loss. With full batches and a small constant ``lr`` the
        weights come to be distributed as ``exp(-L / temperature)``.
    seed : int
        Of the order of the data, and of the noise.
    every : int, optional
        Steps between checkpoints. The first and the last are always kept; by default, with a run,
        one each epoch (full batch: 100 in all).
    evaluate_every : int or {"epoch", "end"}
        When landscape and ``test`` are measured in full. An epoch's end has a row in the history
        in any case.
    test : Landscape, optional
        A second landscape on the same space, measured along with the first.
    buffers : mapping of str to Tensor, optional
        Buffers and frozen weights of the model to begin with; by default those the landscape has.
    run : Run or path, optional
        Where checkpoints and metrics go; a plain run directory is made at a new path.
    trajectory : str
        Name of the trajectory in the run.
    resume : bool
        Go on from the trajectory's last readable checkpoint, to the same result, bit for bit on
        the CPU. If false, the trajectory must be new.
    about : mapping, optional
        JSON values to write into each checkpoint, such as the parent of a branch.
    log : callable, optional
        Called with each new row of the history and its step.
    progress : Progress
        Counts steps.

    Returns
    -------
    TrainResult
        Diverging is a status, not an error.

    Raises
    ------
    InvalidArgument
        If an argument has a value that makes no sense.
    InvalidWeights
        If ``w0`` is not a finite point of the landscape's space.
    NotDefined
        If ``stop_error`` is given for a regression.
    RunConflict
        If the trajectory exists and was made by another training, or ``resume`` is false.

    Examples
    --------
    >>> from thalweg.landscape.space import ParameterSpace
    >>> class Bowl:
    ...     space = ParameterSpace.euclidean(2)
    ...     value = staticmethod(lambda w: float(w @ w) / 2)
    ...     gradient = staticmethod(lambda w: w.clone())
    >>> w0 = torch.tensor([1.0, -2.0])
    >>> train(Bowl(), w0, optimizer="gd", lr=0.5, schedule="constant", steps=2).w
    tensor([ 0.2500, -0.5000])
    """
    return prepare(locals()).run(resume, progress, buffers)


def prepare(arguments: Mapping[str, Any]) -> Training:
    """Check the arguments of `train`, all of them by name, and make the training asked for."""
    landscape, w0, run = (arguments[name] for name in ("landscape", "w0", "run"))
    chosen = {field.name: arguments[field.name] for field in fields(Settings)}
    if chosen["momentum"] is None:
        chosen["momentum"] = method_kind(chosen["optimizer"]).momentum
    settings = Settings(**chosen)
    if not bool(torch.isfinite(landscape.space.check(w0)).all()):
        raise InvalidWeights("w0 has entries that are NaN or infinite; start from finite weights.")
    return Training(
        landscape,
        w0,
        settings,
        test=arguments["test"],
        writer=None if run is None else CheckpointWriter(run, arguments["trajectory"]),
        about=arguments["about"] or {},
        log=arguments["log"],
    )
