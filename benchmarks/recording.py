"""What recording adds to a training of 10^7 weights, beside the plain loop, in alternating turns.

Three clocks: the wall's; that of the training's own thread, which a copy of the state costs and
nothing else; and the processor's for the whole process, which holds the writer's checksums and
copies into the page cache, too. The first depends on who else is at work on the machine; where a
processor is free for the writer, it is what the thread's clock says. Beside them, of one run alone
and so without the noise between two: the thread's time within the recorder's calls, over the rest
of it. The floor of the whole is
bytes over bandwidth: a checkpoint of 40 MB (80 or 120 MB with an optimizer's state) is read and
written once to be copied, read once for its checksum, and copied once into the page cache.

    python benchmarks/recording.py [--steps 200] [--pairs 5] [--optimizer sgd] [--every 10]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.dynamics.recorder import Recorder

SIDE = 3162  # a layer of 10^7 weights
# The goals, in percent of the plain loop.
GOALS = {10: 5.0, 100: 1.0}
CLOCKS = {
    "of the time": time.perf_counter,
    "of the training thread's": time.thread_time,
    "of the processor's": time.process_time,
}


class Within:
    """Counts the thread's time within the calls of the recorder: at each step, first and last."""

    CALLS = ("__enter__", "__exit__", "before_step", "after_step")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        for name in self.CALLS:
            patch.setattr(Recorder, name, self._counted(getattr(Recorder, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - start

        return counted


def seconds(kind: str, every: int | None, folder: Path, steps: int) -> tuple[float, ...]:
    """
    Time a training of one layer on 64 samples, recorded or not; leaving the block counts.

    Gives seconds of the three clocks, and those within the recorder.
    """
    torch.manual_seed(0)
    x = torch.randn(64, SIDE)
    model = nn.Linear(SIDE, SIDE)
    make = torch.optim.Adam if kind == "adam" else torch.optim.SGD
    optimizer = make(model.parameters(), lr=1e-3)

    def loop() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()

    with pytest.MonkeyPatch.context() as patch:
        within = Within(patch)
        start = [clock() for clock in CLOCKS.values()]
        if every is None:
            loop()
        else:
            with tw.record(model, optimizer, run=folder / "run", every=every):
                loop()
        took = [clock() - begun for clock, begun in zip(CLOCKS.values(), start, strict=True)]
    shutil.rmtree(folder / "run", ignore_errors=True)
    return (*took, within.seconds)


def measure(options: argparse.Namespace) -> Iterator[str]:
    """Give a line for each optimizer and interval: the middle of the pairs' excesses, and all."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, steps = Path(name), options.steps
        for kind in options.optimizer or ("sgd", "adam"):
            seconds(kind, None, folder, steps // 10)  # warms up
            for every in options.every or GOALS:
                pairs = [
                    (seconds(kind, every, folder, steps), seconds(kind, None, folder, steps))
                    for _ in range(options.pairs)
                ]
                excesses = [
                    sorted(100 * (recorded[i] / plain[i] - 1) for recorded, plain in pairs)
                    for i in range(len(CLOCKS))
                ]
                said = "; ".join(
                    f"{excess[len(excess) // 2]:+.1f} % {what} ({excess[0]:+.1f} to"
                    f" {excess[-1]:+.1f})"
                    for what, excess in zip(CLOCKS, excesses, strict=True)
                )
                thread = list(CLOCKS).index("of the training thread's")
                shares = sorted(100 * run[-1] / (run[thread] - run[-1]) for run, _ in pairs)
                said += (
                    f"; {shares[len(shares) // 2]:.1f} % within the recorder ({shares[0]:.1f} to"
                    f" {shares[-1]:.1f})"
                )
                goal = f"goal {GOALS[every]:g} %" if every in GOALS else "no goal"
                yield f"10^7 weights, {kind}, every {every} of {steps} steps ({goal}): {said}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--optimizer", action="append", choices=["sgd", "adam"])
    parser.add_argument("--every", action="append", type=int)
    for line in measure(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
