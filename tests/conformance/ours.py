"""Thalweg as its users call it, by default settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import thalweg as tw
from conformance.adapter import Adapter, Density, Eigenvalues, Surface, Task, Trace
from thalweg.curvature.operators import Hessian
from thalweg.run import create_run


def _risk(task: Task) -> tuple[tw.EmpiricalRisk, Tensor]:
    problem = tw.Problem(task.model, task.criterion, task.batches)
    risk = tw.EmpiricalRisk(problem)
    return risk, risk.space.pack(task.model)


class Thalweg(Adapter):
    """The package under test."""

    name = "thalweg"
    filterwise = True

    def __init__(self) -> None:
        self._last: tuple[Task, Hessian] | None = None

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        return self._surface(task, directions, points=points, extent=extent)

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        risk, w = _risk(task)
        directions = tw.random_directions(risk.space, w, seed=seed)
        return self._surface(task, directions, points=points, extent=1.0)

    def resumed_surface(
        self, task: Task, directions: Tensor, *, points: int, extent: float, folder: Path
    ) -> Surface:
        run = tw.open_run(folder) if folder.exists() else create_run(folder, {})
        return self._surface(task, directions, points=points, extent=extent, run=run)

    def _surface(self, task: Task, directions: Tensor, **options: Any) -> Surface:
        risk, w = _risk(task)
        found = tw.surface(risk, w, directions=directions, **options)
        return Surface(found.x.values, found.y.values, found.loss.values, directions)

    def _hessian(self, task: Task) -> Hessian:
        if self._last is None or self._last[0] is not task:
            risk, w = _risk(task)
            self._last = task, risk.hessian(w)
        return self._last[1]

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        return self._hessian(task) @ vectors

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        found = tw.top_eigenvalues(self._hessian(task), k)
        return Eigenvalues(found.values.numpy(), 1e-3 if found.status == "converged" else None)

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        found = tw.spectral_density(self._hessian(task), probes=probes, steps=steps, seed=seed)
        return Density(np.nan_to_num(found.node.values, nan=-np.inf), found.weight.values)

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        found = tw.trace(self._hessian(task), seed=seed)
        return Trace(found.value, found.error)
