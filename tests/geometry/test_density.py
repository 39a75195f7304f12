from __future__ import annotations

import numpy as np
import pytest
import torch

from geometry.matrices import Diagonal, Poisoned, overparametrized, planted
from thalweg.errors import InvalidArgument, NotFinite, NotSymmetric
from thalweg.geometry.density import smooth, spectral_density

FLAT = torch.linspace(0, 1, 400, dtype=torch.float64)
TWO_BULKS = torch.cat([FLAT, 3 + 0.5 * FLAT, torch.tensor([9.0, 9.5, 9.9], dtype=torch.float64)])
SPECTRA = {"flat": FLAT, "two bulks": TWO_BULKS, "null space": overparametrized(600, 100)}


@pytest.mark.parametrize("name", SPECTRA)
def test_density_is_the_smoothed_histogram_within_its_errors(name):
    d = SPECTRA[name]
    data = spectral_density(planted(d), probes=20, steps=60, width=0.15)
    grid = data.eigenvalue.to_numpy()
    bells = np.exp(-0.5 * ((grid[:, None] - d.numpy()) / 0.15) ** 2)
    true = bells.mean(1) / (0.15 * np.sqrt(2 * np.pi))
    misses = np.abs(data.density - true) > 4 * data.density_stderr + 1e-6
    assert float(misses.mean()) < 0.02
    np.testing.assert_allclose(np.trapezoid(data.density, grid), 1, atol=1e-3)


def test_density_integrates_to_the_true_shares():
    data = spectral_density(planted(TWO_BULKS), probes=30, steps=80)
    for at in (2.0, 5.0):
        share = data["cumulative"].sel(eigenvalue=at, method="nearest")
        stderr = float(data["cumulative_stderr"].sel(eigenvalue=at, method="nearest"))
        assert 0 < stderr < 0.02
        assert abs(float(share) - float(TWO_BULKS.le(at).double().mean())) < 4 * stderr


def test_weights_are_squares_of_first_components():
    matrix = planted(TWO_BULKS)
    data = spectral_density(matrix, probes=40, steps=30)
    np.testing.assert_allclose(data.weight.sum("step"), 1, atol=1e-12)
    # A quadrature of 30 nodes is exact for moments to degree 59: compare v'A^p v in the mean.
    for power in (1, 2, 3):
        moments = (data.weight * data.node**power).sum("step")
        true = float((TWO_BULKS**power).mean())
        assert abs(float(moments.mean()) - true) < 4 * float(moments.std(ddof=1)) / np.sqrt(40)


def test_standard_errors_cover_the_density_over_seeds():
    grid, hits, bias = np.array([0.5, 3.2, 9.45]), [], []
    for seed in range(40):
        data = spectral_density(Diagonal(TWO_BULKS), probes=8, steps=30, points=2, seed=seed)
        found = smooth(data, grid, data.attrs["width"])
        bells = np.exp(-0.5 * ((grid[:, None] - TWO_BULKS.numpy()) / data.attrs["width"]) ** 2)
        true = bells.mean(1) / (data.attrs["width"] * np.sqrt(2 * np.pi))
        hits.append(np.abs(found.density - true) <= 1.96 * found.density_stderr + found.bias)
        bias.append(found.bias / float(found.density.max()))
    assert (np.mean(hits, 0) >= 0.85).all() and max(bias) < 1e-3


def test_bias_of_a_smoothing_that_the_steps_cannot_resolve_is_told():
    d = torch.logspace(-6, 0, 1000, dtype=torch.float64)
    data = spectral_density(Diagonal(d), probes=40, steps=10, width=0.01, points=400)
    bells = np.exp(-0.5 * ((data.eigenvalue.to_numpy()[:, None] - d.numpy()) / 0.01) ** 2)
    error = np.abs(data.density - bells.mean(1) / (0.01 * np.sqrt(2 * np.pi)))
    assert bool((error > 4 * data.density_stderr + 1e-6).any())
    assert bool((error <= 4 * data.density_stderr + data.attrs["bias"]).all())


def test_few_distinct_eigenvalues_end_the_recurrence_exactly():
    d = torch.tensor([0.0] * 70 + [2.0] * 30 + [5.0] * 100, dtype=torch.float64)
    data = spectral_density(planted(d), probes=50, steps=40)
    assert data.attrs["products"] == 150
    nodes = data.node.to_numpy()
    np.testing.assert_allclose(nodes[:, :3], [[0, 2, 5]] * 50, atol=1e-10)
    assert np.isnan(nodes[:, 3:]).all() and (data.weight[:, 3:] == 0).all()
    np.testing.assert_allclose(data.weight[:, :3].mean("probe"), [0.35, 0.15, 0.5], atol=0.03)


def test_no_ghosts_in_500_steps():
    d = torch.cat([torch.linspace(0, 1, 597), torch.tensor([50.0, 80.0, 100.0])])
    data = spectral_density(Diagonal(d), probes=2, steps=500)
    assert ((data.node > 2).sum("step") == 3).all()


def test_smoothing_anew_needs_no_products():
    data = spectral_density(planted(FLAT), width=0.05)
    again = smooth(data, data.eigenvalue.to_numpy(), 0.05)
    np.testing.assert_array_equal(again.density, data.density)
    assert smooth(data, data.eigenvalue.to_numpy(), 0.5).density.max() < data.density.max()


def test_same_seed_same_answer():
    first, again, other = (spectral_density(Diagonal(FLAT), seed=s) for s in (3, 3, 4))
    assert first.identical(again) and not first.identical(other)


def test_bad_input():
    with pytest.raises(InvalidArgument, match="2 probes"):
        spectral_density(Diagonal(FLAT), probes=1)
    with pytest.raises(NotSymmetric):
        spectral_density(torch.triu(torch.ones(30, 30)))
    with pytest.raises(NotFinite):
        spectral_density(Poisoned(FLAT))
