"""curvlinops: the Hessian as a linear operator, SciPy's eigsh, estimators of trace and density."""

from __future__ import annotations

import numpy as np
import torch
from curvlinops import HessianLinearOperator, hutchpp_trace, lanczos_approximate_spectrum
from scipy.sparse.linalg import eigsh
from torch import Tensor

from conformance.adapter import Adapter, Density, Eigenvalues, Task, Trace


class Tool(Adapter):
    name = "curvlinops-for-pytorch"

    def _hessian(self, task: Task) -> HessianLinearOperator:
        weights = [p for p in task.model.parameters() if p.requires_grad]
        return HessianLinearOperator(task.model, task.criterion, weights, task.batches)

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        return (self._hessian(task) @ vectors).detach()

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        np.random.seed(0)
        operator = self._hessian(task).to_scipy()
        # SciPy's tolerance is machine precision, and it raises where it does not converge.
        return Eigenvalues(
            eigsh(operator, k=k, which="LA", return_eigenvectors=False).astype(float), 1e-5
        )

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        torch.manual_seed(seed)
        grid, density = lanczos_approximate_spectrum(self._hessian(task), steps, num_repeats=probes)
        step = float(grid[1] - grid[0])
        return Density(
            grid.double().numpy()[None], density.detach().double().numpy()[None] * step, curve=True
        )

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        torch.manual_seed(seed)
        return Trace(float(hutchpp_trace(self._hessian(task), num_matvecs=99)), None)
