from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.errors import InvalidArgument
from thalweg.polynomial import PolynomialActivation
from thalweg.problems import ACTIVATIONS, MLP, AllConv, activation_module


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def by_hand(inputs, classes, widths, batchnorm):
    """Weights of the network of the paper, layer by layer."""
    channels, side, _ = inputs
    total = 0
    for width in widths:
        total += 9 * channels * width + (2 * width if batchnorm else width)
        channels, side = width, -(-side // 2)
    return total + (channels * side * side + 1) * classes


@pytest.mark.parametrize("batchnorm", [True, False])
@pytest.mark.parametrize(
    ("inputs", "classes", "widths"),
    [((3, 32, 32), 10, (64, 64, 96, 104)), ((1, 8, 8), 10, (32, 64, 64)), ((2, 7, 7), 3, (5,))],
)
def test_the_number_of_weights(inputs, classes, widths, batchnorm):
    network = AllConv(inputs, classes, widths, batchnorm=batchnorm)
    assert count(network) == by_hand(inputs, classes, widths, batchnorm)
    assert network(torch.zeros(2, *inputs)).shape == (2, classes)


def test_the_default_has_nearly_the_papers_number_of_weights():
    assert count(AllConv()) == 188_570


def test_the_convolutions_are_the_papers():
    convolutions = [m for m in AllConv() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 96, 104]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {
        ((3, 3), (2, 2), (1, 1))
    }
    assert not any("Pool" in type(m).__name__ for m in AllConv())


def test_an_mlp_has_the_sizes_asked_for():
    assert count(MLP(4, (3, 5), 2)) == 4 * 3 + 3 + 3 * 5 + 5 + 5 * 2 + 2
    assert count(MLP(4, (3, 5), 2, bias=False)) == 4 * 3 + 3 * 5 + 5 * 2
    assert count(MLP(4, (), 2)) == 10


@pytest.mark.parametrize("make", [AllConv, lambda **options: MLP(4, (3,), 2, **options)])
def test_initialization_is_a_function_of_the_seed_alone(make):
    before = torch.get_rng_state()
    first = nn.utils.parameters_to_vector(make(seed=3).parameters())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(first, nn.utils.parameters_to_vector(make(seed=3).parameters()))
    assert not torch.equal(first, nn.utils.parameters_to_vector(make(seed=4).parameters()))


def test_the_initial_variance_is_he_s():
    weights = MLP(400, (500,), 2)[1].weight.detach()
    # The variance of 200,000 normal numbers scatters by sqrt(2 / 200,000) = 0.3%.
    assert float(weights.double().var()) == pytest.approx(2 / 400, rel=0.015)


def test_channels_last_gives_the_same_outputs():
    network, x = AllConv().eval(), torch.randn(4, 3, 32, 32, generator=torch.Generator())
    expected = network(x)
    got = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name(name):
    x = torch.linspace(-2, 2, 9)
    functions = {"identity": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    function = functions.get(name) or getattr(nn.functional, name)
    assert torch.equal(activation_module(name)(x), function(x))


def test_a_polynomial_by_its_degree():
    module = activation_module("poly10")
    assert isinstance(module, PolynomialActivation) and module.degree == 10
    x = torch.linspace(-10, 10, 101)
    # The best polynomial of degree 10 for |x| on [-1, 1] errs by about 0.028; ReLU is half of it.
    assert float((module(x) - x.relu()).abs().max()) == pytest.approx(0.1395, abs=0.002)


def test_a_module_is_copied_and_a_function_wrapped():
    own = nn.PReLU()
    assert activation_module(own) is not own
    assert activation_module(torch.sin)(torch.ones(2)).tolist() == torch.ones(2).sin().tolist()


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(InvalidArgument, match=r"'rely' is not known; did you mean 'relu'.*poly10"):
        AllConv(activation="rely")


def test_widths_are_positive_numbers():
    with pytest.raises(InvalidArgument, match=r"widths: got \(3, 0\); write positive"):
        AllConv(widths=(3, 0))
