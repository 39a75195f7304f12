"""Quadratures of a matrix that is written out, from all random vectors at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.geometry.inner_products import inner, lengths
from thalweg.geometry.operator import SymmetricOperator
from thalweg.run.bounds import check_memory
from thalweg.run.progress import Bar

Array = NDArray[np.float64]


def dense_quadratures(
    op: SymmetricOperator, steps: int, starts: Sequence[torch.Generator], bar: Bar
) -> tuple[Array, Array, float]:
    """
    Take the Gauss quadratures of a dense matrix that random vectors give.

    They are those of `lanczos.SearchSpace`, with full reorthogonalization, but one product is with
    all vectors: a matrix that does not fit in the caches is read once a step and not once a vector.

    Parameters
    ----------
    op : SymmetricOperator
        Of a tensor, shape (W, W).
    steps : int
        Products with each vector.
    starts : sequence of torch.Generator
        Of each vector.
    bar : Bar
        Counts products.

    Returns
    -------
    nodes, weights : float64 array
        Shape (vectors, steps), ascending; NaN and 0 where fewer steps exhaust the space.
    rounding : float
        What that of the products may do to an eigenvalue.
    """
    lockstep = _Lockstep(op, min(steps, op.size), starts)
    bar.update(len(starts))
    while lockstep.going:
        lockstep.grow()
        bar.update(len(starts))
    nodes = np.full((len(starts), steps), np.nan)
    weights = np.zeros((len(starts), steps))
    for vector, size in enumerate(lockstep.sizes.tolist()):
        values, vectors = torch.linalg.eigh(lockstep.h[vector, :size, :size])
        nodes[vector, :size] = values.numpy()
        weights[vector, :size] = vectors[0].square().numpy()
    return nodes, weights, lockstep.floor


class _Lockstep:
    """Krylov spaces that grow together, each orthonormal in itself; one that has ended waits."""

    def __init__(
        self, op: SymmetricOperator, capacity: int, starts: Sequence[torch.Generator]
    ) -> None:
        count, size = len(starts), op.size
        check_memory(
            count * capacity * (size * op.dtype.itemsize + capacity * 8),
            f"{count} bases of {capacity} vectors of {size} weights",
            "Ask for fewer probes or steps.",
        )
        self._op, self._step = op, 0
        self._basis = torch.zeros(count, capacity, size, dtype=op.dtype, device=op.device)
        self.h = torch.zeros(count, capacity, capacity, dtype=torch.float64)
        self.sizes = torch.zeros(count, dtype=torch.int64)
        self._scale, self._live = 0.0, torch.ones(count, dtype=torch.bool)
        drawn = [torch.randn(size, generator=g, dtype=op.dtype) for g in starts]
        self._rest = torch.stack(drawn).to(op.device)
        self.grow()

    @property
    def going(self) -> bool:
        """Whether a space can still grow."""
        return self._step < self._basis.shape[1] and bool(self._live.any())

    @property
    def floor(self) -> float:
        """What rounding of products may do to an eigenvalue, as `SearchSpace.floor`."""
        return 100 * torch.finfo(self._op.dtype).eps * self._scale

    def grow(self) -> None:
        """Multiply the next vector of each space that has not ended."""
        remaining = lengths(self._rest)
        if self._step:
            self._live &= remaining > self.floor
        if not self._live.any():
            return
        step, live = self._step, self._live.to(self._op.device)
        # Spaces that have ended go on with zeros.
        vectors = _unit(self._rest) * live[:, None]
        self._orthogonalize(vectors, 1)  # it is, but for rounding that grew where it was short
        vectors = _unit(vectors)
        self._basis[:, step] = vectors
        self._step, self.sizes = step + 1, self.sizes + self._live
        self._rest = (self._op @ vectors.T).T.contiguous()
        self._scale = max(self._scale, float(lengths(self._rest).max()))
        taken = self._orthogonalize(self._rest, 2)
        expected = torch.zeros(len(remaining), step, dtype=torch.float64)
        if step:
            expected[:, -1] = remaining * self._live
        self._op.check_symmetric(taken[:, :step], expected, self._scale)
        self.h[:, step, : step + 1] = taken
        self.h[:, : step + 1, step] = taken

    def _orthogonalize(self, vectors: Tensor, times: int) -> Tensor:
        """Make each vector orthogonal to its basis in place; give what was taken off."""
        basis = self._basis[:, : self._step]
        taken = torch.zeros(len(vectors), self._step, dtype=torch.float64)
        for _ in range(times):
            part = inner(vectors[:, None], basis)  # as columns, a tenth as fast
            vectors -= (part.to(vectors) @ basis)[:, 0]
            taken += part[:, 0]
        return taken


def _unit(vectors: Tensor) -> Tensor:
    sizes = lengths(vectors).to(vectors.device, vectors.dtype)
    return vectors / sizes.clamp_min(torch.finfo(vectors.dtype).tiny)[:, None]
