"""PyHessian: power iteration, Hutchinson's trace, stochastic Lanczos quadrature."""

from __future__ import annotations

import numpy as np
import torch
from pyhessian import hessian
from torch import Tensor

from conformance.adapter import Adapter, Density, Eigenvalues, Task, Trace, parts

TOLERANCE = 1e-3  # of `eigenvalues` and `trace` by default


class Tool(Adapter):
    name = "pyhessian"

    def _hessian(self, task: Task) -> hessian:
        if len(task.batches) == 1:
            return hessian(task.model, task.criterion, data=task.batches[0], cuda=False)
        return hessian(task.model, task.criterion, dataloader=task.batches, cuda=False)

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        made = hessian(task.model, task.criterion, dataloader=task.batches, cuda=False)
        found = [made.dataloader_hv_product(parts(v, task.model))[1] for v in vectors.T]
        return torch.stack([torch.cat([p.reshape(-1) for p in part]) for part in found], 1)

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        torch.manual_seed(0)
        return Eigenvalues(np.array(self._hessian(task).eigenvalues(top_n=k)[0]), TOLERANCE)

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        torch.manual_seed(seed)
        nodes, weights = self._hessian(task).density(iter=steps, n_v=probes)
        return Density(np.array(nodes), np.array(weights))

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        torch.manual_seed(seed)
        value = float(np.mean(self._hessian(task).trace()))
        return Trace(value, TOLERANCE * abs(value))
