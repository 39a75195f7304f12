"""Replacing activations, calibrating their intervals, and watching who leaves them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from thalweg.errors import InvalidArgument, LeftInterval, NothingReplaced
from thalweg.polynomial import (
    PolynomialActivation,
    check_excursions,
    excursions,
    fit_polynomial,
    replace_activations,
    reset_excursions,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * 36, 8),
        nn.Tanh(),
        nn.Linear(8, 3),
    )


IMAGES = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_copy_is_replaced_and_the_model_is_left_alone():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    copy = replace_activations(model, 10, data=IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(model[2], nn.ReLU) and isinstance(model[6], nn.Tanh)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert torch.equal(copy.state_dict()[name], value), name
    assert isinstance(copy[2], PolynomialActivation) and isinstance(copy[6], PolynomialActivation)
    assert copy[0].weight is not model[0].weight
    assert excursions(copy)["2"].seen == 0


def test_each_fit_is_of_the_activation_it_replaces():
    copy = replace_activations(network(), 12, radius=3.0).eval()
    x = torch.linspace(-3, 3, 201, dtype=torch.float64)
    for name, function in (("2", torch.relu), ("6", torch.tanh)):
        fit = fit_polynomial(function, 12, radius=3.0)
        error = (copy.get_submodule(name)(x) - function(x)).abs().max()
        assert error.item() == pytest.approx(fit.error, rel=0.05)


@pytest.mark.parametrize(
    "data",
    [IMAGES, [IMAGES[:10], IMAGES[10:]], [(IMAGES, torch.zeros(20))]],
    ids=["tensor", "batches", "pairs"],
)
def test_radius_is_the_margin_times_the_largest_preactivation(data):
    model = network().eval()
    hidden = model[:2](IMAGES)
    after = model[:6](IMAGES)
    copy = replace_activations(model, 4, data=data, margin=1.5)
    assert copy[2].radius.item() == pytest.approx(1.5 * hidden.abs().max().item(), rel=1e-5)
    assert copy[6].radius.item() == pytest.approx(1.5 * after.abs().max().item(), rel=1e-5)
    assert not copy.training and not copy[2].training


class Shared(nn.Module):
    """One activation module, called twice and known by two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.ReLU()

    def forward(self, x):
        return self.second(-10 * self.first(x))


def test_one_module_used_twice_stays_one_with_the_wider_interval():
    copy = replace_activations(Shared(), 4, data=torch.tensor([-3.0, 2.0]), margin=1.0)
    assert copy.first is copy.second and isinstance(copy.first, PolynomialActivation)
    assert copy.first.radius.item() == 20.0


def test_a_bare_activation_and_own_classes_are_replaced():
    class Square(nn.Module):
        def forward(self, x):
            return x * x

    assert isinstance(replace_activations(nn.ReLU(), 3, radius=1.0), PolynomialActivation)
    model = nn.Sequential(nn.Linear(2, 2), Square())
    copy = replace_activations(model, 2, radius=2.0, types=(Square,)).double()
    x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(copy(x), model.double()(x))


def test_functional_activations_are_named_as_what_cannot_be_seen():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return torch.relu(self.layer(x))

    with pytest.raises(NothingReplaced, match=r"Functional .*self.act = nn.ReLU\(\)"):
        replace_activations(Functional(), 10, radius=1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "pass data=inputs"),
        ({"data": torch.zeros(0, 1, 8, 8)}, "cannot calibrate"),
        ({"data": []}, "cannot calibrate '2'"),
        ({"data": IMAGES * math.nan}, "'2': its largest pre-activation on data is inf"),
        ({"data": IMAGES, "margin": 0.5}, "margin must be at least 1"),
        ({"radius": -1.0}, "radius must be positive"),
        ({"radius": "auto"}, "radius must be a number"),
        ({"radius": 1.0, "method": "taylor"}, "method must be one of"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(InvalidArgument, match=words):
        replace_activations(network().eval(), 4, **arguments)


def layer(radius=2.0):
    return PolynomialActivation(fit_polynomial(torch.relu, 4, radius=radius))


def test_excursions_are_counted_in_training_mode_only():
    act = layer()
    act(torch.tensor([0.0, 2.0, -2.0, 2.5, -5.0]))
    act(torch.tensor([1.0, 3.0, 0.0]))
    seen = excursions(nn.Sequential(act))["0"]
    assert (seen.seen, seen.outside, seen.largest) == (8, 3, 5.0)
    assert seen.share == 3 / 8 and seen.factor == 2.5 and seen.radius == 2.0
    act.eval()(torch.tensor([100.0]))
    assert excursions(act)[""] == seen
    reset_excursions(act)
    assert excursions(act)[""].seen == 0 and excursions(act)[""].share == 0.0


def test_excursions_are_counted_once_under_transforms():
    act = layer()
    x = torch.tensor([[0.5, 3.0], [1.0, -1.0], [4.0, 0.0]])
    vmap(grad(lambda row: act(row).sum()))(x)
    seen = excursions(act)[""]
    assert (seen.seen, seen.outside, seen.largest) == (6, 2, 4.0)


def test_the_record_is_no_state_and_evaluation_is_deterministic():
    act, x = layer(), 10 * torch.randn(50)
    before = {name: value.clone() for name, value in act.state_dict().items()}
    first, second = act(x), act(x)
    assert torch.equal(first, second)
    assert {name: value.tolist() for name, value in act.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }


def test_leaving_the_interval_is_said_with_layer_share_and_remedy():
    model = nn.Sequential(layer(), layer(1000.0))
    model(torch.tensor([1.0, 1.0, 1.0, 2.5]))
    check_excursions(model)
    with pytest.raises(LeftInterval, match=r"0: share 0.25 of 4 .*\[-2, 2\], largest 2.5"):
        check_excursions(model, factor=1.2)
    with pytest.raises(ArithmeticError, match="clip the gradients"):
        check_excursions(model, factor=1.2)


def test_a_diverging_run_says_so_instead_of_nan():
    torch.manual_seed(0)
    model = replace_activations(
        nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)), 10, radius=1.0
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs = torch.randn(32, 4)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        optimizer.step()
    assert not loss.isfinite()
    with pytest.raises(LeftInterval, match="largest inf") as caught:
        check_excursions(model)
    assert list(caught.value.excursions) == ["1"]
