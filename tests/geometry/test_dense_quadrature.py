"""A matrix that is written out gives the quadratures that its products one by one give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geometry.matrices import Diagonal, planted
from thalweg.errors import NotFinite, NotSymmetric
from thalweg.geometry import spectral_density


def decaying(size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return planted(torch.logspace(-3, 0, size)).to(dtype)


class Products:
    """A matrix that only multiplies vectors."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.shape = matrix, matrix.shape
        self.dtype, self.device = matrix.dtype, matrix.device

    def __matmul__(self, v: torch.Tensor) -> torch.Tensor:
        return self.matrix @ v


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_nodes_and_weights_are_those_of_single_products(dtype, apart):
    matrix = decaying(120, dtype)
    at_once, singly = (
        spectral_density(op, probes=4, steps=15, seed=3) for op in (matrix, Products(matrix))
    )
    assert np.abs(at_once.node - singly.node).max() < apart
    assert np.abs(at_once.weight - singly.weight).max() < apart
    assert at_once.attrs["products"] == singly.attrs["products"] == 60
    assert at_once.attrs["rounding"] == pytest.approx(singly.attrs["rounding"], rel=0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_vector_ends_where_its_space_is_exhausted(dtype):
    values = torch.tensor([0.0] * 30 + [1.0] * 20 + [5.0] * 10, dtype=dtype)
    density = spectral_density(torch.diag(values), probes=3, steps=12)
    assert (np.isfinite(density.node).sum("step") == 3).all()
    assert np.allclose(density.node[:, :3], [0.0, 1.0, 5.0], atol=1e-5)
    assert np.allclose(density.weight.sum("step"), 1.0, atol=1e-5)
    zero = spectral_density(torch.zeros(5, 5, dtype=dtype), probes=2, steps=4)
    assert (zero.node[:, 0] == 0).all() and np.isnan(zero.node[:, 1:]).all()


def test_a_space_may_end_while_others_go_on():
    """A vector within an invariant space, as none is by chance: drawn from a space of two."""
    from thalweg.geometry.dense_quadrature import dense_quadratures
    from thalweg.geometry.operator import SymmetricOperator
    from thalweg.run.progress import silent

    draw, short = torch.randn, torch.Generator()

    def drawn(size, *, generator, dtype):
        vector = draw(size, generator=generator, dtype=dtype)
        if generator is short:
            vector[2:] = 0.0
        return vector

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", drawn)
        op = SymmetricOperator(torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64)))
        nodes, weights, _ = dense_quadratures(
            op, 6, [short, torch.Generator()], silent(12, "quadrature")
        )
    assert np.allclose(nodes[0, :2], [1.0, 2.0]) and np.isnan(nodes[0, 2:]).all()
    assert np.allclose(nodes[1], np.arange(1, 7)) and np.allclose(weights.sum(1), 1.0)


def test_whole_spectra_of_small_matrices_are_eigenvalues():
    values = torch.linspace(-1, 2, 7, dtype=torch.float64)
    density = spectral_density(torch.diag(values), probes=2, steps=20)
    assert np.allclose(density.node[:, :7], values) and np.isnan(density.node[:, 7:]).all()
    products = spectral_density(Diagonal(values), probes=2, steps=20)
    assert np.allclose(density.weight, products.weight, atol=1e-9)


def test_matrices_that_no_spectrum_can_be_taken_of_are_refused():
    wrong = decaying(30)
    wrong[0, 1] += 1.0
    with pytest.raises(NotSymmetric):
        spectral_density(wrong)
    with pytest.raises(NotFinite):
        spectral_density(torch.full((4, 4), torch.nan, dtype=torch.float64))
