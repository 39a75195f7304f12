"""Fewer passes over memory give the same numbers, and write into nothing given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, jvp
from torch.fx.experimental.proxy_tensor import make_fx

from thalweg.curvature.linearize import trace_linear
from thalweg.curvature.passes import add_products, multiply_small_first, write_in_place

# The tracer uses it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def changed(
    change: Callable[[fx.Graph], None], function: Callable[..., Tensor], *tensors: Tensor
) -> fx.GraphModule:
    module = make_fx(function)(*tensors)
    change(module.graph)
    module.graph.lint()
    module.recompile()
    return module


def steps(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def all_changes(graph: fx.Graph) -> None:
    multiply_small_first(graph)
    add_products(graph)
    write_in_place(graph)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x, y: x @ y + y, 1),
        (lambda x, y: x + x @ y, 1),
        (lambda x, y: x + y, 0),  # what is given is not written into
        (lambda x, y: (x @ y + y) * (x @ y), 1),
        (lambda x, y: (z := x @ y) + y + z, 1),  # the first is read again
        (lambda x, y: x @ y + torch.ones(4, 2, 2), 0),  # widened
        (lambda x, y: (x @ y).view(4) + y.view(4), 0),  # a view of it
        (lambda x, y: (x @ y).exp() + y, 0),  # not known to be new
    ],
)
def test_sums_are_in_place_only_in_what_nobody_else_reads(
    function: Callable[[Tensor, Tensor], Tensor], count: int
) -> None:
    x, y = torch.randn(2, 2), torch.randn(2, 2)
    copies = x.clone(), y.clone()
    module = changed(write_in_place, function, x, y)
    assert steps(module).count("aten.add_.Tensor") == count
    assert torch.equal(module(x, y), function(*copies))
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: torch.relu(x @ y) * y + x * y,
        lambda x, y: (z := x @ y, a := z * y, z.add_(1), a + z)[-1],
        lambda x, y: (z := x @ y, a := z * y, z.view(4).add_(1), (a + x) * z)[-1],
        lambda x, y: (z := x * y, v := z.view(4), z + y, v * 2)[-1],
        lambda x, y: (z := x @ y) * z + z,
        lambda x, y: (x * y[0]) * y[1] + (x * y[0]),
        lambda x, y: (x * y) * y[:, :1] * y[0] + y,
        lambda x, y: torch.add(x @ y, x * y, alpha=2),
        lambda x, y: (x.double() * y + x.double()).float() + x * y,
        lambda x, y: torch.ops.aten.threshold_backward(x @ y, y, 0) + x,
        lambda x, y: (z := x @ y) + torch.ops.aten.threshold_backward(z, y, 0),
        lambda x, y: torch.ops.aten.threshold_backward(z := x @ y, z, 0) + x,
    ],
)
def test_numbers_stay_and_what_is_given_is_not_written_into(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    x, y = torch.randn(2, 2), torch.randn(2, 2)
    copies = x.clone(), y.clone()
    module = changed(all_changes, function, x, y)
    torch.testing.assert_close(module(x, y), function(*copies), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


def test_small_factors_are_multiplied_first() -> None:
    def function(x: Tensor, scale: Tensor, other: Tensor) -> Tensor:
        return scale[:, None] * (other[None] * (x * other))

    x, scale, other = torch.randn(4, 5), torch.randn(4), torch.randn(5)
    module = changed(multiply_small_first, function, x, scale, other)
    large = [
        node
        for node in module.graph.nodes
        if node.target is torch.ops.aten.mul.Tensor and node.meta["val"].shape == (4, 5)
    ]
    # Of three; the product of one number a row and one a column would be as large as x.
    assert len(large) == 2
    torch.testing.assert_close(module(x, scale, other), function(x, scale, other))


def test_products_are_added_in_one_pass() -> None:
    x, y = torch.randn(3, 2), torch.randn(2)
    module = changed(add_products, lambda x, y: x.exp() + x * y, x, y)
    assert "aten.addcmul.default" in steps(module)
    assert "aten.mul.Tensor" not in steps(module)
    torch.testing.assert_close(module(x, y), x.exp() + x * y)
    # Where the product is wanted elsewhere, or its term is the smaller one, nothing is gained.
    for function in (lambda x, y: (z := x * y) + x + z, lambda x, y: x * y + y):
        module = changed(add_products, function, x, y)
        assert "aten.addcmul.default" not in steps(module)
        torch.testing.assert_close(module(x, y), function(x, y))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.other_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.other_norm(self.second(x)) + x)
        return self.out(x.mean((2, 3)))


def test_a_product_under_frozen_batch_norm_holds_each_activation_once() -> None:
    torch.manual_seed(0)
    model = Residual().double()
    for norm in (model.norm, model.other_norm):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data = torch.rand_like(tensor) + 0.5
    model.eval()
    images, targets = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(3, (6,))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    direction = tuple(torch.randn_like(weight) for weight in weights.values())

    def product(v: tuple[Tensor, ...], constants: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        def loss(values: tuple[Tensor, ...]) -> Tensor:
            named = dict(zip(weights, values, strict=True))
            outputs = functional_call(model, named, constants[-1])
            return nn.functional.cross_entropy(outputs, targets)

        answer: tuple[Tensor, ...] = jvp(grad(loss), (constants[:-1],), (v,))[1]
        return answer

    constants = (*weights.values(), images)
    traced = trace_linear(product, direction, constants)
    held = traced.prepare(*constants)
    before = [tensor.clone() for tensor in held]
    for _ in range(2):
        for part, expected in zip(
            traced.apply(*direction, *held), product(direction, constants), strict=True
        ):
            torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)
    for tensor, unchanged in zip(held, before, strict=True):
        assert torch.equal(tensor, unchanged)
    # Of each layer: what enters the norm less its mean, what leaves the activation, and the slopes
    # before the norm and after it. Slopes of the last sum are those of both its terms.
    large = {tensor.data_ptr() for tensor in held if tensor.shape == (6, 4, 8, 8)}
    assert len(large) <= 8
