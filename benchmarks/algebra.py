"""Times of counting and solving: the figures that the algebra has to hold.

CPU time of this process and of the programs it calls, on one thread; median of the rounds, each
with its own samples. Exits with 1 if a limit is passed or a count is wrong.

    python benchmarks/algebra.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

from thalweg.algebra import bezout, critical_points, find_msolve, network, random_system, solve


def seconds() -> float:
    """CPU time so far, of this process and of the programs it has called."""
    return sum(os.times()[:4])


def degree(widths: tuple[int, ...], samples: int, *, exact: bool) -> Callable[[int], int | None]:
    """Solve for all weights of a network of cubes with zero error."""

    def work(seed: int) -> int | None:
        net = network(widths, (0, 0, 0, 1), bias=True)
        found = solve(random_system(net, samples=samples, seed=seed), seed=seed, exact=exact)
        return found.degree if found.complete == exact else None

    return work


def critical(widths: tuple[int, ...]) -> Callable[[int], int]:
    """Find all critical points of a deep linear network."""

    def work(seed: int) -> int:
        system = random_system(network(widths, (0, 1)), samples=1, seed=seed)
        return len(critical_points(system, seed=seed, exact=False).complex_points)

    return work


# Name, work, its right answer, limit in seconds.
CASES = [
    ("648 solutions, monodromy and trace test", degree((2, 3, 1), 9, exact=False), 648, 2.0),
    ("33 critical points, homotopy", critical((1, 2, 2)), 33, 10.0),
    ("10^40000 in closed form", lambda _: round(bezout({10**4: 10**4}).log10), 40000, 0.1),
]
WITH_MSOLVE = [
    ("270 solutions, complete with msolve", degree((2, 2, 1), 6, exact=True), 270, 5.0),
    ("648 solutions, complete with msolve", degree((2, 3, 1), 9, exact=True), 648, 10.0),
]


def main() -> int:
    """Print a line for each case; return whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cases = CASES + (WITH_MSOLVE if find_msolve() else [])
    failed = False
    for name, work, expected, limit in cases:
        times, wrong = [], 0
        for seed in range(rounds):
            start = seconds()
            wrong += work(seed) != expected
            times.append(seconds() - start)
        median = statistics.median(times)
        bad = wrong > 0 or median > limit
        failed |= bad
        print(
            f"{name:<42} {median:6.2f} s (largest {max(times):.2f}, limit {limit:g});"
            f" wrong counts {wrong} of {rounds}{'  FAILED' if bad else ''}"
        )
    if not find_msolve():
        print("msolve is not installed: its cases are left out")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
