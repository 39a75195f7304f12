"""The network of the speed comparison: 135,306 weights, 2,000 images of 3x32x32."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from conformance.adapter import Task, parts

WIDTHS = (32, 64, 64, 128)
SAMPLES, BATCH = 2000, 250


def task(weights: Path | None = None, samples: int = SAMPLES) -> Task:
    """Four 3x3 convolutions of stride 2 and a linear layer; noisy class patterns; cross-entropy."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 4, 10))
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    inputs, targets = (tensor[:samples] for tensor in _images())
    batches = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))
    return Task(model, nn.CrossEntropyLoss(), batches)


def _images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(10, (SAMPLES,), generator=generator)
    coarse = torch.randn(10, 3, 4, 4, generator=generator)
    patterns = nn.functional.interpolate(coarse, size=32, mode="bilinear")
    noise = torch.randn(SAMPLES, 3, 32, 32, generator=generator)
    return 0.3 * patterns[targets] + noise, targets


def train(given: Task, epochs: int = 12) -> None:
    """Stochastic gradient descent with momentum, in place."""
    inputs, targets = given.whole
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(given.model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for chosen in torch.randperm(SAMPLES, generator=generator).split(64):
            optimizer.zero_grad()
            given.criterion(given.model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()


@torch.no_grad()
def plain_pass(given: Task) -> None:
    """Unit P: plain forward evaluation in batches of 250."""
    for x, y in given.batches:
        given.criterion(given.model(x), y).item()


def plain_product(given: Task, v: Tensor) -> Tensor:
    """Unit H: one Hessian-vector product by double backward in batches of 250."""
    weights = list(given.model.parameters())
    samples = sum(len(x) for x, _ in given.batches)
    total = torch.zeros_like(v)
    for x, y in given.batches:
        loss = given.criterion(given.model(x), y) * (len(x) / samples)
        gradient = torch.autograd.grad(loss, weights, create_graph=True)
        product = torch.autograd.grad(gradient, weights, parts(v, given.model))
        total += torch.cat([part.reshape(-1) for part in product])
    return total
