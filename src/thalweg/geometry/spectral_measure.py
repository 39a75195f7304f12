"""The spectral measure of one vector: which curvatures a displacement lies along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.lanczos import SearchSpace
from thalweg.geometry.operator import SymmetricOperator
from thalweg.run.seeds import torch_generator

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SpectralMeasure:
    """
    Shares of a vector's squared length along the eigenvectors of a matrix, as a quadrature.

    Attributes
    ----------
    nodes, weights : ndarray
        Shape (m,), float64: Ritz values, ascending, and their shares, which sum to one.
    exact : bool
        Whether the vector's Krylov space was exhausted: nodes are then eigenvalues.
    products : int
        Products spent.
    """

    nodes: Array
    weights: Array
    exact: bool
    products: int

    @property
    def mean(self) -> float:
        """The vector's Rayleigh quotient: its mean curvature."""
        return float(self.nodes @ self.weights)

    def up_to(self, threshold: float) -> tuple[float, float]:
        """
        Bracket the share that lies along eigenvalues up to a threshold.

        By the inequalities of Chebyshev, Markov and Stieltjes (Szego, Orthogonal Polynomials,
        1939, theorem 3.41.1), which hold whatever the spectrum between the nodes.

        Returns
        -------
        low, high : float
            Between 0 and 1.
        """
        last = int((self.nodes <= threshold).sum())
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        if self.exact:
            return float(sums[last]), float(sums[last])
        return float(sums[max(last - 1, 0)]), min(1.0, float(sums[min(last + 1, len(self.nodes))]))


def spectral_measure(op: Any, v: Tensor, *, products: int = 30) -> SpectralMeasure:
    """
    Measure which eigenvalues of a symmetric operator a vector lies along, by Lanczos from it.

    Parameters
    ----------
    op : LinearOperator, Tensor, or a SciPy operator
        Symmetric, shape (W, W).
    v : Tensor
        Shape (W,), not zero.
    products : int
        The most that are spent; they hold as many vectors.

    Raises
    ------
    InvalidArgument
        If ``v`` is zero or not finite, or there are no products to spend.

    Examples
    --------
    >>> import torch
    >>> matrix = torch.diag(torch.tensor([0.0, 0.0, 1.0, 4.0], dtype=torch.float64))
    >>> measure = spectral_measure(matrix, torch.ones(4, dtype=torch.float64))
    >>> measure.exact, [round(share, 9) for share in measure.up_to(0.5)]
    (True, [0.5, 0.5])
    """
    length = float(v.double().norm())
    if not 0 < length < np.inf or products < 1:
        raise InvalidArgument(
            f"got a vector of length {length} and products={products}; expected a finite vector"
            " other than zero and at least one product."
        )
    operator = SymmetricOperator(op)
    space = SearchSpace(operator, products, torch_generator(0, "spectral_measure"))
    space.begin(v)
    while not (space.full or space.invariant):
        space.extend()
    pairs = space.ritz()
    return SpectralMeasure(
        nodes=pairs.values.cpu().numpy()[::-1].copy(),
        weights=pairs.coefficients[0].square().cpu().numpy()[::-1].copy(),
        exact=space.invariant,
        products=operator.products,
    )
