"""Symmetric matrices of known spectrum, and operators that misbehave."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(size: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]


def planted(eigenvalues: Tensor | list[float], seed: int = 0) -> Tensor:
    """A dense matrix with these eigenvalues and random eigenvectors."""
    d = torch.as_tensor(eigenvalues, dtype=torch.float64)
    q = rotation(len(d), seed)
    matrix = (q * d) @ q.T
    return (matrix + matrix.T) / 2


def overparametrized(size: int, rank: int, seed: int = 0) -> Tensor:
    """Eigenvalues of a matrix with a huge null space, few outliers and a small bulk."""
    bulk = torch.rand(rank - 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    outliers = torch.tensor([20.0, 12.0, 9.0, 7.0, 5.0], dtype=torch.float64)
    return torch.cat([outliers, bulk, torch.zeros(size - rank, dtype=torch.float64)])


class Diagonal:
    """A diagonal operator known by its products only; counts them."""

    def __init__(self, d: Tensor) -> None:
        self.d, self.shape, self.dtype, self.device = d, (len(d), len(d)), d.dtype, d.device
        self.calls = 0

    def __matmul__(self, v: Tensor) -> Tensor:
        self.calls += 1 if v.dim() == 1 else v.shape[1]
        return self.d * v if v.dim() == 1 else self.d[:, None] * v


class Poisoned(Diagonal):
    """Gives NaN from its third product on."""

    def __matmul__(self, v: Tensor) -> Tensor:
        product = super().__matmul__(v)
        return product if self.calls < 3 else product * float("nan")
