"""losscape: surfaces, drawn as they are computed."""

from __future__ import annotations

import tempfile

import torch
from losscape.create_directions import create_random_directions
from losscape.create_landscape import create_3D_losscape
from torch import Tensor

from conformance.adapter import Adapter, Surface, Task, parts


class Tool(Adapter):
    name = "losscape"
    filterwise = True  # "normalized according to https://arxiv.org/abs/1712.09913"

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        lists = [parts(column, task.model) for column in directions.T]
        return self._create(task, lists, points, extent)

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        torch.manual_seed(seed)
        return self._create(task, create_random_directions(task.model), points, 1.0)

    def _create(self, task: Task, lists: list[list[Tensor]], points: int, extent: float) -> Surface:
        with tempfile.TemporaryDirectory() as folder:
            x, y, losses = create_3D_losscape(
                task.model,
                task.batches,
                directions=lists,
                criterion=task.criterion,
                save_only=True,
                output_path=folder,
                x_min=-extent,
                x_max=extent,
                y_min=-extent,
                y_max=extent,
                num_points=points,
            )
        columns = [torch.cat([part.reshape(-1) for part in parts_]) for parts_ in lists]
        # Rows of its meshgrid run along y.
        return Surface(x[0], y[:, 0], losses.T, torch.stack(columns, 1))
