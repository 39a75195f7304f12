"""The layout of images: the same function, and models that cannot take channels last are spared."""

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


def _product(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Give the Hessian's product with ones, by autograd in float64."""
    weights = list(model.parameters())
    loss = nn.functional.cross_entropy(model(x.double()), y)
    first = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad(sum(g.sum() for g in first), weights)
    return torch.cat([g.flatten() for g in second])
