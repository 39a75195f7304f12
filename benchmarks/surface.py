"""Cost of an exact surface by default settings: CPU time a point and memory, beside plain passes.

The unit P is one pass of plain forward evaluation over the data in batches of 250, in float32 on
one thread. Plain passes and cells of the surface take turns, so that a busy machine slows them
alike; CPU time; median of the ratios, with the first and last tenth. P depends on the state of the
allocator, so it is measured twice: in a process that does nothing else, as its user would, and in
the process of the surface, where trying batch sizes has made large allocations cheap. Memory is
the peak of the surface's process above what is resident once libraries, network and data are
there. A cell gives loss and error in one pass; P the loss alone. Exits with 1 if a limit is passed
against P in its own process.

    python benchmarks/surface.py [--rounds 21] [--samples 2000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import cached_property

import psutil
import torch
import xarray as xr
from torch import Tensor, nn

from thalweg.geometry.surface import surface
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

COST_LIMIT = 0.90
MEMORY_LIMIT = 50.0
WIDTHS = (32, 64, 64, 128)
POINTS = (3, 7)
CELLS = POINTS[0] * POINTS[1]


def network() -> nn.Sequential:
    """Four 3x3 convolutions of stride 2 and a linear layer: 135,306 weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 4, 10))


def data(samples: int) -> tuple[Tensor, Tensor]:
    """Images of 3x32x32 and classes; costs do not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 3, 32, 32, generator=generator)
    return inputs, torch.randint(10, (samples,), generator=generator)


@torch.no_grad()
def plain_pass(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int = 250) -> float:
    """Unit P: the mean loss."""
    total = 0.0
    for start in range(0, len(inputs), batch):
        outputs = model(inputs[start : start + batch])
        losses = nn.functional.cross_entropy(
            outputs, targets[start : start + batch], reduction="sum"
        )
        total += losses.item()
    return total / len(inputs)


def seconds(work: Callable[[], object]) -> float:
    """CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Bench:
    """Network, data and risk of one worker process."""

    def __init__(self, samples: int) -> None:
        torch.set_num_threads(1)
        self.model, self.pair = network(), data(samples)
        xr.Dataset({"a": ("x", [0.0])})  # loads libraries of 26 MB on its first call
        self.before = psutil.Process().memory_info().rss

    def plain(self) -> float:
        """CPU time of as many plain passes as a round has cells."""
        return seconds(lambda: [plain_pass(self.model, *self.pair) for _ in range(CELLS)])

    @cached_property
    def risk(self) -> EmpiricalRisk:
        """By default settings, checked to be the function that P evaluates."""
        risk = EmpiricalRisk(Problem(self.model, nn.CrossEntropyLoss(), self.pair))
        # Small batches, which leave the allocator as it is.
        plain = plain_pass(self.model, *self.pair, batch=50)
        error = abs(risk.value(risk.space.pack(self.model)) - plain)
        assert error < 1e-4, f"the surface evaluates another function: off by {error}"
        return risk

    def surface(self, seed: int) -> float:
        """CPU time of one round of cells, everything included."""
        w = self.risk.space.pack(self.model)
        return seconds(lambda: surface(self.risk, w, points=POINTS, seed=seed))

    def peak(self) -> float:
        """Megabytes above the start."""
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return (highest - self.before) / 1e6


_bench: list[Bench] = []


def begin(samples: int) -> None:
    _bench.append(Bench(samples))


def call(method: str, *arguments: int) -> float:
    answer: float = getattr(_bench[0], method)(*arguments)
    return answer


def batch_size() -> int:
    return _bench[0].risk.batch_size


def tenths(ratios: list[float]) -> str:
    low, middle, high = (sorted(ratios)[round(q * (len(ratios) - 1))] for q in (0.1, 0.5, 0.9))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    arguments = {"initializer": begin, "initargs": (options.samples,)}
    apart, beside = [], []
    with context.Pool(1, **arguments) as plain, context.Pool(1, **arguments) as ours:
        ours.apply(call, ("surface", 0))
        megabytes = ours.apply(call, ("peak",))
        for seed in range(1, options.rounds + 1):
            cost = ours.apply(call, ("surface", seed))
            apart.append(cost / plain.apply(call, ("plain",)))
            beside.append(cost / ours.apply(call, ("plain",)))
        size = ours.apply(batch_size)
    print(f"{options.rounds} rounds of {CELLS} cells, {options.samples} images, batches of {size}")
    print(f"a point, P in its own process:  {tenths(apart)} P, limit {COST_LIMIT} P")
    print(f"a point, P in the same process: {tenths(beside)} P")
    print(f"peak memory above the start: {megabytes:.0f} MB, limit {MEMORY_LIMIT:.0f} MB")
    return int(statistics.median(apart) > COST_LIMIT or megabytes > MEMORY_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
