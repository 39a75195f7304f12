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


def seconds(kind: str, every: int | None, folder: Path) -> float:
    """Time a training of one layer on 64 samples, recorded or not; leaving the block counts."""
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

    start = time.perf_counter()
    if every is None:
        loop()
    else:
        with tw.record(model, optimizer, run=folder / "run", every=every):
            loop()
    took = time.perf_counter() - start
    shutil.rmtree(folder / "run", ignore_errors=True)
    return took


def measure() -> Iterator[str]:
    """Give a line for each optimizer and interval: the middle of the pairs' excesses, and all."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sgd", "adam"):
            seconds(kind, None, Path(folder))  # warms up
            for every, goal in GOALS.items():
                excess = sorted(
                    100 * (seconds(kind, every, Path(folder)) / seconds(kind, None, Path(folder)) - 1)
                    for _ in range(PAIRS)
                )
                shown = ", ".join(f"{value:+.1f}" for value in excess)
                yield (
                    f"recording 10^7 weights, {kind}, every {every} steps:"
                    f" {excess[PAIRS // 2]:+.1f} % (goal {goal:g} %; pairs: {shown})"
                )


if __name__ == "__main__":
    for line in measure():
        print(line, flush=True)
