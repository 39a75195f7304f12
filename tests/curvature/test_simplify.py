"""A simplified graph computes what it computed, with fewer steps, and writes into nothing given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, jvp
from torch.fx.experimental.proxy_tensor import make_fx

from thalweg.curvature.linearize import trace_linear
from thalweg.curvature.simplify import drop_zeros, simplify

# The tracer uses it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
ZEROS = (
    torch.ops.aten.zeros.default,
    torch.ops.aten.zeros_like.default,
    torch.ops.aten._new_zeros_with_same_feature_meta.default,
)


def simplified(function: Callable[..., Tensor], *tensors: Tensor) -> fx.GraphModule:
    module = make_fx(function)(*tensors)
    simplify(module.graph)
    module.recompile()
    return module


def steps(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_product_of_a_convolutional_network_is_the_same(channels_last: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(),
        nn.Linear(20, 3),
    ).double()  # fmt: skip
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(3, (6,))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    names = list(weights)
    direction = tuple(torch.randn_like(weight) for weight in weights.values())

    def product(v: tuple[Tensor, ...], constants: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        def loss(values: tuple[Tensor, ...]) -> Tensor:
            outputs = functional_call(model, dict(zip(names, values, strict=True)), constants[-1])
            return nn.functional.cross_entropy(outputs, targets)

        answer: tuple[Tensor, ...] = jvp(grad(loss), (constants[:-1],), (v,))[1]
        return answer

    constants = (*weights.values(), images)
    traced = trace_linear(product, direction, constants)
    held = traced.prepare(*constants)
    before = [tensor.clone() for tensor in held]
    twice = [traced.apply(*direction, *held) for _ in range(2)]
    for answer in twice:
        for part, expected in zip(answer, product(direction, constants), strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)
            assert part.stride() == expected.stride()
    for tensor, unchanged in zip(held, before, strict=True):
        assert torch.equal(tensor, unchanged)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return product(tensors[: len(names)], tensors[len(names) :])

    whole = make_fx(flat)(*direction, *constants)
    filled = [node for node in whole.graph.nodes if node.target in ZEROS]
    drop_zeros(whole.graph)
    left = [node for node in whole.graph.nodes if node.target in ZEROS]
    assert len(left) < len(filled) / 2
    whole.recompile()
    for part, expected in zip(
        whole(*direction, *constants), product(direction, constants), strict=True
    ):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)


def test_a_sum_with_zeros_is_its_other_term() -> None:
    x = torch.randn(2, 3)
    module = simplified(lambda x: torch.zeros_like(x) + x.exp() + torch.zeros(2, 3), x)
    assert steps(module) == ["aten.exp.default"]
    assert torch.equal(module(x), x.exp())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.zeros(4, 2, 3) + x,  # zeros that widen
        lambda x: torch.zeros(2, 3, dtype=torch.float64) + x,  # zeros that promote
        lambda x: torch.add(torch.zeros_like(x), x, alpha=2),
        lambda x: torch.zeros_like(x).index_fill_(0, torch.tensor([0]), 1.0) + x,
        lambda x: torch.zeros_like(x).expand(2, 3).add_(x) + x,
        lambda x: (zeros := torch.zeros_like(x), zeros.view(6).add_(1), zeros + x)[-1],
    ],
    ids=["widened", "promoted", "scaled", "written", "written view", "written by a view"],
)
def test_what_only_looks_like_zeros_stays(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3)
    expected = function(x)
    answer = simplified(function, x)(x)
    assert answer.dtype == expected.dtype
    assert torch.equal(answer, expected)


def test_copies_of_what_nobody_writes_into_are_taken_out() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.exp()
        z = torch.ops.aten._to_copy(y.expand(2, 3), dtype=torch.float32)
        return torch.ops.aten.alias(z.clone().view(2, 3)).sin()

    x = torch.randn(2, 3)
    module = simplified(function, x)
    assert steps(module) == ["aten.exp.default", "aten.sin.default"]
    assert torch.equal(module(x), x.exp().sin())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (copy := x.clone(), copy.add_(1), x + copy)[-1],
        lambda x: (copy := x.clone(), y := x.exp(), y.view(6).add_(1), copy + y)[-1],
        lambda x: (y := x.exp(), copy := y.clone(), y.add_(1), copy + y)[-1],
        lambda x: (y := x.exp(), copy := y.view(6)[:3].clone(), y.add_(1), copy + y[0])[-1],
        lambda x: x.to(torch.float64).sin(),
        lambda x: x.t().clone(memory_format=torch.contiguous_format).view(6),
        lambda x: x[:1].expand(2, 3).clone().add_(x),
    ],
    ids=["copy", "view", "source", "part", "dtype", "layout", "widened"],
)
def test_copies_that_count_stay(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3)
    given = x.clone()
    expected = function(x)
    module = simplified(function, x)
    answer = module(x)
    assert answer.dtype == expected.dtype
    assert torch.equal(answer, expected)
    assert torch.equal(x, given)


def test_what_is_computed_twice_is_computed_once() -> None:
    def function(x: Tensor) -> Tensor:
        return (x - 1).sin() + (x - 1).sin() * x.sum(1)[:, None] - x.sum(0)

    x = torch.randn(3, 3)
    module = simplified(function, x)
    assert steps(module).count("aten.sin.default") == 1
    assert steps(module).count("aten.sum.dim_IntList") == 2  # over other dimensions
    assert torch.equal(module(x), function(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (y := x.exp(), y.add_(1), y + x.exp())[-1],
        lambda x: (y := x.exp(), z := x.exp(), z.view(6).add_(1), y + z)[-1],
        lambda x: (y := x.exp(), a := y.sin(), y.add_(1), a + y.sin())[-1],
        lambda x: (x.long() + 1) * 0.5 + (x.long() + 1.0).sin(),
    ],
    ids=["written", "written by a view", "written between", "another dtype"],
)
def test_what_differs_is_not_merged(function: Callable[[Tensor], Tensor]) -> None:
    x = 3 * torch.randn(2, 3)
    expected = function(x)
    assert torch.equal(simplified(function, x)(x), expected)


def test_random_numbers_are_not_merged() -> None:
    x = torch.randn(2, 3)
    module = simplified(lambda x: torch.rand_like(x) - torch.rand_like(x), x)
    assert steps(module).count("aten.rand_like.default") == 2
    assert bool((module(x) != 0).any())


def test_two_results_of_one_value_both_come_back() -> None:
    def function(v: tuple[Tensor, ...], c: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (v[0] * c[0]).sum(0), v[0] * 2, (v[0] * c[0]).sum(0)

    v, c = (torch.randn(2, 3),), (torch.randn(2, 3),)
    traced = trace_linear(function, v, c)
    for part, expected in zip(traced.apply(*v, *traced.prepare(*c)), function(v, c), strict=True):
        assert torch.equal(part, expected)
