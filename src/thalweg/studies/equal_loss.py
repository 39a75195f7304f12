"""Training to one and the same loss by different noises: a noisy part, then plain descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from thalweg.dynamics import train
from thalweg.landscape.protocols import Landscape, Sampled, placed

# The noise ends where the loss is this many times the level, so that no epoch of few steps falls
# below it; looked back on are so many points an epoch.
_HOT = 2.0
_POINTS_AN_EPOCH = 8
# Of the level, how near the end comes to it.
PRECISION = 0.01


@dataclass(frozen=True)
class Settled:
    """
    Where a training came to.

    Attributes
    ----------
    w : Tensor
        Shape (W,).
    loss : float
        There.
    status : {"at level", "not reached", "diverged"}
        Whether it is the level, to a hundredth.
    steps, descended : int
        With noise, and without.
    passed : bool
        Whether the noise ended because the loss came near the level, not because time was over.
    """

    w: Tensor
    loss: float
    status: Literal["at level", "not reached", "diverged"]
    steps: int
    descended: int
    passed: bool


def train_to_level(
    landscape: Landscape,
    w0: Tensor,
    training: Mapping[str, Any],
    *,
    level: float,
    epochs: int,
    descent: int,
    seed: int,
) -> Settled:
    """
    Train with noise until the loss is near a level, then descend to it exactly.

    Parameters
    ----------
    landscape : Landscape
        What is trained on.
    w0 : Tensor
        Shape (W,).
    training : mapping
        Of `thalweg.train`: ``optimizer``, ``lr``, ``batch_size`` (0 for all samples), ...
    level : float
        The loss at which all trainings are compared.
    epochs : int
        The longest that noise acts; a temperature that keeps the loss above is cooled then.
    descent : int
        The most steps without noise.
    seed : int
        Of the noise.

    Returns
    -------
    Settled
        Never below the level by more than `PRECISION`: of a training that jumped across, an
        earlier point is taken.
    """
    settings = dict(training) | {"batch_size": training.get("batch_size") or None}
    batches = _batches(landscape, settings)
    result = train(
        landscape,
        w0,
        schedule="constant",
        epochs=epochs,
        stop_loss=_HOT * level,
        every=max(1, batches // _POINTS_AN_EPOCH) if batches > 1 else None,
        seed=seed,
        **settings,
    )
    if result.status == "diverged":
        return Settled(result.w, float("nan"), "diverged", result.step, 0, False)
    w = _last_above(landscape, [w for _, w in result.snapshots] or [result.w], level)
    w, loss, steps = descend(landscape, w, level=level, lr=float(training["lr"]), most=descent)
    at_level = abs(loss / level - 1) <= PRECISION
    return Settled(
        w,
        loss,
        "at level" if at_level else "not reached",
        result.step,
        steps,
        result.status == "loss reached",
    )


def _batches(landscape: Landscape, settings: Mapping[str, Any]) -> int:
    size = settings["batch_size"]
    return -(-landscape.samples // size) if size and isinstance(landscape, Sampled) else 1


def _last_above(landscape: Landscape, points: list[Tensor], level: float) -> Tensor:
    for w in reversed(points):
        if landscape.value(w) >= level:
            return w
    return points[0]


def descend(
    landscape: Landscape, w: Tensor, *, level: float, lr: float, most: int
) -> tuple[Tensor, float, int]:
    """
    Descend by full gradients, with steps as long as the loss falls, to a level and not below.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    w : Tensor
        Shape (W,), above the level.
    level : float
        Where to stop.
    lr : float
        Of the first step.
    most : int
        Steps.

    Returns
    -------
    w, loss, steps
        Where it ended.

    Examples
    --------
    >>> import torch
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.ones(3, dtype=torch.float64))
    >>> w, loss, _ = descend(bowl, bowl.centre + 1.0, level=0.1, lr=0.1, most=100)
    >>> abs(loss - 0.1) < 0.001
    True
    """
    w = placed(landscape, w)
    loss, steps = landscape.value(w), 0
    while loss > level * (1 + PRECISION) and steps < most:
        gradient = landscape.gradient(w)
        steps += 1
        step = _step(landscape, w, gradient, loss, level, lr)
        if step is None:
            break
        w, loss, lr = step
    return w, loss, steps


def _step(
    landscape: Landscape, w: Tensor, gradient: Tensor, loss: float, level: float, lr: float
) -> tuple[Tensor, float, float] | None:
    """Go along the gradient until the loss falls; to the level where it would fall below."""
    low, high, lowest = 0.0, None, lr / 2**20
    while lr > lowest:
        after = w - lr * gradient
        value = landscape.value(after)
        if abs(value / level - 1) <= PRECISION:
            return after, value, lr
        if level < value < loss and high is None:
            return after, value, 1.5 * lr
        if value < level:
            high = lr
        elif high is None:  # it rose: too long a step
            lr /= 2
            continue
        else:
            low = lr
        lr = (low + high) / 2
    return None
