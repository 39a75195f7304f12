"""The networks and data of the checks: planted quadratics and small networks of known answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from conformance.adapter import Task, parts


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotation(size: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix in float64."""
    return torch.linalg.qr(torch.randn(size, size, generator=_generator(seed), dtype=torch.double))[
        0
    ]


def quadratic(
    spectrum: Tensor, *, bottom: Tensor | None = None, rotated: bool = True, w: Tensor | None = None
) -> Task:
    """
    One linear layer whose mean squared error is a quadratic with these Hessian eigenvalues.

    Sample i is sqrt(W lambda_i / 2) times the i-th eigenvector, so that the Hessian is exactly
    Q diag(lambda) Q'; its targets put the bottom where it is wanted, at loss 0.
    """
    size = len(spectrum)
    frame = rotation(size) if rotated else torch.eye(size, dtype=torch.double)
    inputs = (frame * (size * spectrum.double() / 2).sqrt()).T
    bottom = torch.zeros(size, dtype=torch.double) if bottom is None else bottom.double()
    model = nn.Linear(size, 1, bias=False)
    start = torch.ones(size) / size**0.5 if w is None else w
    with torch.no_grad():
        model.weight.copy_(start[None])
    targets = (inputs @ bottom)[:, None]
    return Task(model, nn.MSELoss(), [(inputs.float(), targets.float())])


def planted(name: str) -> Tensor:
    """Spectra by name, float64, descending."""
    line = torch.linspace(0, 1, 300, dtype=torch.double).flip(0)
    spectra = {
        "outliers": torch.cat([torch.tensor([100.0, 80.0, 50.0]).double(), line]),
        "close": torch.cat([torch.tensor([10.0, 9.7, 9.4, 9.1, 8.8, 8.5, 8.2]).double(), line]),
        "repeated": torch.cat([torch.tensor([9.0, 9.0, 7.0, 7.0, 5.0]).double(), line]),
        "two bulks": torch.cat([line + 4, line]),
        "decay": torch.arange(1, 201, dtype=torch.double) ** -1.0,
        "flat": line[:200] + 0.5,
    }
    return spectra[name]


def images(samples: int, size: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise of shape (samples, 2, size, size) with a class pattern in it."""
    generator = _generator(seed)
    targets = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, 2, size, size, generator=generator)
    noise = torch.randn(samples, 2, size, size, generator=generator)
    return noise + 0.5 * patterns[targets], targets


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def _train(task: Task, steps: int, lr: float = 0.05) -> None:
    x, y = task.whole
    optimizer = torch.optim.SGD(task.model.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        task.criterion(task.model(x), y).backward()
        optimizer.step()
    task.model.zero_grad(set_to_none=True)


def convolutional(*, trained: int = 30) -> Task:
    """A small smooth convolutional network: 638 weights, cross-entropy; made anew for each tool."""
    task = _convolutional(trained)
    return Task(copy.deepcopy(task.model), task.criterion, task.batches)


@lru_cache
def _convolutional(trained: int) -> Task:
    model = _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2),
            nn.Tanh(),
            nn.Conv2d(6, 8, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8, 10),
        )
    )
    task = Task(model, nn.CrossEntropyLoss(), [images(64, 7, 10, 1)])
    _train(task, trained)
    return task


def wide() -> Task:
    """An untrained network with 176 filters and biases that are not zero: 11,000 weights."""
    model = _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 48, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(432, 20),
            nn.ReLU(),
            nn.Linear(20, 10),
        )
    )
    with torch.no_grad():  # filters of unequal size, so that no single factor fits them all
        for p in model.parameters():
            if p.dim() > 1:
                scale = torch.logspace(-0.5, 0.5, len(p)).reshape(-1, *[1] * (p.dim() - 1))
                p.mul_(scale)
    return Task(model, nn.CrossEntropyLoss(), [images(8, 7, 10, 1)])


def normalized() -> Task:
    """A network with batch normalization whose running statistics have been trained."""
    model = _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, 10),
        )
    )
    task = Task(model, nn.CrossEntropyLoss(), [images(64, 7, 10, 1)])
    _train(task, 20)
    return task


class _Log(nn.Module):
    """Mean of log of the outputs minus targets: minus infinity at 0, NaN below."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (torch.log(outputs) - targets).mean()


def undefined() -> Task:
    """Loss log(w0) / 1: NaN where w0 is negative, minus infinity where it is 0."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0]]))
    x = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    return Task(model, _Log(), [(x, torch.zeros(4, 1))])


def deep_linear(samples: int = 40) -> Task:
    """Two linear layers without biases and mean squared error: 5 -> 4 -> 3, 32 weights."""
    model = _seeded(lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)))
    generator = _generator(3)
    x = torch.randn(samples, 5, generator=generator)
    return Task(model, nn.MSELoss(), [(x, torch.randn(samples, 3, generator=generator))])


def deep_linear_hessian(task: Task) -> Tensor:
    """
    The Hessian of a two-layer linear network in closed form, float64, rows of matrices first.

    With outputs V U x and loss |V U X - Y|^2 / (3 n), dE = dV U X + V dU X and the second-order
    term is dV dU X; vec by rows gives Kronecker products of moments of X and E.
    """
    first, second = (p.detach().double() for p in task.model.parameters())
    x, y = (tensor.double() for tensor in task.whole)
    n = len(x) * y.shape[1]
    moment = x.T @ x
    error = (x @ first.T @ second.T - y).T @ x  # (out, in): sum of e x'
    hidden, size, out = first.shape[0], first.shape[1], second.shape[0]
    uu = torch.kron(second.T @ second, moment)
    vv = torch.kron(torch.eye(out, dtype=torch.double), first @ moment @ first.T)
    # d2/dU_ha dV_oj: V_oh (moment U')_aj + delta_hj error_oa
    mixed = torch.einsum("oh,aj->haoj", second, moment @ first.T)
    mixed = mixed + torch.einsum("hj,oa->haoj", torch.eye(hidden, dtype=torch.double), error)
    uv = mixed.reshape(hidden * size, out * hidden)
    return (2 / n) * torch.cat([torch.cat([uu, uv], 1), torch.cat([uv.T, vv], 1)])


def dense_hessian(task: Task) -> Tensor:
    """The Hessian of the mean loss by double backward through a float64 copy: (W, W)."""
    model = copy.deepcopy(task.model).double().eval()
    x, y = task.whole
    loss = task.criterion(model(x.double()), y.double() if y.is_floating_point() else y)
    weights = list(model.parameters())
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    entries = torch.cat([g.reshape(-1) for g in gradient])
    units = torch.eye(len(entries), dtype=torch.double)
    rows = torch.autograd.grad(entries, weights, units, is_grads_batched=True)
    dense = torch.cat([row.flatten(1) for row in rows], 1)
    return (dense + dense.T) / 2


@lru_cache
def convolutional_spectrum() -> Tensor:
    """Eigenvalues of `convolutional` by the dense Hessian, ascending, float64."""
    return torch.linalg.eigvalsh(dense_hessian(_convolutional(30)))


@torch.no_grad()
def loss_at(task: Task, w: Tensor) -> float:
    """The mean loss of a float64 copy at a flat vector, in evaluation mode."""
    model = copy.deepcopy(task.model).double().eval()
    for p, value in zip(model.parameters(), parts(w.double(), model), strict=True):
        p.copy_(value)
    x, y = task.whole
    targets = y.double() if y.is_floating_point() else y
    return float(task.criterion(model(x.double()), targets))
