"""The spectral measure of a vector: exact where Lanczos ends, and bounds that hold before."""

from __future__ import annotations

import pytest
import torch

from geometry.matrices import planted
from thalweg.errors import InvalidArgument
from thalweg.geometry.spectral_measure import spectral_measure
from thalweg.landscape.quadratic import Quadratic


def normal(size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("products", [3, 10, 40])
@pytest.mark.parametrize("threshold", [1e-8, 1e-4, 1e-2, 0.5])
def test_bounds_hold_the_true_share(products, threshold):
    eigenvalues = torch.cat([torch.zeros(100), torch.logspace(-6, 0, 200)]).double()
    v = normal(300)
    truth = float(v[eigenvalues <= threshold].square().sum() / v.square().sum())
    measure = spectral_measure(Quadratic(eigenvalues).hessian(v), v, products=products)
    low, high = measure.up_to(threshold)
    assert low - 1e-9 <= truth <= high + 1e-9
    assert measure.products == products and not measure.exact
    assert measure.mean == pytest.approx(float((eigenvalues * v * v).sum() / (v @ v)))


def test_it_is_exact_where_the_krylov_space_ends():
    eigenvalues = torch.cat([torch.zeros(50), torch.full((30,), 1e-4), torch.ones(20)]).double()
    matrix = planted(eigenvalues)
    v = normal(100, seed=1)
    measure = spectral_measure(matrix, v)
    assert measure.exact and measure.products <= 12
    dense = matrix if isinstance(matrix, torch.Tensor) else matrix @ torch.eye(100).double()
    values, vectors = torch.linalg.eigh(dense)
    along = (vectors.T @ v).square() / v.square().sum()
    for threshold in (1e-6, 1e-2):
        truth = float(along[values <= threshold].sum())
        assert measure.up_to(threshold) == pytest.approx((truth, truth), abs=1e-9)


def test_a_vector_of_no_length_is_refused():
    with pytest.raises(InvalidArgument, match="finite vector"):
        spectral_measure(torch.eye(3).double(), torch.zeros(3).double())
