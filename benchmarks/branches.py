"""Branches at once: copies trained as one batch of models against one after another.

Both are `thalweg.branch`, with and without ``together``, in float32 on one thread, on the same
random samples in batches of 100; they turn about, so that a busy machine slows them alike; CPU
time; median of the ratios with the first and last tenth. Below 1 a batch of models pays. Exits
with 1 if the two disagree on where training leads.

    python benchmarks/branches.py [--rounds 9] [--copies 8]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

import thalweg as tw
from thalweg.problems.networks import MLP, AllConv

BATCH = 100


class Case(NamedTuple):
    """A network, the shape of its inputs, and how many steps one training takes."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    steps: int


CASES = {
    "MLP 10-8-8-10": Case(lambda: MLP(10, (8, 8), 10), (10,), 100),
    "MLP 64-32-10": Case(lambda: MLP(64, (32,), 10), (64,), 100),
    "MLP 64-64-64-10": Case(lambda: MLP(64, (64, 64), 10), (64,), 100),
    "AllConv of the demo": Case(lambda: AllConv((1, 8, 8), widths=(32, 64, 64)), (1, 8, 8), 10),
    "AllConv of the paper": Case(AllConv, (3, 32, 32), 3),
}


def branches(case: Case, copies: int) -> Callable[[bool], torch.Tensor]:
    """Give the trainings of all copies, at once or in turn, as a function that tells their ends."""
    torch.manual_seed(0)
    x = torch.randn(3 * BATCH, *case.shape)
    y = torch.randint(10, (len(x),))
    problem = tw.Problem(case.make(), nn.CrossEntropyLoss(), (x, y))
    # No pass over all samples is made but the one at the end of each training.
    risk = tw.EmpiricalRisk(problem, batch_size=BATCH)
    options = {"batch_size": BATCH, "lr": 0.01}
    start = tw.train(risk, risk.space.pack(problem.model), steps=1, **options)

    def trained(together: bool) -> torch.Tensor:
        tree = tw.branch(
            risk,
            start,
            at=["final"],
            copies=copies,
            together=together,
            steps=case.steps,
            **options,
        )
        return torch.stack([branch.result.w for branch in tree])

    return trained


def seconds(work: Callable[[], object]) -> float:
    """CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> int:
    """Measure, print, and say whether both ways agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--copies", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    agree = True
    for name, case in CASES.items():
        trained = branches(case, options.copies)
        at_once, in_turn = trained(True), trained(False)
        agree &= torch.allclose(at_once, in_turn, rtol=1e-2, atol=1e-3)
        ratios = sorted(
            seconds(lambda: trained(True)) / seconds(lambda: trained(False))  # noqa: B023
            for _ in range(options.rounds)
        )
        low, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.1, 0.9))
        print(
            f"{name:<22} {at_once.shape[1]:>8,} weights: {options.copies} models at once cost"
            f" {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) of one after another",
            flush=True,
        )
    if not agree:
        print("the two ways end at different weights")
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
