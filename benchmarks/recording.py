"""What recording adds to a training of 10^7 weights, beside the plain loop, in pairs."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import thalweg as tw

SIDE = 3162  # a layer of 10^7 weights
STEPS, PAIRS = 200, 5
# The goals, in percent of the plain loop.
GOALS = {10: 5.0, 100: 1.0}


def seconds(kind: str, every: int | None, folder: Path) -> tuple[float, float]:
    """
    Time a training of one layer on 64 samples, recorded or not; leaving the block counts.

    Gives seconds of the wall clock, and of the training's own thread: what is written elsewhere
    costs the first only where processors are scarce.
    """
    torch.manual_seed(0)
    x = torch.randn(64, SIDE)
    model = nn.Linear(SIDE, SIDE)
    make = torch.optim.Adam if kind == "adam" else torch.optim.SGD
    optimizer = make(model.parameters(), lr=1e-3)

    def loop() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()

    start, own = time.perf_counter(), time.thread_time()
    if every is None:
        loop()
    else:
        with tw.record(model, optimizer, run=folder / "run", every=every):
            loop()
    took = time.perf_counter() - start, time.thread_time() - own
    shutil.rmtree(folder / "run", ignore_errors=True)
    return took


def measure() -> Iterator[str]:
    """Give a line for each optimizer and interval: the middle of the pairs' excesses, and all."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("sgd", "adam"):
            seconds(kind, None, folder)  # warms up
            for every, goal in GOALS.items():
                pairs = [(seconds(kind, every, folder), seconds(kind, None, folder))
                         for _ in range(PAIRS)]  # fmt: skip
                wall, own = (
                    sorted(100 * (recorded[i] / plain[i] - 1) for recorded, plain in pairs)
                    for i in range(2)
                )
                shown = ", ".join(f"{value:+.1f}" for value in wall)
                yield (
                    f"recording 10^7 weights, {kind}, every {every} steps:"
                    f" {wall[PAIRS // 2]:+.1f} %"
                    f" of the time (goal {goal:g} %; pairs: {shown}), {own[PAIRS // 2]:+.1f} % of"
                    " the training thread's"
                )


if __name__ == "__main__":
    for line in measure():
        print(line, flush=True)
