"""Cost of an exact surface by default settings: CPU time a point and memory, beside plain loops.

What a loop costs depends on who writes it. Two are measured, in float32 on one thread:

- P, as people write it: batches of 250, in a process that does nothing else. A third of it may go
  into mapping memory anew for every batch.
- B, the best by hand: the fastest of several batch sizes and both layouts, images laid out
  beforehand, in the process of the surface, where large allocations have become cheap. What it
  saves over P, any loop could save.

A cell of the surface gives loss and error in one pass and is compared with P; a value, the loss
alone like the loops, with both. All take turns, so that a busy machine slows them alike; CPU time;
median of the ratios, with the first and last tenth. Memory is the peak of the surface's process
above what is resident once libraries, network and data are there: the images in the layout that the
network takes (25 MB), the self-check, and activations. Exits with 1 if a limit is passed.

    python benchmarks/surface.py [--rounds 21] [--samples 2000]
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import psutil
import torch
import xarray as xr
from _networks import WIDTHS, convolutions, images
from torch import Tensor, nn

from thalweg.geometry.surface import surface
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

CELL_LIMIT = 0.90
VALUE_LIMIT = 1.05
MEMORY_LIMIT = 150.0
BATCHES = (50, 100, 250, 500)
POINTS = (3, 7)
CELLS = POINTS[0] * POINTS[1]


@torch.no_grad()
def plain_pass(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int = 250) -> float:
    """The mean loss, by a loop as people write it."""
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
        self.model, self.pair = convolutions(*WIDTHS), images(samples)
        xr.Dataset({"a": ("x", [0.0])})  # loads libraries of 26 MB on its first call
        self.before = psutil.Process().memory_info().rss

    def plain(self) -> float:
        """CPU time of one pass of the plain loop."""
        return seconds(lambda: plain_pass(self.model, *self.pair))

    @cached_property
    def risk(self) -> EmpiricalRisk:
        """By default settings, checked to be the function that the loops evaluate."""
        risk = EmpiricalRisk(Problem(self.model, nn.CrossEntropyLoss(), self.pair))
        # Small batches, which leave the allocator as it is.
        plain = plain_pass(self.model, *self.pair, batch=50)
        error = abs(risk.value(risk.space.pack(self.model)) - plain)
        assert error < 1e-4, f"the surface evaluates another function: off by {error}"
        return risk

    @cached_property
    def w(self) -> Tensor:
        return self.risk.space.pack(self.model)

    def surface(self, seed: int) -> float:
        """CPU time of a cell, everything included that a round of cells takes."""
        return seconds(lambda: surface(self.risk, self.w, points=POINTS, seed=seed)) / CELLS

    def turns(self) -> dict[str, float]:
        """CPU time of a value and of each loop by hand, one after another."""
        value = {"value": seconds(lambda: self.risk.value(self.w))}
        return value | {name: seconds(loop) for name, loop in self.loops.items()}

    @cached_property
    def loops(self) -> dict[str, Callable[[], float]]:
        """Loops by hand, each with its own copies laid out as it wants them."""
        loops: dict[str, Callable[[], float]] = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            model = copy.deepcopy(self.model).to(memory_format=layout)
            inputs = self.pair[0].contiguous(memory_format=layout)
            for batch in BATCHES:
                loop = partial(plain_pass, model, inputs, self.pair[1], batch)
                loop()
                loops[f"batches of {batch}, {str(layout).removeprefix('torch.')}"] = loop
        return loops

    def peak(self) -> float:
        """Megabytes above the start."""
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return (highest - self.before) / 1e6


_bench: list[Bench] = []


def begin(samples: int) -> None:
    _bench.append(Bench(samples))


def call(method: str, *arguments: int) -> Any:
    return getattr(_bench[0], method)(*arguments)


def batch_size() -> int:
    return _bench[0].risk.batch_size


def tenths(ratios: list[float]) -> str:
    low, middle, high = (sorted(ratios)[round(q * (len(ratios) - 1))] for q in (0.1, 0.5, 0.9))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def best_of(turns: list[dict[str, float]]) -> str:
    """Name of the loop by hand with the least median."""
    names = [name for name in turns[0] if name != "value"]
    return min(names, key=lambda name: statistics.median(turn[name] for turn in turns))


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    arguments = {"initializer": begin, "initargs": (options.samples,)}
    with context.Pool(1, **arguments) as plain, context.Pool(1, **arguments) as ours:
        ours.apply(call, ("surface", 0))
        megabytes, size = ours.apply(call, ("peak",)), ours.apply(batch_size)
        cells, units, turns = [], [], []
        for seed in range(1, options.rounds + 1):
            cells.append(ours.apply(call, ("surface", seed)))
            units.append(plain.apply(call, ("plain",)))
            turns.append(ours.apply(call, ("turns",)))
    print(f"{options.rounds} rounds, {options.samples} images, batches of {size}")
    return report(cells, units, turns, megabytes)


def report(
    cells: list[float], units: list[float], turns: list[dict[str, float]], megabytes: float
) -> int:
    """Print ratios; 1 if a limit is passed."""
    name = best_of(turns)
    values, best = ([turn[key] for turn in turns] for key in ("value", name))
    compared = {
        "a cell, loss and error": (cells, units, "P"),
        "a value": (values, units, "P"),
        "the best loop by hand": (best, units, "P"),
        "a value beside the best loop": (values, best, "B"),
    }
    ratios = {
        what: [a / b for a, b in zip(ours, theirs, strict=True)]
        for what, (ours, theirs, _) in compared.items()
    }
    for what, (_, _, unit) in compared.items():
        print(f"{what}: {tenths(ratios[what])} {unit}")
    print(f"P: batches of 250, in a process of its own. B: {name}, in the process of the surface")
    print(f"peak memory above the start: {megabytes:.0f} MB")
    print(f"limits: {CELL_LIMIT} P a cell, {VALUE_LIMIT} B a value, {MEMORY_LIMIT:.0f} MB")
    cell, _, _, value = map(statistics.median, ratios.values())
    return int(cell > CELL_LIMIT or value > VALUE_LIMIT or megabytes > MEMORY_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
