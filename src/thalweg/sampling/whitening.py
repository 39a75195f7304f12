"""Coordinates in which the curvature at the centre is the same in all directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whitening:
    """
    The linear map ``S = base + V (diag(scales) - base) V'``, symmetric and positive.

    Chains move in z, where ``w = w0 + S z``.

    Attributes
    ----------
    base : float
        Scale of all directions orthogonal to V.
    vectors : Tensor
        V, shape (W, r), orthonormal columns; r may be 0.
    scales : Tensor
        Shape (r,).
    """

    base: float
    vectors: Tensor
    scales: Tensor

    def multiply(self, rows: Tensor) -> Tensor:
        """Multiply rows, shape (k, W), by S."""
        if self._diagonal:
            return rows * self.scales
        return rows @ self._dense[0] if self.whole else self._apply(rows, self.base, self.scales)

    def divide(self, rows: Tensor) -> Tensor:
        """Multiply rows by the inverse of S."""
        if self._diagonal:
            return rows / self.scales
        if self.whole:
            return rows @ self._dense[1]
        return self._apply(rows, 1 / self.base, 1 / self.scales)

    @property
    def whole(self) -> bool:
        """Whether V is square: then one product with S costs half of two with V."""
        return self.vectors.shape[0] == self.vectors.shape[1]

    @cached_property
    def _diagonal(self) -> bool:
        """Whether the vectors are the axes, so that no products are needed."""
        return self.whole and int((self.vectors != 0).sum()) == int(self.vectors.trace())

    @cached_property
    def _dense(self) -> tuple[Tensor, Tensor]:
        rows = self.vectors.T
        return self.vectors @ (self.scales[:, None] * rows), self.vectors @ (
            rows / self.scales[:, None]
        )

    def from_coordinates(self, rows: Tensor) -> Tensor:
        """
        Multiply rows by a T with ``T T' = S S'``: along the vectors where V is square.

        There it takes one product with V, as `multiply` does, and coordinates are those of the
        eigenvectors; elsewhere T is S.
        """
        if self._diagonal or not self.whole:
            return self.multiply(rows)
        return (rows * self.scales) @ self.vectors.T

    def pulled_back(self, rows: Tensor) -> Tensor:
        """Multiply rows by the transpose of T: gradients, in its coordinates."""
        if self._diagonal or not self.whole:
            return self.multiply(rows)
        return (rows @ self.vectors) * self.scales

    def to_coordinates(self, rows: Tensor) -> Tensor:
        """Multiply rows by the inverse of T."""
        if self._diagonal or not self.whole:
            return self.divide(rows)
        return (rows @ self.vectors) / self.scales

    def log_determinant(self) -> float:
        """Logarithm of the determinant of S."""
        size, rank = self.vectors.shape
        return (size - rank) * math.log(self.base) + float(self.scales.log().sum())

    def _apply(self, rows: Tensor, base: float, scales: Tensor) -> Tensor:
        if not len(scales):
            return base * rows
        return base * rows + ((rows @ self.vectors) * (scales - base)) @ self.vectors.T


def plain_whitening(size: int, scale: float) -> Whitening:
    """Make the one of no curvature: all scales alike."""
    empty = torch.zeros(size, 0, dtype=torch.float64)
    return Whitening(scale, empty, torch.zeros(0, dtype=torch.float64))


def whiten(
    eigenvalues: Tensor, eigenvectors: Tensor, *, beta: float, localization: float
) -> Whitening:
    """
    Make the map under which ``beta H + localization`` becomes the identity.

    Parameters
    ----------
    eigenvalues, eigenvectors : Tensor
        Of H at the centre, shapes (r,) and (W, r); the rest is taken for flat. Negative ones count
        by their magnitude.
    beta, localization : float
        Of the posterior; the latter positive.
    """
    scales = (beta * eigenvalues.abs().double() + localization).rsqrt()
    return Whitening(localization**-0.5, eigenvectors.double(), scales)
