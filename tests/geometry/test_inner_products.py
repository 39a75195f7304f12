"""Inner products of vectors as long as networks are, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thalweg.geometry import inner_products, top_eigenvalues, trace
from thalweg.geometry.inner_products import inner, lengths, orthonormal

_LONG = 3_000_000


def _positive(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, _LONG, generator=generator)
    return rows / lengths(rows).to(rows)[:, None]


class LowRank:
    """Three large eigenvalues, whose vectors' entries have one sign, over a small diagonal."""

    shape = (_LONG, _LONG)
    dtype = torch.float32
    device = torch.device("cpu")
    eigenvalues = torch.tensor([100.0, 30.0, 10.0], dtype=torch.float64)

    def __init__(self) -> None:
        self.diagonal = 1e-4 * torch.rand(_LONG, generator=torch.Generator().manual_seed(0))
        self.vectors = orthonormal(_positive(3, 1).T).T.contiguous()
        self.products = 0

    def __matmul__(self, v: Tensor) -> Tensor:
        rows = v.movedim(0, -1).reshape(-1, _LONG)
        self.products += len(rows)
        weights = inner(rows, self.vectors) * self.eigenvalues
        image = self.diagonal * rows + weights.to(rows) @ self.vectors
        return image.T.reshape(v.shape)

    @property
    def trace(self) -> float:
        squares = lengths(self.vectors).square()
        return float(self.diagonal.double().sum()) + float(squares @ self.eigenvalues)


def test_products_of_long_vectors_are_those_of_float64() -> None:
    rows, others = _positive(2, 2), _positive(3, 3)
    expected = rows.double() @ others.double().T
    torch.testing.assert_close(inner(rows, others), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(inner(rows[0], others), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(inner(rows, others[1]), expected[:, 1], rtol=1e-6, atol=0)
    assert inner(rows[0], others[0]).shape == ()


@pytest.mark.parametrize("width", [1, 5, 16384, 16385])
def test_no_entry_is_lost_or_counted_twice(width: int) -> None:
    rows = torch.arange(1, width + 1).remainder(7).float().repeat(2, 3, 1)
    expected = rows.double() @ rows.double().mT
    assert torch.equal(inner(rows, rows), expected)
    assert torch.equal(inner(rows.double(), rows.double()), expected)
    assert inner(rows[..., :0], rows[..., :0]).abs().sum() == 0


def test_long_columns_are_made_orthonormal() -> None:
    basis = orthonormal(_positive(4, 4).T)
    gram = inner(basis.T, basis.T)
    torch.testing.assert_close(gram, torch.eye(4, dtype=gram.dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [3, 64, 66, 129, 500])
def test_columns_in_parts_span_what_they_spanned(monkeypatch, rows: int) -> None:
    monkeypatch.setattr(inner_products, "_FACTORED", 64)
    columns = torch.randn(rows, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    columns[:, 1] *= 1e-6
    basis = orthonormal(columns.clone())
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(basis.T @ basis, eye, rtol=0, atol=1e-14)
    outside = columns - basis @ (basis.T @ columns)
    assert bool((outside.norm(dim=0) <= 1e-14 * columns.norm(dim=0)).all())


def test_a_large_symmetric_operator_is_not_said_to_be_asymmetric() -> None:
    # Sums in float32 left u'Av and v'Au apart by thousandths: a ResNet-18 was refused for it.
    operator = LowRank()
    measured = trace(operator, rtol=0.05, max_products=40)
    assert abs(measured.value - operator.trace) <= 1e-4 * operator.trace
    top = top_eigenvalues(operator, 2, rtol=1e-3, max_products=40)
    torch.testing.assert_close(top.values, operator.eigenvalues[:2], rtol=1e-4, atol=0)
