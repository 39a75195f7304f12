"""The parameter space: round trips, names, scales against hand-computed values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.errors import InvalidProblem, InvalidWeights
from thalweg.landscape.space import ParameterSpace


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )


widths = st.lists(st.integers(1, 5), min_size=2, max_size=5)


@given(widths, st.booleans(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_pack_and_unpack_are_inverse(sizes: list[int], bias: bool, seed: int) -> None:
    pairs = itertools.pairwise(sizes)
    model = nn.Sequential(*[nn.Linear(a, b, bias=bias) for a, b in pairs])
    space = ParameterSpace.of(model)
    w = torch.randn(space.size, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(space.pack(space.unpack(w)), w)
    named = space.unpack(space.pack(model))
    assert named.keys() == dict(model.named_parameters()).keys()
    for name, tensor in model.named_parameters():
        assert torch.equal(named[name], tensor)


def test_unpack_gives_views() -> None:
    space = ParameterSpace.of(nn.Linear(3, 2))
    w = torch.zeros(8)
    space.unpack(w)["bias"].fill_(1.0)
    assert w.tolist() == [0] * 6 + [1] * 2


def test_layers_tile_the_vector_in_order() -> None:
    space = ParameterSpace.of(convolutional())
    assert space.layers == {"0": slice(0, 57), "1": slice(57, 63), "4": slice(63, 89)}
    assert space.size == 89


def test_kinds_follow_the_module() -> None:
    kinds = {p.name: p.kind for p in ParameterSpace.of(convolutional()).parameters}
    assert kinds == {
        "0.weight": "weight",
        "0.bias": "bias",
        "1.weight": "norm",
        "1.bias": "norm",
        "4.weight": "weight",
        "4.bias": "bias",
    }
    mask = ParameterSpace.of(convolutional()).mask("weight")
    assert int(mask.sum()) == 54 + 24


def test_tied_weights_count_once_and_frozen_ones_not() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 1))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    assert ParameterSpace.of(model).names == ("0.weight", "2.bias")


def test_layer_scale_is_the_rms_of_the_kernel() -> None:
    space = ParameterSpace.of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    w = torch.tensor([3.0, 4.0, 0.0, 0.0, 100.0, 100.0, 2.0, 2.0, 50.0, 50.0])
    scales = space.layer_scales(w)
    assert scales == pytest.approx({"0": 2.5, "1": 2.0})


def test_filter_norms_use_output_channels_also_when_transposed() -> None:
    plain = ParameterSpace.of(nn.Conv2d(2, 3, 2, bias=False))
    assert plain.filter_norms(torch.ones(24))["weight"].tolist() == pytest.approx(
        [math.sqrt(8)] * 3
    )
    turned = ParameterSpace.of(nn.ConvTranspose2d(2, 3, 2, bias=False))
    assert turned.filter_norms(torch.ones(24))["weight"].tolist() == pytest.approx(
        [math.sqrt(8)] * 3
    )


def test_no_trainable_parameters_is_said() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(InvalidProblem, match=r"no trainable parameters.*requires_grad=True"):
        ParameterSpace.of(model)


@pytest.mark.parametrize("wrong", ["digits", None, torch.zeros(3), {"w": torch.zeros(3)}])
def test_what_is_no_network_has_no_space(wrong) -> None:
    with pytest.raises(InvalidProblem, match=rf"got a {type(wrong).__name__}, .*risk\.space"):
        ParameterSpace.of(wrong)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(2, 3)}, "no tensor 'bias'"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"\(3, 2\), expected \(2, 3\)"),
    ],
)
def test_pack_names_what_is_wrong(tensors: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(InvalidWeights, match=words):
        ParameterSpace.of(nn.Linear(3, 2)).pack(tensors)


@pytest.mark.parametrize("w", [torch.zeros(7), torch.zeros(1, 8), torch.zeros(8, dtype=torch.int)])
def test_a_point_of_another_space_is_refused(w: torch.Tensor) -> None:
    with pytest.raises(InvalidWeights, match=r"shape \(8,\).*risk\.space\.pack"):
        ParameterSpace.of(nn.Linear(3, 2)).unpack(w)


def test_unknown_layer_lists_the_layers() -> None:
    with pytest.raises(InvalidWeights, match=r"no layer 'conv'.*'0', '1', '4'"):
        ParameterSpace.of(convolutional()).slices(["conv"])


class Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.line = nn.Linear(4, 1)


def test_weights_that_are_not_finite_are_told_in_the_model_s_numbers() -> None:
    space = ParameterSpace.of(Fourier())
    w = torch.zeros(space.size)
    assert (space.size, space.not_finite(w)) == (29, "")
    w[[2, 3, 5]], w[-1] = torch.nan, torch.inf  # both parts of one complex number, one of another
    expected = "3 of 17 weights are NaN or infinite: 2 of 12 in 'kernel', 1 of 1 in 'line.bias'"
    assert space.not_finite(w) == expected


def test_many_broken_tensors_are_not_all_listed() -> None:
    space = ParameterSpace.of(nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))))
    told = space.not_finite(torch.full((8,), torch.nan))
    assert told.startswith("8 of 8 weights") and told.endswith("in '2.weight' and 3 more tensors")


def test_a_vector_of_the_number_of_complex_weights_is_told_why_it_is_too_short() -> None:
    space = ParameterSpace.of(Fourier())
    with pytest.raises(
        InvalidWeights, match=r"\(29,\) \(12 complex weights take two places each\)"
    ):
        space.check(torch.zeros(17))
