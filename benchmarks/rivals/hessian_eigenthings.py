"""hessian-eigenthings: Lanczos, Hutch++ and stochastic Lanczos quadrature."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from hessian_eigenthings import (
    HessianOperator,
    lanczos,
    spectral_density,
    supervised_loss,
    trace,
)
from torch import Tensor

from conformance.adapter import Adapter, Density, Eigenvalues, Task, Trace

GHOSTS = "beyond 50 steps reorthogonalization is off by default"


class Tool(Adapter):
    name = "hessian-eigenthings"
    notes = MappingProxyType(
        {
            "Hessian: batches of 60 + 4": "documented as the mean over batches",
            "five eigenvalues of a network": GHOSTS,
            "five eigenvalues across a gap": GHOSTS,
        }
    )

    def _hessian(self, task: Task) -> HessianOperator:
        return HessianOperator(task.model, task.batches, supervised_loss(task.criterion))

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        operator = self._hessian(task)
        return torch.stack([operator.matvec(v) for v in vectors.T], 1).detach()

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        # By default twice k steps, and it says that they have not converged: doubled until it
        # says that they have.
        operator, steps = self._hessian(task), 2 * k
        while True:
            found = lanczos(operator, k=k, which="LA", max_iter=min(steps, operator.size), seed=0)
            if bool(found.converged.all()):
                return Eigenvalues(found.eigenvalues.detach().double().numpy(), 1e-4)
            if steps >= min(operator.size, 2000):
                return Eigenvalues(found.eigenvalues.detach().double().numpy(), None)
            steps *= 2

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        found = spectral_density(
            self._hessian(task), num_runs=probes, lanczos_steps=steps, seed=seed
        )
        nodes = found.raw_eigenvalues.detach().double().numpy()
        return Density(
            np.nan_to_num(nodes, nan=-np.inf), found.raw_weights.detach().double().numpy()
        )

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        found = trace(self._hessian(task), seed=seed)
        return Trace(found.estimate, 2 * found.stderr)
