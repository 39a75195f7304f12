"""Cost of Hessian spectra by default settings: CPU time in units of one plain Hessian product.

The unit H is one Hessian-vector product by double backward over all images in batches of 250, in
float32 on one thread, in a process that does nothing else. Units and spectra take turns, so that a
busy machine slows them alike. Spectra start from nothing: batch size, tracing and the probe for
repeated eigenvalues are included. The five largest eigenvalues are compared with those of 1e-6
tolerance; in the density, nodes beyond the fifth eigenvalue are counted: more than five in a probe
would be ghosts. The network is trained for some epochs before, on CIFAR-10 where a folder of it is
given, else on noisy class patterns. Exits with 1 if a limit or a check fails.

Before that, single products of networks of 10^3 to 10^7 weights, the last a ResNet-18, beside the
best that can be written by hand: see `_products`.

    python benchmarks/spectrum.py [--sizes 1e3 1e4 ...] [--rounds 5] [--epochs 12] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import _products
import torch
from _networks import WIDTHS, convolutions
from torch import Tensor, nn

from thalweg.geometry.density import spectral_density
from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.geometry.trace import trace
from thalweg.problems import Problem, load_problem
from thalweg.risk import EmpiricalRisk

EIGENVALUES_LIMIT = 14.0
PRODUCT_LIMIT = 1.0  # of the best by hand, on a busy machine
DENSITY_LIMIT = 320.0
SAMPLES = 2000


def data(folder: str) -> tuple[Tensor, Tensor]:
    """Images of 3x32x32 and classes."""
    if folder:
        samples = load_problem("cifar10", data=folder).samples("train")
        inputs, targets = samples.slice(0, SAMPLES)
        return inputs.clone(), targets.clone()
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(10, (SAMPLES,), generator=generator)
    coarse = torch.randn(10, 3, 4, 4, generator=generator)
    patterns = nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return 0.3 * patterns[targets] + torch.randn(SAMPLES, 3, 32, 32, generator=generator), targets


def train(model: nn.Module, inputs: Tensor, targets: Tensor, epochs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for chosen in torch.randperm(SAMPLES, generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()


def plain_product(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
    """Unit H."""
    weights = list(model.parameters())
    parts = v.split([weight.numel() for weight in weights])
    direction = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
    total = torch.zeros_like(v)
    for x, y in zip(inputs.split(250), targets.split(250), strict=True):
        loss = nn.functional.cross_entropy(model(x), y) * (len(x) / SAMPLES)
        gradient = torch.autograd.grad(loss, weights, create_graph=True)
        product = torch.autograd.grad(gradient, weights, direction)
        total += torch.cat([part.reshape(-1) for part in product])
    return total


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time, and what the work gave."""
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


class Bench:
    """Network and data of one worker process."""

    def __init__(self, folder: str, state: dict[str, Tensor]) -> None:
        torch.set_num_threads(1)
        self.model, self.pair = convolutions(*WIDTHS), data(folder)
        self.model.load_state_dict(state)
        self.v = torch.randn(135_306, generator=torch.Generator().manual_seed(1))

    def risk(self) -> EmpiricalRisk:
        return EmpiricalRisk(Problem(self.model, nn.CrossEntropyLoss(), self.pair))

    def hessian(self, method: str | None = None) -> Any:
        risk = self.risk()
        return risk.hessian(risk.space.pack(self.model), method=method)  # type: ignore[arg-type]

    def unit(self) -> float:
        return seconds(lambda: plain_product(self.model, *self.pair, self.v))[0]

    def check(self) -> float:
        """Relative difference of our product and the plain one."""
        plain = plain_product(self.model, *self.pair, self.v)
        return float((self.hessian() @ self.v - plain).norm() / plain.norm())

    def product(self, method: str) -> tuple[float, float, float]:
        """CPU time of the first product and of a later one, and the peak of memory in MB."""
        first, op = seconds(lambda: self._first(method))
        later = min(seconds(lambda: op @ self.v)[0] for _ in range(3))
        return first, later, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _first(self, method: str) -> Any:
        op = self.hessian(method)
        op @ self.v
        return op

    def reference(self) -> list[float]:
        values: list[float] = top_eigenvalues(self.hessian(), 6, rtol=1e-6).values.tolist()
        return values

    def eigenvalues(self, seed: int) -> tuple[float, int, list[float], str]:
        cost, found = seconds(lambda: top_eigenvalues(self.hessian(), 5, rtol=1e-3, seed=seed))
        return cost, found.products, found.values.tolist(), found.status

    def density(self, beyond: float) -> tuple[float, int]:
        cost, found = seconds(lambda: spectral_density(self.hessian(), probes=10, steps=50))
        return cost, int((found.node > beyond).sum("step").max())

    def trace(self) -> tuple[float, float, float, int]:
        cost, found = seconds(lambda: trace(self.hessian(), rtol=0.03))
        return cost, found.value, found.error, found.products


_bench: list[Bench] = []


def begin(folder: str, state: dict[str, Tensor]) -> None:
    _bench.append(Bench(folder, state))


def call(method: str, *arguments: Any) -> Any:
    return getattr(_bench[0], method)(*arguments)


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


class Ratio:
    """Divide a cost by the unit, measured before and after it in another process."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def units(self) -> list[float]:
        return [self.plain.apply(call, ("unit",)) for _ in range(3)]

    def __call__(self, work: Callable[[], Any]) -> tuple[float, Any]:
        units = self.units()
        answer = work()
        unit = statistics.median(units + self.units())
        return unit, answer


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--data", default="")
    parser.add_argument("--sizes", nargs="*", default=[*_products.SIZES], help="of single products")
    parser.add_argument("--products-only", action="store_true", help="leave out the spectra")
    options = parser.parse_args()
    slow = [size for size in options.sizes if _products.report(size) > PRODUCT_LIMIT]
    print(f"products over {PRODUCT_LIMIT} of the best by hand: {', '.join(slow) or 'none'}")
    return int(bool(slow)) if options.products_only else spectra(options) or int(bool(slow))


def spectra(options: argparse.Namespace) -> int:
    """Measure spectra; 1 if a limit or a check fails."""
    torch.set_num_threads(1)
    model = convolutions(*WIDTHS)
    train(model, *data(options.data), options.epochs)
    context = multiprocessing.get_context("spawn")
    arguments = {"initializer": begin, "initargs": (options.data, model.state_dict())}
    with context.Pool(1, **arguments) as plain, context.Pool(1, **arguments) as ours:
        return report(Ratio(plain), ours, options.rounds)


def report(ratio: Ratio, ours: Any, rounds: int) -> int:
    difference = ours.apply(call, ("check",))
    print(f"our product and the plain one differ by {difference:.1e} of its norm")
    for method in ("graph", "trace"):
        unit, (first, later, peak) = ratio(lambda m=method: ours.apply(call, ("product", m)))
        print(
            f"{method}: first product {first / unit:.2f} H, later {later / unit:.2f} H,"
            f" peak {peak:.0f} MB so far"
        )
    true = ours.apply(call, ("reference",))
    costs, counts, worst = [], [], 0.0
    for seed in range(rounds):
        unit, found = ratio(lambda s=seed: ours.apply(call, ("eigenvalues", s)))
        cost, products, values, status = found
        assert status == "converged"
        costs.append(cost / unit)
        counts.append(products)
        worst = max([worst, *(abs(v / t - 1) for v, t in zip(values, true, strict=False))])
    print(
        f"five largest eigenvalues: {spread(costs)} H, {min(counts)} to {max(counts)} products,"
        f" limit {EIGENVALUES_LIMIT} H; largest relative error {worst:.1e}"
    )
    unit, (cost, beyond) = ratio(lambda: ours.apply(call, ("density", 0.999 * true[4])))
    density = cost / unit
    print(
        f"density of 10 probes by 50 steps: {density:.0f} H, limit {DENSITY_LIMIT:.0f} H; nodes"
        f" beyond the fifth eigenvalue: {beyond}"
    )
    unit, (cost, value, error, products) = ratio(lambda: ours.apply(call, ("trace",)))
    print(f"trace to 3%: {cost / unit:.0f} H, {products} products, {value:.2f} +- {error:.2f}")
    slow = statistics.median(costs) > EIGENVALUES_LIMIT or density > DENSITY_LIMIT
    return int(slow or worst > 1e-3 or beyond > 5 or difference > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
