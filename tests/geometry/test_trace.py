from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from geometry.matrices import Diagonal, Poisoned, overparametrized, planted
from thalweg.errors import InvalidArgument, NotFinite, NotSymmetric
from thalweg.geometry.trace import trace

N = 150
INDEX = torch.arange(1, N + 1, dtype=torch.float64)
RANDOM = torch.randn(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
SPECTRA = {
    "quadratic decay": INDEX**-2,
    "slow decay": INDEX**-1,
    "flat": torch.ones(N, dtype=torch.float64),
    "uniform": torch.linspace(0.5, 1.5, N, dtype=torch.float64),
    "indefinite": RANDOM + 0.3,
    "null space": overparametrized(N, 60),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rtol", [0.1, 0.01])
def test_the_stated_error_holds_in_95_percent_of_200_seeds(name, rtol):
    matrix, true = planted(SPECTRA[name]), float(SPECTRA[name].sum())
    found = [trace(matrix, rtol=rtol, max_products=120, seed=seed) for seed in range(200)]
    inside = sum(abs(f.value - true) <= f.error + 1e-10 for f in found)
    assert inside >= 190
    # Nor is it said too large: a standard error is exceeded in a third of cases.
    if all(f.status != "exact" for f in found):
        assert 100 <= sum(abs(f.value - true) <= f.stderr for f in found) <= 160


def test_products_of_a_few_columns_at_a_time_give_the_same(monkeypatch):
    matrix = planted(SPECTRA["quadratic decay"])
    whole = trace(matrix, rtol=0.01, max_products=80)
    monkeypatch.setattr(sys.modules["thalweg.geometry.trace"], "_HELD", 1)
    parts = trace(matrix, rtol=0.01, max_products=80)
    assert parts.products == whole.products and parts.sketch == whole.sketch > 1
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.error == pytest.approx(whole.error, rel=1e-6)


@pytest.mark.parametrize("name", ["quadratic decay", "flat", "uniform"])
def test_the_tolerance_is_met(name):
    found = trace(planted(SPECTRA[name]), rtol=0.05)
    assert found.status == "converged" and found.stderr <= 0.05 * abs(found.value)


def test_low_rank_is_exact():
    d = torch.zeros(500, dtype=torch.float64)
    d[:10] = torch.linspace(-2, 5, 10, dtype=torch.float64)
    found = trace(planted(d), rtol=1e-3)
    assert found.status == "exact" and found.error < 1e-10
    assert found.value == pytest.approx(float(d.sum()), abs=1e-10)


def test_small_operators_are_multiplied_out():
    matrix = planted([3.0, -1.0, 0.5])
    found = trace(matrix)
    assert (found.status, found.products, found.stderr) == ("exact", 3, 0.0)
    assert found.value == pytest.approx(2.5, abs=1e-12)


def test_zero_and_traceless_operators():
    assert trace(Diagonal(torch.zeros(100))).value == 0
    traceless = torch.cat([torch.ones(100), -torch.ones(100)]).double()
    found = trace(planted(traceless), rtol=0.01, max_products=100)
    assert found.status == "max_products" and found.products <= 100
    assert abs(found.value) <= 2 * found.error


def test_float32_agrees_with_float64():
    d = overparametrized(N, 60)
    low, high = trace(planted(d).float(), seed=1), trace(planted(d), seed=1)
    assert abs(low.value - float(d.sum())) <= low.error
    assert abs(low.value - high.value) <= low.error + high.error


def test_same_seed_same_answer_and_every_product_counted():
    op = Diagonal(INDEX.float())
    first = trace(op, seed=5)
    assert first.products == op.calls
    assert first == trace(op, seed=5) != trace(op, seed=6)


def test_decay_costs_less_than_hutchinson():
    d = torch.arange(1, 2001, dtype=torch.float64) ** -1.5
    found = trace(Diagonal(d), rtol=0.01, seed=0)
    hutchinson = 2 * float((d**2).sum()) / (0.01 * float(d.sum())) ** 2
    assert found.status == "converged" and found.products < hutchinson / 20
    assert abs(found.value - float(d.sum())) <= found.error + 1e-12


def test_bad_input():
    with pytest.raises(InvalidArgument, match="rtol"):
        trace(Diagonal(INDEX), rtol=0.0)
    with pytest.raises(InvalidArgument, match="products"):
        trace(Diagonal(INDEX), max_products=3)
    with pytest.raises(NotSymmetric):
        trace(torch.triu(torch.ones(100, 100)))
    with pytest.raises(NotFinite):
        trace(Poisoned(INDEX))
    assert np.isfinite(trace(Diagonal(INDEX)).value)
