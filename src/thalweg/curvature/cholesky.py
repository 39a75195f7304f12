"""Cholesky factors of large symmetric matrices in the memory of the matrix itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.curvature.jacobian_factors import mirror

Array = NDArray[np.float64]


class InPlaceCholesky:
    """
    Factor ``matrix + shift I`` again and again, for several shifts, without a second matrix.

    The factor takes the upper triangle, diagonal included; the matrix is kept in the lower one and
    in a copy of its diagonal. At 16,173 rows that spares 2.1 GB of 4.2.

    Parameters
    ----------
    matrix : ndarray
        Symmetric, shape (n, n), float64, C-contiguous; overwritten.

    Examples
    --------
    >>> cholesky = InPlaceCholesky(np.array([[4.0, 2.0], [2.0, 3.0]]))
    >>> cholesky.factor(-2.0), cholesky.factor(0.0)
    (False, True)
    >>> cholesky.solve(np.array([6.0, 5.0]))
    array([1., 1.])
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix, self.diagonal = matrix, matrix.diagonal().copy()
        self._fresh = True

    def factor(self, shift: float) -> bool:
        """Factor ``matrix + shift I``; give whether it is positive definite in float64."""
        from scipy.linalg.lapack import dpotrf

        self.restore()
        self.matrix.flat[:: len(self.matrix) + 1] = self.diagonal + shift
        self._fresh = False
        # The transpose is in Fortran's order, so LAPACK works on it where it lies.
        _, info = dpotrf(self.matrix.T, lower=1, overwrite_a=1, clean=0)
        return bool(info == 0)

    def restore(self) -> Array:
        """Put the matrix itself back and give it."""
        if not self._fresh:
            self.matrix.flat[:: len(self.matrix) + 1] = self.diagonal
            mirror(self.matrix)
            self._fresh = True
        return self.matrix

    def solve(self, right: Array) -> Array:
        """Solve with the last factor, in float64."""
        from scipy.linalg.lapack import dpotrs

        answer: Any = dpotrs(self.matrix.T, right, lower=1)[0]
        return np.asarray(answer)

    def smallest_eigenvalue(self, *, steps: int = 30, seed: int = 0) -> float:
        """
        Estimate the smallest eigenvalue of the factored matrix, from above.

        Lanczos on the inverse with full reorthogonalization: the estimate is a Rayleigh quotient,
        and a few steps suffice, since the smallest eigenvalues become the largest and far apart.

        Parameters
        ----------
        steps : int
            Solves, at most.
        seed : int
            Of the start.
        """
        n = len(self.matrix)
        basis = [_unit(np.random.default_rng(seed).standard_normal(n))]
        projected = np.zeros((min(steps, n), min(steps, n)))
        largest = 0.0
        for k in range(len(projected)):
            image = self.solve(basis[k])
            before, spanned = largest, np.array(basis)
            projected[k, : k + 1] = projected[: k + 1, k] = spanned @ image
            largest = float(np.linalg.eigvalsh(projected[: k + 1, : k + 1])[-1])
            for _ in range(2):  # twice is enough (Parlett)
                image = image - spanned.T @ (spanned @ image)
            if largest - before <= 1e-4 * largest or not np.linalg.norm(image):
                break
            basis.append(_unit(image))
        return 1.0 / largest


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v)
