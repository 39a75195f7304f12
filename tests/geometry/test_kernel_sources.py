"""Which of given directions a Jacobian maps to zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from thalweg.geometry.kernel_sources import _blocks, _Kernel
from thalweg.geometry.scalings import Direction


class Diagonal:
    """A square Jacobian that stretches each weight; counts products."""

    def __init__(self, stretches: list[float]) -> None:
        self.d = torch.tensor(stretches, dtype=torch.float64)
        self.shape, self.products = (len(self.d), len(self.d)), 0

    @property
    def T(self) -> Diagonal:
        return self

    def __matmul__(self, v: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return self.d * v if v.dim() == 1 else self.d[:, None] * v


def units(count: int) -> list[Direction]:
    return [Direction(np.array([i]), np.array([3.0])) for i in range(count)]


def test_one_direction_that_does_not_hold_is_found_among_a_thousand_by_one_product():
    jacobian = Diagonal([0.0] * 600 + [1e-3] + [0.0] * 399)
    directions = units(1000)
    kept = _Kernel(jacobian, 1e-6, seed=0).holding(directions)
    assert kept == directions[:600] + directions[601:] and jacobian.products == 1


@pytest.mark.parametrize("seed", range(5))
def test_directions_near_the_tolerance_are_multiplied_one_by_one(seed):
    jacobian = Diagonal([0.9e-6] * 20 + [1.1e-6] * 20 + [0.0] * 20)
    directions = units(60)
    kernel = _Kernel(jacobian, 1e-6, seed=seed)
    assert kernel.holding(directions) == directions[:20] + directions[40:]
    assert 30 < jacobian.products <= 41


def test_too_many_near_the_tolerance_count_as_none_and_the_clear_ones_are_kept(monkeypatch):
    monkeypatch.setattr("thalweg.geometry.kernel_sources._EACH", 5)
    directions = units(30)
    kernel = _Kernel(Diagonal([0.9e-6] * 20 + [0.0] * 10), 1e-6, seed=0)
    assert set(map(id, directions[20:])) <= set(map(id, kernel.holding(directions)))
    assert len(kernel.holding(directions)) < 15


def test_blocks_are_cut_out_of_a_matrix_in_any_order() -> None:
    rng = np.random.default_rng(0)
    sizes = [3, 1, 4, 1, 2]
    blocks = [rng.standard_normal((n, n)) for n in sizes]
    blocks[3] = np.zeros((1, 1))  # a direction that was struck out
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(len(labels))
    matrix = sparse.csr_array(sparse.block_diag(blocks).toarray()[order][:, order])
    cut = list(_blocks(matrix, labels[order]))
    assert [len(block) for block in cut] == sizes
    for block, expected in zip(cut, blocks, strict=True):
        np.testing.assert_allclose(np.linalg.eigvals(block).sum(), np.trace(expected))
        np.testing.assert_allclose(np.linalg.svd(block)[1], np.linalg.svd(expected)[1], atol=1e-14)
