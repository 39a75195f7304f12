"""Values at many points, and descents from many points: as one batch where a landscape can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics import train
from thalweg.dynamics.batched_training import train_together
from thalweg.dynamics.schedule import resolve_schedule
from thalweg.landscape.protocols import Landscape, Parallel, Replicable, Vectorized
from thalweg.run.seeds import derive_seed, torch_generator

# Numbers of weights in a batch of points that are held at once; networks trained at once.
_AT_ONCE, _TOGETHER = 1 << 22, 64


def values_at(landscape: Landscape, points: Tensor) -> Tensor:
    """Evaluate a landscape at points, shape (k, W): shape (k,), float64."""
    # A network's values are dearer with their gradients, which many points give with them.
    if isinstance(landscape, Vectorized) and not isinstance(landscape, Replicable):
        size = max(1, _AT_ONCE // points.shape[1])
        parts = [landscape.values_and_gradients(part)[0] for part in points.split(size)]
        return torch.cat(parts).double()
    return torch.tensor([landscape.value(point) for point in points], dtype=torch.float64)


def descend_from(
    landscape: Landscape, starts: Tensor, training: Mapping[str, Any], *, seed: int
) -> tuple[Tensor, Tensor]:
    """
    Train from many points by one recipe, each with an order of samples of its own.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    starts : Tensor
        Shape (k, W).
    training : mapping
        ``lr``, ``momentum``, ``steps``, ``batch_size``, ``schedule``, as `train` takes them.
    seed : int
        Of the orders.

    Returns
    -------
    halfway, ends : Tensor
        Shape (k, W): after half of the steps, and after all.
    """
    if isinstance(landscape, Vectorized) and not isinstance(landscape, Replicable):
        return _as_one(landscape, starts, training, seed)
    half = max(1, training["steps"] // 2)
    options = [
        {**training, "every": half, "seed": derive_seed(seed, "descent", i)}
        for i in range(len(starts))
    ]
    results = []
    if isinstance(landscape, Replicable):
        for first in range(0, len(starts), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            results += train_together(landscape, list(starts[part]), options[part])
    else:
        results = [train(landscape, w, **own) for w, own in zip(starts, options, strict=True)]
    halfway = [dict(result.snapshots).get(half, result.w) for result in results]
    return torch.stack(halfway), torch.stack([result.w for result in results])


def _as_one(
    landscape: Vectorized, starts: Tensor, training: Mapping[str, Any], seed: int
) -> tuple[Tensor, Tensor]:
    """Take the steps of `train`'s ``"sgd"`` at all points at once."""
    steps, schedule = training["steps"], resolve_schedule(training["schedule"])
    gradients = _Gradients(landscape, len(starts), training["batch_size"], seed)
    w, velocity = starts.clone(), torch.zeros_like(starts)
    halfway = w
    for step in range(steps):
        velocity = training["momentum"] * velocity + gradients(w)
        w = w - training["lr"] * schedule(step / steps) * velocity
        if step + 1 == max(1, steps // 2):
            halfway = w
    return halfway, w


class _Gradients:
    """Gradients at all points: of the next batch of each, where there are batches."""

    def __init__(
        self, landscape: Vectorized, count: int, batch_size: int | None, seed: int
    ) -> None:
        self.landscape, self.count, self.size = landscape, count, batch_size
        # Asked once: protocols are slow to check, and steps are many.
        self.parallel = landscape if isinstance(landscape, Parallel) else None
        self.generator = torch_generator(seed, "orders")
        self.left: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        if self.size is None or self.parallel is None:
            return self.landscape.values_and_gradients(points)[1]
        if not self.left:
            orders = torch.rand(self.count, self.parallel.samples, generator=self.generator)
            self.left = list(orders.argsort(1).split(self.size, dim=1))
        return self.parallel.batch_gradients(points, self.left.pop(0))
