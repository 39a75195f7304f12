"""Layers' shares of a Jacobian as outer products: what a Gram matrix is assembled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Rows of the matrix assembled at once, and numbers of a layer's gradients held at once (512 MB).
_ROWS = 512
_HELD = 1 << 26


class Term(NamedTuple):
    """
    One share of a Gram matrix over M = N k rows: ``left left^T * (right right^T + constant)``.

    Attributes
    ----------
    left : ndarray
        Shape (M, d), row ``i * k + p`` for output p of sample i.
    right : ndarray or None
        Shape (N, e): the same for all outputs of a sample. None stands for no such factor.
    constant : float
        Added to the products of ``right``: 1 where a bias rides along. Alone where there are none.
    """

    left: Array
    right: Array | None = None
    constant: float = 1.0


class Factor(Protocol):
    """A layer's share of the Jacobian."""

    def terms(self) -> Iterator[Term]:
        """Give terms that sum to its share of the Gram matrix."""


@dataclass(frozen=True)
class Dense:
    """
    A layer that acts once on each sample: the gradient of its weights is ``delta a^T``.

    Attributes
    ----------
    inputs : ndarray
        a, shape (N, in).
    cotangents : ndarray
        delta, gradients of the outputs in what the layer gives, shape (N k, out).
    weight, bias : bool
        Whether they are trainable.
    """

    inputs: Array
    cotangents: Array
    weight: bool = True
    bias: bool = True

    def terms(self) -> Iterator[Term]:
        """Give its one term."""
        yield Term(self.cotangents, self.inputs if self.weight else None, float(self.bias))


@dataclass(frozen=True)
class Patches:
    """
    A layer that acts at T places of each sample: a convolution, or one used several times.

    The gradient of its weights is the sum of ``delta_t a_t^T``; it is formed for a block of the
    layer's units at a time.

    Attributes
    ----------
    inputs : ndarray
        Patches a_t, shape (N, T, in).
    cotangents : ndarray
        delta_t, shape (N, k, T, out).
    weight, bias : bool
        Whether they are trainable.
    """

    inputs: Array
    cotangents: Array
    weight: bool = True
    bias: bool = True

    def terms(self) -> Iterator[Term]:
        """Give a term for each block of units, and one for the bias."""
        samples, outputs, _, units = self.cotangents.shape
        rows, size = samples * outputs, self.inputs.shape[2]
        block = max(1, _HELD // (rows * size))
        for start in range(0, units if self.weight else 0, block):
            part = self.cotangents[..., start : start + block].transpose(0, 1, 3, 2)
            yield Term((part @ self.inputs[:, None]).reshape(rows, -1))
        if self.bias:
            yield Term(self.cotangents.sum(2).reshape(rows, units))


@dataclass(frozen=True)
class Rows:
    """
    Columns of the Jacobian as they are.

    Attributes
    ----------
    rows : ndarray
        Shape (N k, columns).
    """

    rows: Array

    def terms(self) -> Iterator[Term]:
        """Give its one term."""
        yield Term(self.rows)


@dataclass(frozen=True)
class Lookups:
    """
    A table whose rows are read by their numbers, at T places of each sample.

    Attributes
    ----------
    indices : ndarray
        Which rows, int64, shape (N, T).
    cotangents : ndarray
        Shape (N, k, T, d).
    """

    indices: NDArray[np.int64]
    cotangents: Array

    def terms(self) -> Iterator[Term]:
        """Give a term for each block of the rows that are read by any sample."""
        samples, outputs, _, size = self.cotangents.shape
        used, slots = np.unique(self.indices, return_inverse=True)
        slots = slots.reshape(self.indices.shape)
        block = max(1, _HELD // (samples * outputs * size))
        for start in range(0, len(used), block):
            whose, places = np.nonzero((slots >= start) & (slots < start + block))
            sums = np.zeros((samples, min(block, len(used) - start), outputs, size))
            slot = slots[whose, places] - start
            np.add.at(sums, (whose, slot), self.cotangents[whose, :, places])
            yield Term(sums.swapaxes(1, 2).reshape(samples * outputs, -1))


def multiply(left: Array, right: Array) -> Array:
    """Multiply (R, n) by the transpose of (m, n)."""
    return left @ right.T


def add_term(total: Array, term: Term, product: Callable[[Array, Array], Array] = multiply) -> None:
    """Add a term to the lower triangle, in place, in blocks of rows."""
    if term.right is None and product is multiply:
        _add_square(total, term)
        return
    rows = len(total)
    samples = rows if term.right is None else len(term.right)
    outputs = rows // samples
    step = max(1, _ROWS // outputs)
    for first in range(0, samples, step):
        last = min(first + step, samples)
        here = slice(first * outputs, last * outputs)
        block = product(term.left[here], term.left[: last * outputs])
        if term.right is None:
            block *= term.constant
        else:
            scale = product(term.right[first:last], term.right[:last])
            scale += term.constant
            pairs = block.reshape(last - first, outputs, last, outputs)
            pairs *= scale[:, None, :, None]
        total[here, : last * outputs] += block


def _add_square(total: Array, term: Term) -> None:
    # Imported here: SciPy takes a quarter of a second. BLAS has a kernel for half of a square.
    from scipy.linalg.blas import dsyrk

    columns = np.ascontiguousarray(term.left).T
    dsyrk(term.constant, columns, beta=1.0, c=total.T, trans=1, lower=0, overwrite_c=1)


def mirror(total: Array) -> None:
    """Copy the lower triangle to the upper one, in place, in blocks."""
    for start in range(0, len(total), _ROWS):
        stop = min(start + _ROWS, len(total))
        here = total[start:stop, start:stop]
        here[:] = np.tril(here) + np.tril(here, -1).T
        total[start:stop, stop:] = total[stop:, start:stop].T
