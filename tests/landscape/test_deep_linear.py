"""Deep linear networks: the contract, and the closed form against published cases."""

from __future__ import annotations

import pytest
import torch

from thalweg.errors import InvalidArgument
from thalweg.landscape import Blocked, DeepLinear
from thalweg.landscape.testing import CurvedContract, LandscapeContract


class TestDeepLinear(LandscapeContract, CurvedContract):
    @pytest.fixture
    def landscape(self):
        return DeepLinear((3, 2, 4, 3), 1)

    @pytest.fixture
    def w(self, landscape):
        generator = torch.Generator().manual_seed(0)
        return landscape.minimum + 0.3 * torch.randn(26, generator=generator).double()


# Aoyagi and Watanabe (2005): inputs, hidden, outputs; rank; coefficient; multiplicity.
@pytest.mark.parametrize(
    ("widths", "rank", "coefficient", "multiplicity"),
    [
        ((4, 4, 4), 2, 7.5, 1),
        ((3, 2, 3), 1, 3.5, 2),
        ((8, 8, 8), 3, 29.0, 2),
        ((1, 1, 1), 0, 0.5, 2),  # w1^2 w2^2
        ((1, 1, 1, 1), 0, 0.5, 3),
        ((2, 5, 3), 2, 3.0, 1),  # full rank: as many as entries of the target, halved
    ],
)
def test_the_closed_form(widths, rank, coefficient, multiplicity):
    found = DeepLinear(widths, rank).singularity
    assert found == (pytest.approx(coefficient), multiplicity)


def test_full_rank_networks_count_the_entries_of_their_target():
    for seed in range(50):
        network = DeepLinear.random(seed)
        full = DeepLinear(network.widths, min(network.widths))
        if full.rank in (network.widths[0], network.widths[-1]):
            assert full.singularity == (network.widths[0] * network.widths[-1] / 2, 1)


def test_block_curvature_is_the_hessians_block():
    network = DeepLinear((3, 2, 4, 3), 1)
    assert isinstance(network, Blocked)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(26, generator=generator).double()
    hessian = network.hessian(w).matrix
    for block, parameter in enumerate(network.space.parameters):
        left, right = network.block_curvature(w[None], block)
        own = hessian[parameter.slice, parameter.slice]
        assert torch.allclose(torch.kron(left[0], right[0]), own)


def test_random_networks_keep_to_their_bounds():
    for seed in range(30):
        network = DeepLinear.random(seed)
        assert 2 <= len(network.widths) - 1 <= 5 and network.space.size <= 2500
        assert network.value(network.minimum) < 1e-25


@pytest.mark.parametrize(("widths", "rank"), [((3, 3), 1), ((3, 0, 3), 0), ((3, 2, 3), 3)])
def test_what_is_no_network_is_refused(widths, rank):
    with pytest.raises(InvalidArgument, match="widths"):
        DeepLinear(widths, rank)
