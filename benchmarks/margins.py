"""Boxes of weights with zero error on 1,400 digits: proved, attacked, and how training widens them.

CPU time of this process on one thread. Exits with 1 if a box is narrower than its limit, the widths
that a prototype of this method had reached.

    python benchmarks/margins.py [CASE ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn

import thalweg as tw
from thalweg.problems.networks import MLP, AllConv

torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """A network, how it is trained, and the half-width that has to be proved."""

    make: Callable[[], nn.Module]
    limit: float
    epochs: int = 60
    batch_size: int = 20


CASES = {
    "mlp-64": Case(lambda: MLP(64, (64,), 10), 1.5e-3),
    "mlp-64-short": Case(lambda: MLP(64, (64,), 10), 0.0, epochs=20),
    "mlp-64-batches": Case(lambda: MLP(64, (64,), 10), 0.0, batch_size=100),
    "mlp-512": Case(lambda: MLP(64, (512,), 10), 1.8e-3),
    "mlp-64x2": Case(lambda: MLP(64, (64, 64), 10), 6e-4),
    "cnn": Case(lambda: AllConv((1, 8, 8), widths=(16, 32), batchnorm=False), 1.4e-4),
}


def measure(name: str, case: Case) -> bool:
    """Train a network, prove and attack a box around it; say whether it is wide enough."""
    x, y = tw.load_problem("digits", train_size=1400).train
    model = case.make()
    x = x if isinstance(model, AllConv) else x.flatten(1)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y)))
    options = {"lr": 0.05, "momentum": 0.9, "epochs": case.epochs, "batch_size": case.batch_size}
    start = time.process_time()
    w = tw.train(risk, risk.space.pack(risk.problem.model), **options).w
    trained = time.process_time() - start
    found = tw.certify_margin(risk, w)
    relative = tw.certify_margin(risk, w, scale="layer", attack=False)
    print(
        f"{name:<15} W {len(w):>6}  {case.epochs} epochs of batches of {case.batch_size:<3}"
        f"  loss {risk.value(w):.1e}  margin {found.margin:.2f}  proved {found.half_width:.2e}"
        f" (of a layer's scale {relative.half_width:.2e})"
        f"  attacked {found.attacked:.2e}, {found.ratio:.2f} times"
        f"  train {trained:.1f} s, prove {time.process_time() - start - trained:.1f} s",
        flush=True,
    )
    return found.half_width >= case.limit


def main() -> int:
    """Measure the named cases, by default all; return whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}")
    return int(not all([measure(n, CASES[n]) for n in parser.parse_args().case or CASES]))


if __name__ == "__main__":
    sys.exit(main())
