"""landscaper: surfaces of a function that the user writes, and PyHessian's methods."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from landscaper.compute import compute_loss_landscape
from landscaper.hessian import PyHessian
from landscaper.utils import generate_random_orthogonal_directions
from torch import Tensor

from conformance.adapter import (
    Adapter,
    Density,
    Eigenvalues,
    NotOffered,
    Surface,
    Task,
    Trace,
    flat,
    parts,
)

TOLERANCE = 1e-3  # of `eigenvalues` and `trace` by default


LAID = "cells lie at (steps - 1) / steps of the coordinates returned, noise is added to the largest"


class Tool(Adapter):
    name = "landscaper"
    notes = MappingProxyType(
        {"quadratic bowl on the grid": LAID, "quadratic bowl off the grid": LAID}
    )

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        if len(task.batches) > 1:
            raise NotOffered("the loss over batches is the user's to write")
        w = flat(task.model)
        lists = [parts(column, task.model) for column in directions.T]
        # It scales directions to the norm of the weights; coordinates are read in that unit.
        distance = float(extent * directions[:, 0].norm() / w.norm())
        losses, (x, y), _ = self._compute(task, lists, points, distance)
        return Surface(x, y, losses, w.norm() * directions / directions.norm(dim=0))

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        torch.manual_seed(seed)
        lists = generate_random_orthogonal_directions(task.model, n=2)
        losses, (x, y), seen = self._compute(task, lists, points, 0.01)
        middle = points // 2
        place = middle * points + middle
        columns = [seen[place + points] - seen[place], seen[place + 1] - seen[place]]
        return Surface(x, y, losses, torch.stack(columns, 1) / float(x[1] - x[0]))

    def _compute(self, task: Task, lists: list[list[Tensor]], points: int, distance: float):
        seen: list[Tensor] = []

        def loss(model, data):
            seen.append(flat(model))
            mode = model.training
            model.eval()
            losses = [task.criterion(model(x), y).item() for x, y in data]
            model.train(mode)
            return float(np.mean(losses))

        options = {"steps": points, "distance": distance, "dim": 2, "device": "cpu"}
        losses, axes = compute_loss_landscape(task.model, task.batches, lists, loss, **options)
        return losses, axes, seen

    def _hessian(self, task: Task) -> PyHessian:
        return PyHessian(task.model, task.criterion, task.batches, "cpu")

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        hessian = self._hessian(task)
        found = [hessian.hv_product(parts(v, task.model))[1] for v in vectors.T]
        return torch.stack([torch.cat([p.reshape(-1) for p in part]) for part in found], 1)

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        torch.manual_seed(0)
        return Eigenvalues(np.array(self._hessian(task).eigenvalues(top_n=k)[0]), TOLERANCE)

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        torch.manual_seed(seed)
        nodes, weights = self._hessian(task).density(iter=steps, n_v=probes)
        return Density(np.array(nodes).real, np.array(weights).real)

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        torch.manual_seed(seed)
        value = float(self._hessian(task).trace())
        return Trace(value, TOLERANCE * abs(value))
