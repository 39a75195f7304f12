from __future__ import annotations

import numpy as np
import pytest

from thalweg.algebra import Gauge, generic_rank, network, random_system
from thalweg.algebra.rank import pivot_rows
from thalweg.errors import SystemTooLarge
from thalweg.run.progress import silent

# Widths, activation, bias, rank, largest N with solutions for generic targets.
CASES = [
    ((2, 3, 1), (0, 0, 1), True, 6, 6),  # quadratic forms in three variables
    ((2, 3, 1), (0, 0, 0, 1), True, 9, 9),
    ((2, 5, 1), (0, 0, 0, 1), True, 10, 10),  # cubic forms in three variables
    ((2, 5, 1), (0, 0, 0, 0, 1), True, 14, 14),  # Clebsch: 15 quartic forms, 5 powers: 14
    ((1, 2, 1), (1, 1, 0, 2), False, 3, 3),  # functions spanned by 1, x and x**3
    ((3, 2, 1), (0, 1), False, 3, 3),  # linear functions
    ((2, 2, 2), (0, 0, 0, 1), True, 8, 4),
]


@pytest.mark.parametrize(("widths", "activation", "bias", "rank", "largest"), CASES)
def test_known_ranks(widths, activation, bias, rank, largest):
    net = network(widths, activation, bias=bias)
    found = generic_rank(Gauge(net, net.monomial))
    assert (found.rank, found.largest_samples) == (rank, largest)


@pytest.mark.parametrize(("widths", "activation", "bias", "rank", "largest"), CASES)
def test_singular_values_show_the_same_gap(widths, activation, bias, rank, largest):
    net = network(widths, activation, bias=bias)
    profile = generic_rank(Gauge(net, net.monomial))
    for samples in (1, 3, rank + 2):
        system = random_system(net, samples=samples, seed=5)
        weights = np.random.default_rng(6).normal(size=(1, system.weights))
        sizes = np.linalg.svd(system.evaluate(weights)[1][0], compute_uv=False)
        at = profile.at(samples)
        assert sizes[at - 1] > 1e-9 * sizes[0]
        assert (sizes[at:] < 1e-12 * sizes[0]).all()


def test_elimination_finds_the_first_independent_rows():
    matrix = np.array([[1, 2], [2, 4], [0, 0], [1, 0], [5, 5]])
    assert pivot_rows(matrix, silent(5, "rows")).tolist() == [0, 3]


def test_too_large_networks_are_refused():
    net = network((1000, 100, 1), (0, 0, 1))
    with pytest.raises(SystemTooLarge, match="100000 weights"):
        generic_rank(Gauge(net, True))
