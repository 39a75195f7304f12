"""loss-landscapes: planes through models and random planes, along which a metric is evaluated.

Directions of `random_plane` are not returned; a metric, which users may write, notes the points.
"""

from __future__ import annotations

import copy
from types import MappingProxyType

import numpy as np
import torch
from loss_landscapes import planar_interpolation, random_plane
from loss_landscapes.metrics import Loss
from torch import Tensor

from conformance.adapter import Adapter, NotOffered, Surface, Task, flat, parts


class _Noting(Loss):
    """The library's loss; notes where it was evaluated, in the order of evaluation."""

    def __call__(self, model_wrapper):
        weights = model_wrapper.get_module_parameters().parameters
        self.points.append(torch.cat([p.detach().reshape(-1) for p in weights]))
        return super().__call__(model_wrapper)


class Tool(Adapter):
    name = "loss-landscapes"
    filterwise = True  # the default: normalization='filter'
    notes = MappingProxyType({"batch norm: model unchanged": "deepcopy_model=True keeps it"})

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        # Documented grid: start + i (end_one - start) / steps + j (end_two - start) / steps.
        w = flat(task.model)
        ends = [self._at(task, w + extent * column) for column in directions.T]
        metric = self._metric(task, Loss)
        losses = planar_interpolation(task.model, *ends, metric, steps=points, deepcopy_model=True)
        axis = extent * np.arange(points) / points
        return Surface(axis, axis, losses, directions)

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        torch.manual_seed(seed)
        steps = max(4, points - 1)  # even, so that the centre is a point of the documented grid
        metric = self._metric(task, _Noting)
        metric.points = []
        losses = random_plane(task.model, metric, steps=steps)
        seen = metric.points
        second, first = seen[1] - seen[0], (seen[2 * steps] - seen[0]) / 2
        axis = np.arange(steps) - steps / 2
        return Surface(axis, axis, losses, torch.stack([first, second], 1))

    def _metric(self, task: Task, kind: type[Loss]) -> Loss:
        if len(task.batches) > 1:
            raise NotOffered("takes all samples as one batch")
        return kind(task.criterion, *task.whole)

    def _at(self, task: Task, point: Tensor) -> torch.nn.Module:
        model = copy.deepcopy(task.model)
        with torch.no_grad():
            for p, value in zip(model.parameters(), parts(point, model), strict=True):
                p.copy_(value)
        return model
