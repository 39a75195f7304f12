"""Cost of training and of recording, beside a hand-written PyTorch loop: ratios of CPU time.

Three ways of taking the same steps take turns, block by block, so that a busy machine slows them
alike: a plain loop over the paper's network, batches of 100 and momentum, with running loss and
error; the same loop inside `thalweg.record`, a checkpoint every 100 steps; and `thalweg.train`.
One thread; one process; the median over the blocks of the ratios to the plain block beside it.
Exits with 1 if a limit is passed.

    python benchmarks/training.py [--blocks 7] [--steps 100] [--data ../shared/data/cifar10]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg.dynamics import record, train
from thalweg.problems import Problem, load_problem
from thalweg.problems.networks import AllConv
from thalweg.risk import EmpiricalRisk

TRAIN_LIMIT = 1.3
RECORD_LIMIT = 1.05
BATCH = 100
IMAGES = 10_000


def problem_of(folder: str | None) -> Problem:
    """The paper's network on CIFAR-10, or on noise, which costs the same."""
    if folder is not None:
        return load_problem("cifar10", data=folder, seed=0)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    targets = torch.randint(10, (IMAGES,), generator=generator)
    # The faster order in memory: both sides take their batches from the same tensors.
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return Problem(AllConv(), nn.CrossEntropyLoss(), (inputs, targets))


class PlainLoop:
    """What anybody would write; it goes on from where it is at each call."""

    def __init__(self, problem: Problem) -> None:
        self.inputs, self.targets = problem.samples("train").slice(0, IMAGES)
        self.model = copy.deepcopy(problem.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.order = torch.randperm(IMAGES)

    def take(self, steps: int) -> None:
        total, wrong = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for step in range(steps):
            part = step % (IMAGES // BATCH)
            rows = self.order[part * BATCH : (part + 1) * BATCH]
            inputs, targets = self.inputs[rows], self.targets[rows]
            self.optimizer.zero_grad()
            outputs = self.model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            wrong += (outputs.detach().argmax(1) != targets).sum()


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(problem: Problem, steps: int, blocks: int) -> dict[str, list[float]]:
    """CPU seconds of each block of each way."""
    plain, recorded = PlainLoop(problem), PlainLoop(problem)
    risk = EmpiricalRisk(problem, batch_size=250)
    w = risk.space.pack(problem.model)
    seconds: dict[str, list[float]] = {"plain": [], "record": [], "train": [], "plain again": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        record(recorded.model, recorded.optimizer, run=Path(folder) / "run", every=100),
    ):
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda: plain.take(steps),
            "train": lambda: training_steps(risk, w, steps),
            "record": lambda: recorded.take(steps),
            "plain again": lambda: plain.take(steps),
        }
        for block in range(blocks + 1):
            for name, way in ways.items():
                taken = cpu_seconds(way)
                if block:  # the first warms up
                    seconds[name].append(taken)
    return seconds


def training_steps(risk: EmpiricalRisk, w: Tensor, steps: int) -> None:
    """Train without the full pass at the end, which is no part of a step."""
    train(_Steps(risk), w, lr=0.01, batch_size=BATCH, steps=steps, schedule="constant")


class _Steps:
    """A risk whose full measurement costs nothing."""

    def __init__(self, risk: EmpiricalRisk) -> None:
        self._risk = risk

    def __getattr__(self, name: str) -> object:
        return getattr(self._risk, name)

    def evaluate(self, w: Tensor) -> dict[str, float]:
        return {"loss": 0.0, "error": 0.0}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", help="folder of CIFAR-10; by default random images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(problem_of(options.data), options.steps, options.blocks)
    beside = [(a + b) / 2 for a, b in zip(seconds["plain"], seconds["plain again"], strict=True)]
    step = statistics.median(beside) / options.steps
    print(f"plain loop: {1e3 * step:.1f} ms of CPU a step of {BATCH} images of 3x32x32")
    good = True
    for name, limit in (("train", TRAIN_LIMIT), ("record", RECORD_LIMIT)):
        ratios = sorted(a / b for a, b in zip(seconds[name], beside, strict=True))
        ratio = statistics.median(ratios)
        print(f"{name:6}: {ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), limit {limit}")
        good &= ratio <= limit
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
