"""The layout of images: the same function, and models that cannot take channels last are spared."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw


class Viewing(nn.Module):
    """Takes a view of what a convolution gave, as only contiguous outputs allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.linear(torch.tanh(self.convolution(x)).view(len(x), -1))


class Flattening(Viewing):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.linear(torch.tanh(self.convolution(x)).flatten(1))


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(40, 3, 8, 8, generator=generator),
        torch.randint(5, (40,), generator=generator),
    )


@pytest.mark.parametrize(("network", "channels_last"), [(Viewing, False), (Flattening, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_lie_channels_last_where_the_model_can(
    network: type[Viewing], channels_last: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model, (x, y) = network(), images()
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y)), dtype=dtype)
    w = risk.space.pack(model).to(dtype)
    loss, gradient = risk.value_and_gradient(w)
    assert risk._measured.model.seen[-1] == (channels_last and dtype == torch.float32)
    expected = nn.functional.cross_entropy(model.double()(x.double()), y)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    reference = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(gradient.double(), reference, atol=1e-6)
    product = risk.hessian(w) @ torch.ones_like(w)
    assert torch.allclose(product.double(), _product(model, x, y), atol=1e-5)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.convolution, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
        self.convolution.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.group_norm(self.convolution(x), 2, self.scale, self.shift)
        return self.linear(torch.tanh(x).flatten(1))


def first() -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(1, 3), nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def behind_frozen() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    model[0].requires_grad_(False)
    return model


class ByOperator(Functional):
    def forward(self, x: Tensor) -> Tensor:
        x, scale, shift = self.convolution(x), self.scale, self.shift
        x = torch.ops.aten.native_group_norm(x, scale, shift, len(x), 4, 36, 2, 1e-5)[0]
        return self.linear(torch.tanh(x).flatten(1))


@pytest.mark.parametrize("make", [first, behind_frozen, Functional, ByOperator])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_norm_that_ends_the_process_is_never_given_channels_last(
    make: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    """Torch ends it where it differentiates by the norm's weights and not by its inputs."""
    torch.manual_seed(0)
    model, (x, y) = make(), images()
    given = x.contiguous(memory_format=torch.channels_last)  # as files of images are
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (given, y)), dtype=dtype)
    w = risk.space.pack(model).to(dtype)
    gradient = risk.gradient(w)
    trained = [p for p in model.double().parameters() if p.requires_grad]
    loss = nn.functional.cross_entropy(model(x.double()), y)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    assert torch.allclose(gradient.double(), expected, atol=1e-6)
    for method in ("graph", "trace", "recompute"):
        product = risk.hessian(w, method=method) @ torch.ones_like(w)
        assert torch.allclose(product.double(), _product(model, x, y), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("make", [first, behind_frozen])
def test_a_group_norm_in_torchscript_is_never_given_channels_last(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model, (x, y) = make(), images()
    given = x.contiguous(memory_format=torch.channels_last)
    scripted = torch.jit.script(model)
    risk = tw.EmpiricalRisk(tw.Problem(scripted, nn.CrossEntropyLoss(), (given, y)))
    gradient = risk.gradient(risk.space.pack(scripted))
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = nn.functional.cross_entropy(model(x), y)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_a_group_norm_whose_layer_alone_varies() -> None:
    torch.manual_seed(0)
    model, (x, y) = behind_frozen().requires_grad_(), images()
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y)))
    w = risk.space.pack(model)
    part = risk.hessian(w, layers=["1"])
    whole = risk.hessian(w)
    v = torch.zeros_like(w)
    v[part.entries] = 1.0
    ones = torch.ones(len(part.entries))
    assert torch.allclose(part @ ones, (whole @ v)[part.entries], atol=1e-6)


def _product(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Give the Hessian's product with ones, by autograd in float64."""
    weights = [p for p in model.parameters() if p.requires_grad]
    loss = nn.functional.cross_entropy(model(x.double()), y)
    first = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad(sum(g.sum() for g in first), weights)
    return torch.cat([g.flatten() for g in second])
