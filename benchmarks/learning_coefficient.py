"""Learning coefficients of known answer: ours, plain SGLD, and devinterp's formula.

All by gradients alone (the exact blocks of deep linear networks are hidden), at equal gradients.
SGLD has step sizes a decade and a half around a usual choice, each shown: which one to believe its
user cannot tell. ``devinterp``'s formula averages the whole run, the way to the density included,
and its beta is ``n / log n``. Exits with 1 if ours answers and is off by more than 5 %.

    python benchmarks/learning_coefficient.py [--budget 20000] [CASE ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import math

import torch
from torch import Tensor

import thalweg as tw
from thalweg.landscape import DeepLinear
from thalweg.sampling import Langevin, Posterior

torch.set_num_threads(1)

CASES = {
    "4-4-4, rank 2": ((4, 4, 4), 2),
    "10-5-3, rank 1": ((10, 5, 3), 1),
    "13-5-5, rank 2": ((13, 5, 5), 2),
    "11-7-6-5, rank 2": ((11, 7, 6, 5), 2),
}
_SAMPLES = 10_000  # n of the formula: beta = n / log n
_CHAINS = 16
_STEPS = (0.03, 0.3, 1.0)  # of 1 / the largest curvature of beta L: stable below 2


class Plain:
    """A deep linear network that shows neither its blocks nor what it is."""

    def __init__(self, network: DeepLinear) -> None:
        self.space, self.dtype, self.device = network.space, network.dtype, network.device
        self.value, self.gradient = network.value, network.gradient
        self.value_and_gradient = network.value_and_gradient
        self.values_and_gradients, self.hessian = network.values_and_gradients, network.hessian


def sgld(network: DeepLinear, share: float, steps: int) -> Tensor:
    """Give ``beta (L - L0)`` of chains that start at the minimum, shape (steps, k)."""
    beta = _SAMPLES / math.log(_SAMPLES)
    posterior = Posterior(network, network.minimum, beta=beta, localization=1.0)
    stiffest = float(torch.linalg.eigvalsh(network.hessian(network.minimum).matrix)[-1])
    kernel = Langevin(posterior, step_size=share / (beta * stiffest))
    generator = torch.Generator().manual_seed(0)
    state, rows = kernel.init(network.minimum.repeat(_CHAINS, 1)), []
    for _ in range(steps):
        state, _ = kernel.step(state, generator)
        rows.append(beta * state.rise)
    return torch.stack(rows)


def measure(name: str, budget: int) -> bool:
    """Print one case; say whether ours holds."""
    network = DeepLinear(*CASES[name])
    truth = network.singularity.coefficient
    start = time.process_time()
    ours = tw.learning_coefficient(Plain(network), network.minimum, budget=budget)
    seconds = time.process_time() - start
    steps = ours.gradients // _CHAINS
    print(f"\n{name}: {network.space.size} weights, truth {truth}, {ours.gradients:,} gradients")
    if ours.value is None:
        print(f"  ours                     refused: {ours.reasons[0]}")
    else:
        error = abs(ours.value / truth - 1)
        print(
            f"  ours                     {ours.value:8.3f} ({ours.low:.3f} to {ours.high:.3f})"
            f"  error {100 * error:5.1f} %  {seconds:.0f} s"
        )
    for share in _STEPS:
        energies = sgld(network, share, steps)
        for words, kept in (("SGLD", energies[steps // 2 :]), ("devinterp's mean", energies)):
            value = float(kept.mean())
            wrong = abs(value / truth - 1)
            ratio = "" if ours.value is None else f"  {wrong / max(error, 1e-9):.1f} times ours"
            print(f"  {words:16} {share:<7} {value:8.3f}  error {100 * wrong:5.1f} %{ratio}")
    return ours.value is None or error <= 0.05


def main() -> int:
    """Measure the cases; return 1 if ours is off by more than 5 % where it answers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=int, default=20_000, help="gradients of each chain")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    given = parser.parse_args()
    return 1 - all([measure(name, given.budget) for name in given.cases or CASES])


if __name__ == "__main__":
    sys.exit(main())
