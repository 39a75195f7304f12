"""A surface to 1% of its range: what it costs beside an exact one, and whether its errors hold.

The network of benchmarks/surface.py is trained on images of CIFAR-10, and its surface estimated
along random directions of several seeds. All cells of the exact surfaces would take days, so the
truth is computed in random cells of each, all images in each; cells that the estimate evaluated
exactly are among them in proportion. Counted are evaluations of single samples, which is what the
limit is about, and CPU time, as a share of what exact cells take. Exits with 1 if a surface costs
more than a tenth, or if less than 95% of the cells lie within the stated error: within the
tolerance, and within 1.96 standard errors.

    python benchmarks/tolerance.py [--data FOLDER] [--seeds 20] [--checks 40]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor

import thalweg as tw
from thalweg.geometry.allocation import Z

GAIN_LIMIT = 10.0
COVERAGE_LIMIT = 0.95
TOLERANCE = 0.01


@dataclass
class Outcome:
    """One seed: times fewer evaluations, share of CPU time, and errors where the truth is known."""

    gain: float
    cpu: float
    errors: np.ndarray
    stderr: np.ndarray
    tolerance: float

    @property
    def within_tolerance(self) -> float:
        return float(np.mean(self.errors <= self.tolerance))

    @property
    def within_interval(self) -> float:
        # Exactly evaluated cells differ by the rounding of their batches.
        return float(np.mean(self.errors <= Z * self.stderr + 1e-5 * self.tolerance))


def trained(
    data: str, images: int, epochs: int, keep: Path | None
) -> tuple[tw.EmpiricalRisk, Tensor]:
    """Make the risk and its trained weights; train only once where a file is given."""
    problem = tw.load_problem(
        "cifar10", data=data, train_size=images, widths=(32, 64, 64, 128), batchnorm=False
    )
    risk = tw.EmpiricalRisk(problem)
    if keep is not None and keep.exists():
        return risk, risk.space.pack(load_file(keep))
    w = tw.train(risk, risk.space.pack(problem.model), epochs=epochs, lr=0.03, seed=0).w
    if keep is not None:
        save_file({n: t.clone() for n, t in risk.space.unpack(w).items()}, keep)
    return risk, w


def measure(risk: tw.EmpiricalRisk, w: Tensor, points: int, seed: int, checks: int) -> Outcome:
    """Estimate a surface, and compute the truth in some of its cells."""
    directions = tw.random_directions(risk.space, w, 2, seed=seed)
    start = time.process_time()
    found = tw.surface(
        risk, w, directions=directions, points=points, tolerance=TOLERANCE, test=False, seed=seed
    )
    spent = time.process_time() - start
    cells = np.random.default_rng(seed).choice(found.loss.size, checks, replace=False)
    start = time.process_time()
    true = np.array([risk.value(place(found, w, directions, cell)) for cell in cells])
    exact = (time.process_time() - start) / checks * found.loss.size
    return Outcome(
        gain=found.attrs["evaluations_exact"] / found.attrs["evaluations"],
        cpu=spent / exact,
        errors=np.abs(found.loss.values.ravel()[cells] - true),
        stderr=found.loss_stderr.values.ravel()[cells],
        tolerance=TOLERANCE * float(found.loss.max() - found.loss.min()),
    )


def place(found: xr.Dataset, w: Tensor, directions: Tensor, cell: int) -> Tensor:
    """Give the point of a cell."""
    x, y = np.unravel_index(cell, found.loss.shape)
    return w + directions @ torch.tensor([found.x.values[x], found.y.values[y]], dtype=w.dtype)


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="uoft-cs/cifar10", help="hub name or folder of images")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--checks", type=int, default=40, help="cells a seed with known truth")
    parser.add_argument("--weights", type=Path, help="file to keep the trained weights in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    risk, w = trained(options.data, options.images, options.epochs, options.weights)
    print(f"{risk.space.size} weights, {risk.samples} images, loss {risk.value(w):.4f}")
    outcomes = []
    for seed in range(options.seeds):
        one = measure(risk, w, options.points, seed, options.checks)
        outcomes.append(one)
        print(
            f"seed {seed}: {one.gain:.1f} times fewer evaluations, {one.cpu:.3f} of the CPU time;"
            f" of {options.checks} cells within the tolerance {one.within_tolerance:.1%}, within"
            f" 1.96 standard errors {one.within_interval:.1%}",
            flush=True,
        )
    gain = min(one.gain for one in outcomes)
    shares = [
        statistics.fmean(getattr(one, name) for one in outcomes)
        for name in ("within_tolerance", "within_interval")
    ]
    print(f"evaluations: at least {gain:.1f} times fewer, limit {GAIN_LIMIT:.0f}")
    print(f"cells within the tolerance: {shares[0]:.1%}, limit {COVERAGE_LIMIT:.0%}")
    print(f"cells within 1.96 standard errors: {shares[1]:.1%}, limit {COVERAGE_LIMIT:.0%}")
    return int(gain < GAIN_LIMIT or min(shares) < COVERAGE_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
