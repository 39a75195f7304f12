"""Lanczos with full reorthogonalization, thick restart and random restarts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.geometry.inner_products import inner, lengths
from thalweg.geometry.operator import SymmetricOperator
from thalweg.run.bounds import check_memory


@dataclass(frozen=True)
class RitzPairs:
    """
    What a search space knows of the spectrum.

    Attributes
    ----------
    values : Tensor
        Ritz values, float64, shape (m,), descending.
    coefficients : Tensor
        Ritz vectors in the basis, float64, shape (m, m), one a column.
    residuals : Tensor
        Norms of A y - value y for unit Ritz vectors y, float64, shape (m,).
    """

    values: Tensor
    coefficients: Tensor
    residuals: Tensor

    def errors(self) -> Tensor:
        """
        Estimate the distance of each Ritz value to the eigenvalue it stands for.

        The residual bounds it always; residual squared over the gap to the other eigenvalues does
        too (Parlett, The Symmetric Eigenvalue Problem, theorem 11.7.1). Of these only Ritz values
        are known, so the gap reaches as far as the neighbour's own residual leaves it open.

        Returns
        -------
        Tensor
            float64, shape (m,).
        """
        steps = self.values[:-1] - self.values[1:]
        wide = torch.full((1,), torch.inf, dtype=steps.dtype)
        above = torch.cat([wide, steps - self.residuals[:-1]])
        below = torch.cat([steps - self.residuals[1:], wide])
        gaps = torch.minimum(above, below)
        squares = self.residuals.square() / gaps.clamp_min(1e-300)
        return torch.minimum(self.residuals, squares)


class SearchSpace:
    r"""
    An orthonormal basis Q that grows by products with A, and all that they told.

    It keeps :math:`A Q = Q H + F C`, with H symmetric and F, of one column a start vector, the
    directions in which Q is not yet invariant. One start vector and no restart is the Lanczos
    method, its recurrence written out in full; compressing Q to Ritz vectors is thick restart
    (Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000, equations 7 to 10); and a further random
    start vector finds what the first could not see, the copies of a repeated eigenvalue.

    Every new vector is made orthogonal to the whole of Q twice, so that ghosts of converged
    eigenvalues cannot appear. Q has the operator's dtype: orthogonal to 1e-5 in float32, 1e-14 in
    float64 (measured). H, Ritz values and residuals are float64.

    Parameters
    ----------
    op : SymmetricOperator
        The operator A, shape (W, W).
    capacity : int
        Most vectors held at once; they take ``capacity * W`` numbers.
    generator : torch.Generator
        Source of the start vectors.
    """

    def __init__(self, op: SymmetricOperator, capacity: int, generator: torch.Generator) -> None:
        self.op, self.generator = op, generator
        self.capacity = min(capacity, op.size)
        check_memory(
            self.capacity * (op.size * op.dtype.itemsize + self.capacity * 8),
            f"a basis of {self.capacity} vectors of {op.size} weights",
            "Ask for fewer steps or eigenvalues.",
        )
        self.size = 0
        self._basis = torch.empty(self.capacity, op.size, dtype=op.dtype, device=op.device)
        self._h = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
        self._loose: list[Tensor] = []  # the columns of F
        self._rows: list[Tensor] = []  # the rows of C
        self.scale = 0.0
        self._eps = torch.finfo(op.dtype).eps

    @property
    def full(self) -> bool:
        """Whether the basis is as large as it may be."""
        return self.size == self.capacity

    @property
    def invariant(self) -> bool:
        """Whether A maps the basis into itself: no direction is left to go."""
        return not self._loose

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole of R^W, so that Ritz values are eigenvalues."""
        return self.size == self.op.size

    @property
    def floor(self) -> float:
        """What rounding of products may do to an eigenvalue or residual; less is invariance."""
        # Measured: 4 eps for the Hessian of a network in float32, 44 eps for a dense matrix of
        # order 200 whose repeated eigenvalues its own rounding splits; residuals of vectors where
        # the space is exhausted, 53 eps.
        return 100 * self._eps * self.scale

    def begin(self, start: Tensor | None = None) -> None:
        """Multiply a new start vector, by default a random one, orthogonal to the basis."""
        if start is None:
            start = torch.randn(self.op.size, generator=self.generator, dtype=self.op.dtype)
        start = start.to(self.op.device, self.op.dtype)
        self._grow(start / float(lengths(start)), torch.zeros(self.size, dtype=torch.float64))

    def extend(self, wanted: Tensor | None = None) -> None:
        """
        Multiply the next vector: one step of Lanczos.

        Parameters
        ----------
        wanted : Tensor, optional
            Coefficients of the Ritz vectors to improve, shape (m, k). The loose direction that
            matters most to them is taken; by default that of the newest start vector.
        """
        if self.invariant:
            self.begin()
            return
        index = len(self._loose) - 1
        if wanted is not None:
            weights = [float((row @ wanted).norm()) for row in self._scaled_rows()]
            index = max(range(len(weights)), key=weights.__getitem__)
        loose, row = self._loose.pop(index), self._rows.pop(index)
        beta = float(lengths(loose))
        self._grow(loose / beta, beta * row)

    def _scaled_rows(self) -> list[Tensor]:
        return [lengths(f) * row for f, row in zip(self._loose, self._rows, strict=True)]

    def _grow(self, q: Tensor, coupling: Tensor) -> None:
        """Add the vector q, of which q'AQ is ``coupling`` up to what other loose directions add."""
        m = self.size
        q = q.clone()
        self._orthogonalize(q)
        q /= float(lengths(q))
        for loose, row in zip(self._loose, self._rows, strict=True):
            share = float(inner(loose, q))
            coupling = coupling + share * row
            loose -= share * q
        self._basis[m] = q
        self.size = m + 1
        rest = self.op @ q
        self.scale = max(self.scale, float(lengths(rest)))
        h = self._orthogonalize(rest)
        self.op.check_symmetric(h[:m], coupling, self.scale)
        self._h[m, : m + 1] = h
        self._h[: m + 1, m] = h
        self._rows = [torch.cat([row, torch.zeros(1, dtype=row.dtype)]) for row in self._rows]
        if not self.complete and float(lengths(rest)) > self.floor:
            self._loose.append(rest)
            self._rows.append(torch.eye(m + 1, dtype=torch.float64)[m])

    def _orthogonalize(self, v: Tensor) -> Tensor:
        """Make v orthogonal to the basis in place; twice is enough. Returns what was taken off."""
        basis = self._basis[: self.size]
        taken = torch.zeros(self.size, dtype=torch.float64)
        for _ in range(2):
            part = inner(basis, v)
            v -= part.to(v) @ basis
            taken += part
        return taken

    def ritz(self) -> RitzPairs:
        """Compute all Ritz values with their residuals."""
        m = self.size
        values, vectors = torch.linalg.eigh(self._h[:m, :m])
        values, vectors = values.flip(0), vectors.flip(1)
        residuals = torch.zeros(m, dtype=torch.float64)
        if self._loose:
            loose = torch.stack(self._loose)
            gram = inner(loose, loose)
            reach = torch.stack(self._rows) @ vectors
            residuals = (reach * (gram @ reach)).sum(0).clamp_min(0.0).sqrt()
        return RitzPairs(values, vectors, residuals)

    def vectors(self, coefficients: Tensor) -> Tensor:
        """Combine basis vectors: coefficients (m, k) give vectors (W, k) in the op's dtype."""
        c = coefficients.to(self.op.device, self.op.dtype)
        return self._basis[: self.size].T @ c

    def compress(self, pairs: RitzPairs, keep: list[int]) -> None:
        """Restart thickly: go on with the Ritz vectors numbered ``keep`` as the basis."""
        coefficients = pairs.coefficients[:, keep]
        kept = self.vectors(coefficients).T
        self.size = len(keep)
        self._basis[: self.size] = kept
        self._h.zero_()
        self._h[: self.size, : self.size] = torch.diag(pairs.values[keep])
        self._rows = [row @ coefficients for row in self._rows]
