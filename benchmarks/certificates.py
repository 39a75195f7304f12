"""Training to zero and certifying it: the sizes and times that certificates have to hold.

CPU time of this process on one thread, and its peak memory. Exits with 1 if a case is refused or a
limit is passed. CIFAR-10 is looked for in THALWEG_TEST_DATA (default: ../shared/data).

    python benchmarks/certificates.py [CASE ...]     # by default those of under a minute
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from sklearn.datasets import load_digits
from torch import nn

import thalweg as tw
from thalweg.problems.networks import MLP, AllConv

torch.set_num_threads(1)
CLASSES = 9  # of ten: the tenth output's targets follow from the others


def digits(samples: int, hidden: int, activation: str) -> tw.Problem:
    """Make the first digits with one-hot targets without their last column."""
    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels[:samples]).float()
    x = (x - x.mean()) / x.std()
    return _problem(MLP(64, (hidden,), CLASSES, activation), x, labels[:samples])


def cifar10(samples: int) -> tw.Problem:
    """Make the first images of CIFAR-10 on a convolutional network of polynomials."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("THALWEG_TEST_DATA", default)) / "cifar10"
    loaded = tw.load_problem(str(folder), train_size=samples, test_size=10, batchnorm=False)
    x, labels = loaded.samples("train").slice(0, samples)
    model = AllConv((3, 32, 32), CLASSES, (16, 24, 32, 32), "poly10", batchnorm=False)
    return _problem(model, x, labels.numpy())


def _problem(model: nn.Module, x: torch.Tensor, labels: object) -> tw.Problem:
    y = nn.functional.one_hot(torch.as_tensor(labels), 10)[:, :CLASSES].float()
    return tw.Problem(model, nn.MSELoss(), (x, y))


@dataclass(frozen=True)
class Case:
    """A problem, how long it is trained, and the limits in seconds."""

    make: Callable[[], tw.Problem]
    equations: int
    train: float
    certify: float
    epochs: int = 40
    strict: bool = False


CASES = {
    "relu": Case(lambda: digits(200, 256, "relu"), 1800, 30, 1),
    "tanh": Case(lambda: digits(200, 256, "tanh"), 1800, 30, 1),
    "strict": Case(lambda: digits(200, 256, "tanh"), 1800, 30, 10, strict=True),
    "convolution": Case(lambda: cifar10(500), 4500, 600, 60, epochs=30),
    "polynomial": Case(lambda: digits(1112, 512, "poly10"), 10008, 240, 60),
    "all": Case(lambda: digits(1797, 512, "poly10"), 16173, 800, 200),
}
SHORT = ("relu", "tanh", "strict")


def measure(name: str, case: Case) -> bool:
    """Train and certify a case; say whether it holds."""
    problem = case.make()
    single = tw.EmpiricalRisk(problem)
    start = time.process_time()
    options = {"optimizer": "adam", "lr": 1e-3, "batch_size": 50, "epochs": case.epochs}
    w = tw.train(single, single.space.pack(problem.model), **options).w
    adam = time.process_time() - start
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)

    def log(row: dict[str, object], step: int) -> None:
        spent = time.process_time() - start
        print(f"    step {step:>2}: loss {row['loss']:.2e}, {spent:.0f} s", flush=True)

    w = tw.train(
        *(risk, w.double()),
        **{"optimizer": "gauss-newton", "steps": 60, "evaluate_every": 1},
        **{"stop_loss": 1e-31, "log": log},
    ).w
    trained = time.process_time() - start
    certificate = tw.certify_zero(risk, w, strict=case.strict)
    certified = time.process_time() - start - trained
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    holds = (
        certificate.verdict == "certified"
        and certificate.equations == case.equations
        and trained <= case.train
        and certified <= case.certify
        and peak < 6
    )
    print(
        f"{name:<12} W {certificate.weights:>6}  M {certificate.equations:>6}"
        f"  train {trained:6.1f} s (Adam {adam:.1f}; limit {case.train:g})"
        f"  certify {certified:6.2f} s (limit {case.certify:g})  peak {peak:.2f} GB"
        f"  {certificate.verdict}{'' if holds else '  FAILED'}"
    )
    shown = ("residual", "singular_value", "lipschitz", "radius", "distance", "nullity")
    print("    " + ", ".join(f"{key} {getattr(certificate, key)}" for key in shown))
    for reason in certificate.reasons:
        print(f"    {reason}")
    return holds


def main() -> int:
    """Measure the named cases; return whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}")
    names = parser.parse_args().case or SHORT
    return int(not all([measure(name, CASES[name]) for name in names]))


if __name__ == "__main__":
    sys.exit(main())
