"""Hessian products of networks of 10^3 to 10^7 weights, beside those written by hand.

By hand, each in batches of 50 and in the best of several sizes:

- ``double_backward``, the gradient's graph made anew for each product, and ``kept_graph``, made
  once and held for all batches;
- ``forward_over_reverse``, ``torch.func.jvp`` of ``torch.func.grad``.

The floor is what no way can save: the multiplications of convolutional and linear layers alone, by
torch's own kernels, in batches of our size. A layer has six in a product, two forward, two for its
inputs and two for its weights; the first layer has two.

Ours are by default settings, after the first product. All take turns in one process, so that a
busy machine slows them alike; CPU time; medians. Peaks of memory are of processes of their own,
above what is resident before.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import psutil
import torch
from _networks import WIDTHS, convolutions, images, resnet18
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

Multiply = Callable[[], Tensor]

# About how many weights, network, number of images, and rounds of measuring.
SIZES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "1e3": (partial(convolutions, 4, 4, 4, 8), 2000, 7),
    "1e4": (partial(convolutions, 8, 16, 16, 32), 2000, 7),
    "1e5": (partial(convolutions, *WIDTHS), 2000, 7),
    "1e6": (partial(convolutions, 96, 192, 192, 384), 1000, 3),
    "1e7": (resnet18, 100, 3),
}
BATCHES = (25, 50, 100, 250, 1000, 2000)
WAYS = ("double_backward", "kept_graph", "forward_over_reverse")


class Hand:
    """Products written by hand, in batches of one size; batch norm uses its running statistics."""

    def __init__(self, model: nn.Module, pair: tuple[Tensor, Tensor], batch: int) -> None:
        self.model, self.weights = model, list(model.parameters())
        self.batches = list(zip(*(part.split(batch) for part in pair), strict=True))
        self.samples = len(pair[0])
        sizes = [weight.numel() for weight in self.weights]
        self.flat = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(1))
        parts = zip(self.flat.split(sizes), self.weights, strict=True)
        self.v = [part.view(weight.shape) for part, weight in parts]
        self.graphs: list[tuple[Tensor, ...]] = []

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets) * (len(targets) / self.samples)

    def _gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self._loss(self.model(x), y), self.weights, create_graph=True)

    def _sum(self, products: Any) -> Tensor:
        total = torch.zeros_like(self.flat)
        for product in products:
            total += torch.cat([part.reshape(-1) for part in product])
        return total

    def double_backward(self) -> Tensor:
        return self._sum(
            torch.autograd.grad(self._gradient(x, y), self.weights, self.v) for x, y in self.batches
        )

    def kept_graph(self) -> Tensor:
        if not self.graphs:
            self.graphs = [self._gradient(x, y) for x, y in self.batches]
        return self._sum(
            torch.autograd.grad(graph, self.weights, self.v, retain_graph=True)
            for graph in self.graphs
        )

    def forward_over_reverse(self) -> Tensor:
        named = dict(self.model.named_parameters())
        primals = {name: tensor.detach() for name, tensor in named.items()}
        direction = dict(zip(named, self.v, strict=True))

        def product(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            def loss(weights: dict[str, Tensor]) -> Tensor:
                return self._loss(functional_call(self.model, weights, (x,)), y)

            return tuple(jvp(grad(loss), (primals,), (direction,))[1].values())

        return self._sum(product(x, y) for x, y in self.batches)


class Case:
    """One network in one process."""

    def __init__(self, name: str) -> None:
        torch.set_num_threads(1)
        make, samples, self.rounds = SIZES[name]
        self.model, self.pair = make().eval(), images(samples)

    def ours(self) -> Multiply:
        """Our product, after the first."""
        problem = Problem(self.model, nn.CrossEntropyLoss(), self.pair)
        risk = EmpiricalRisk(problem, batchnorm="frozen")
        self.operator = operator = risk.hessian(risk.space.pack(self.model))
        v = Hand(self.model, self.pair, 50).flat
        operator @ v
        return lambda: operator @ v

    def exact(self) -> Tensor:
        """The product by hand in float64, which float32 by hand misses by up to 3e-3."""
        inputs, targets = self.pair
        hand = Hand(copy.deepcopy(self.model).double(), (inputs.double(), targets), 50)
        hand.flat, hand.v = hand.flat.double(), [part.double() for part in hand.v]
        return hand.double_backward()

    def floor(self, batch: int) -> Multiply:
        """The multiplications of a product alone, of one batch again and again."""
        layers = _layers(self.model, self.pair[0][:batch])
        batches = len(self.pair[0]) // batch

        def multiply() -> Tensor:
            for _ in range(batches):
                for number, (layer, inputs) in enumerate(layers):
                    _multiplications(layer, inputs, first=number == 0)
            return self.pair[0]

        return multiply

    def hand(self, way: str, batch: int, images: int | None = None) -> Multiply:
        """One by hand over all images or the first so many, after the first."""
        inputs, targets = self.pair
        multiply: Multiply = getattr(
            Hand(self.model, (inputs[:images], targets[:images]), batch), way
        )
        multiply()
        return multiply


def _layers(model: nn.Module, images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """List the layers that multiply, with what each is given."""
    layers: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, given: layers.append((layer, given[0])))
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return layers


def _multiplications(layer: nn.Module, inputs: Tensor, *, first: bool) -> None:
    leaf, weight = inputs.detach().requires_grad_(not first), layer.get_parameter("weight")
    outputs = layer(leaf)
    if first:
        torch.autograd.grad(outputs, weight, outputs.detach())
        return
    for _ in range(2):
        torch.autograd.grad(outputs, (leaf, weight), outputs.detach(), retain_graph=True)
    with torch.no_grad():
        layer(inputs)


class Result(NamedTuple):
    """What a size gave: CPU seconds of each product and of the floor, and how ours was taken."""

    weights: int
    samples: int
    how: str
    error: float
    first: float
    floor: list[float]
    seconds: dict[str, list[float]]


def measure(name: str) -> Result:
    """Compare products, and time them in turns."""
    case = Case(name)
    best = {way: _best(case, way) for way in WAYS}
    start = time.process_time()
    products = {"ours": case.ours()}
    first = time.process_time() - start
    for way, batch in (*best.items(), *((way, 50) for way in WAYS)):
        key = f"{way}, batches of {batch}"
        if key not in products:
            products[key] = case.hand(way, batch)
    start, stop = case.operator._functions.bounds[0]
    products["floor"] = case.floor(stop - start)
    seconds: dict[str, list[float]] = {key: [] for key in products}
    for _ in range(case.rounds):
        for key, multiply in products.items():
            seconds[key].append(_seconds(multiply))
    exact = case.exact()
    error = float((products["ours"]() - exact).norm() / exact.norm())
    how = f"{case.operator.method} in batches of {stop - start}"
    return Result(len(exact), len(case.pair[0]), how, error, first, seconds.pop("floor"), seconds)


def _best(case: Case, way: str) -> int:
    """Size of batch with the least time an image, by the second product of one batch."""
    times = {}
    for batch in BATCHES:
        if batch <= len(case.pair[0]):
            times[batch] = _seconds(case.hand(way, batch, batch)) / batch
            gc.collect()
    return min(times, key=lambda batch: times[batch])


def _seconds(multiply: Multiply) -> float:
    start = time.process_time()
    multiply()
    return time.process_time() - start


def peak(name: str, way: str, batch: int) -> float:
    """Megabytes that two products take at their peak above network and data."""
    case = Case(name)
    before = psutil.Process().memory_info().rss
    multiply = case.ours() if way == "ours" else case.hand(way, batch)
    multiply()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def report(name: str) -> float:
    """Print a size; give the ratio to the best by hand."""
    context = multiprocessing.get_context("spawn")

    def apart(function: Callable[..., Any], *arguments: Any) -> Any:
        with context.Pool(1) as pool:
            return pool.apply(function, arguments)

    result: Result = apart(measure, name)
    ours = result.seconds.pop("ours")
    print(
        f"{result.weights:,} weights, {result.samples} images: {result.how},"
        f" {1e3 * statistics.median(ours):.1f} ms, the first {result.first / min(ours):.1f} times"
        f" that; {_ratio(ours, result.floor):.2f} of the floor; off by {result.error:.0e};"
        f" peak {apart(peak, name, 'ours', 0):.0f} MB"
    )
    ratios = {}
    for key, seconds in result.seconds.items():
        way, batch = key.split(", batches of ")
        ratios[key] = _ratio(ours, seconds)
        megabytes = apart(peak, name, way, int(batch))
        print(f"  {ratios[key]:.2f} of {key}; peak {megabytes:.0f} MB", flush=True)
    return max(ratios.values())


def _ratio(ours: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))
