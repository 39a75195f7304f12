"""loss-landscape-3d: surfaces along directions that are state dicts."""

from __future__ import annotations

import numpy as np
import torch
from loss_landscape_3d import LossLandscapeCalculator, generate_random_directions
from torch import Tensor

from conformance.adapter import Adapter, Surface, Task, parts


class Tool(Adapter):
    name = "loss-landscape-3d"
    filterwise = True

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        names = [name for name, _ in task.model.named_parameters()]
        dicts = [dict(zip(names, parts(d, task.model), strict=True)) for d in directions.T]
        return self._calculate(task, dicts, points, extent)

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        torch.manual_seed(seed)
        return self._calculate(task, list(generate_random_directions(task.model)), points, 1.0)

    def _calculate(
        self, task: Task, dicts: list[dict[str, Tensor]], points: int, extent: float
    ) -> Surface:
        axis = np.linspace(-extent, extent, points)
        calculator = LossLandscapeCalculator(task.model, task.batches, task.criterion)
        centre = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
        losses = calculator.calculate(axis, axis, *dicts, centre)
        names = [name for name, _ in task.model.named_parameters()]
        columns = [torch.cat([d[name].reshape(-1) for name in names]) for d in dicts]
        return Surface(axis, axis, losses, torch.stack(columns, 1))
