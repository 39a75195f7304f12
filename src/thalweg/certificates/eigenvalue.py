"""The smallest singular value of a chain's Jacobian, from below, with all rounding counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.chain import Chain
from thalweg.certificates.forward import Passed, run_backward
from thalweg.certificates.products import UNIT, WIDER, Standard, Verified, gamma, norm
from thalweg.curvature.cholesky import InPlaceCholesky
from thalweg.curvature.jacobian_factors import Dense, Factor, Patches, Term, add_term, mirror
from thalweg.run.progress import Bar

Array = NDArray[np.float64]
Products = Standard | Verified

_BLOCK = 512
# Shares of the estimated smallest eigenvalue that are tried as shifts.
_SHIFTS = (0.9, 0.5, 0.1)


@dataclass(frozen=True)
class SingularValue:
    """
    A lower bound and what it was made of.

    Attributes
    ----------
    bound : float
        Of the smallest singular value, from below; 0 where nothing could be shown.
    estimate : float
        The smallest eigenvalue of the computed K, as estimated; 0 where K is not positive definite
        in float64.
    rounding : float
        Of K, with that of its factorization: subtracted from the eigenvalue.
    jacobian_error : float
        Of the factors of J, Frobenius norm: subtracted from the singular value.
    """

    bound: float
    estimate: float
    rounding: float
    jacobian_error: float


def smallest_singular_value(
    chain: Chain,
    passed: list[Passed],
    rows: Array,
    seconds: list[float],
    products: Products,
    bar: Bar,
) -> SingularValue:
    """
    Bound the smallest singular value of the Jacobian of combinations of the outputs.

    With Jh the Jacobian that the computed factors stand for and Kh the computed Gram matrix:
    ``sigma(J) >= (lambda(Kh) - |Kh - Jh Jh^T|)^(1/2) - |J - Jh|``.

    Parameters
    ----------
    chain, passed, rows, products
        As for `run_backward`.
    seconds : list of float
        Bounds of the activations' second derivatives.
    bar : Bar
        Told of three stages.
    """
    cotangents = run_backward(chain, passed, rows, products, seconds)
    factors, lost = _factors(chain, passed, cotangents)
    matrix, rounding = _assemble(factors, len(rows) * len(passed[0].size), products)
    bar.update(1)
    eigenvalue, estimate, more = smallest_eigenvalue(matrix, products, bar)
    low = eigenvalue - rounding
    bound = max(0.0, math.sqrt(max(low, 0.0)) / WIDER - lost)
    return SingularValue(bound, estimate, rounding + more, lost)


def _factors(
    chain: Chain, passed: list[Passed], cotangents: list[tuple[Array, Array]]
) -> tuple[list[Factor], float]:
    """Give the layers' factors, and the Frobenius norm of the error of what they stand for."""
    factors: list[Factor] = []
    squares = 0.0
    for layer, layer_pass, (delta, error) in zip(chain.layers, passed, cotangents, strict=True):
        if not any(layer.trained):
            continue
        samples, outputs, places, units = delta.shape
        size = norm(delta, axis=(2, 3))
        reach = np.hypot(layer_pass.size, np.sqrt(places))[:, None]
        wrong = (
            error * (reach + layer_pass.input_error[:, None])
            + size * layer_pass.input_error[:, None]
        )
        if places == 1:
            flat = delta.reshape(samples * outputs, units)
            factors.append(Dense(layer_pass.inputs[:, 0], flat, *layer.trained))
        else:
            factors.append(Patches(layer_pass.inputs, delta, *layer.trained))
            wrong = wrong + gamma(places + 1) * size * reach
        squares += float(np.square(wrong).sum())
    return factors, math.sqrt(squares) * WIDER


def _assemble(factors: list[Factor], rows: int, products: Products) -> tuple[Array, float]:
    """Sum the layers' shares of K, with a bound of the Frobenius norm of its rounding error."""
    total, rounding, terms = np.zeros((rows, rows)), 0.0, 0
    for term in _terms(factors):
        add_term(total, term, products)
        relative = products.relative(term.left.shape[1])
        if term.right is not None:
            relative += products.relative(term.right.shape[1] + 1)
        terms += 1
        rounding += (1.01 * relative + (terms + 4) * UNIT) * _trace(term)
    mirror(total)
    return total, rounding * WIDER + terms * UNIT * float(total.diagonal().sum())


def _terms(factors: list[Factor]) -> Iterator[Term]:
    for factor in factors:
        yield from factor.terms()


def _trace(term: Term) -> float:
    sizes = np.square(norm(term.left, axis=1))
    if term.right is None:
        return float(sizes.sum()) * term.constant
    scale = np.square(norm(term.right, axis=1)) + term.constant
    return float((sizes.reshape(len(scale), -1) * scale[:, None]).sum())


def smallest_eigenvalue(matrix: Array, products: Products, bar: Bar) -> tuple[float, float, float]:
    """
    Bound the smallest eigenvalue of a symmetric matrix from below.

    A Cholesky factorization of ``matrix - s I`` that runs to its end shows that s, less its
    rounding error, is such a bound: ``gamma_n+1 / (1 - gamma_n+1)`` times the trace (Demmel;
    Rump 2006, theorem 2.3). In the strict mode the factor is multiplied out instead, and the
    distance of the product measured.

    Returns
    -------
    bound, estimate, rounding : float
        The bound, with the rounding error of the factorization subtracted; 0, 0 and 0 where the
        matrix is not positive definite in float64.
    """
    cholesky = InPlaceCholesky(matrix)
    if not cholesky.factor(0.0):
        return 0.0, 0.0, 0.0
    estimate = cholesky.smallest_eigenvalue()
    bar.update(1)
    trace = float(cholesky.diagonal.sum()) * WIDER
    for share in _SHIFTS:
        if cholesky.factor(-share * estimate):
            if isinstance(products, Verified):
                lost = _distance(cholesky, share * estimate, products)
            else:
                theta = gamma(len(matrix) + 1)
                lost = theta / (1 - theta) * trace
            lost += UNIT * float(np.abs(cholesky.diagonal).max()) + UNIT * estimate
            bar.update(1)
            return share * estimate - lost * WIDER, estimate, lost
    return 0.0, estimate, 0.0


def _distance(cholesky: InPlaceCholesky, shift: float, products: Verified) -> float:
    """Bound the Frobenius norm of ``L L^T - (matrix - shift I)`` by verified products."""
    stored, n = cholesky.matrix, len(cholesky.matrix)
    squares, weight = 0.0, 0.0
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        rows_of_factor = np.triu(stored[:stop, start:stop], -start).T  # rows of L
        weight += float(np.square(rows_of_factor).sum())
        for first in range(0, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            other_rows = np.triu(stored[:last, first:last], -first).T
            block = _block(cholesky, slice(start, stop), slice(first, last), shift)
            product = products(
                np.ascontiguousarray(rows_of_factor[:, :last]), np.ascontiguousarray(other_rows)
            )
            squares += float(np.square(product - block).sum()) * (1 if first == start else 2)
    rounding = products.relative(n) * weight + UNIT * weight
    return (math.sqrt(squares) + rounding) * WIDER


def _block(cholesky: InPlaceCholesky, rows: slice, columns: slice, shift: float) -> Array:
    """Give a block of the lower triangle of the matrix, shifted."""
    block = cholesky.matrix[rows, columns].copy()
    if rows == columns:
        low = np.tril(block, -1)
        block = low + low.T + np.diag(cholesky.diagonal[rows] - shift)
    return block
