"""Cost of a training step with a polynomial activation against the ReLU's, on the paper's network.

Paired: the steps of all activations take turns, so that a busy machine slows them alike; CPU time
of one thread; median of the ratios. Exits with 1 if a ratio at degree 10 is over the floor's.

    python benchmarks/polynomial_activation.py [--steps 60] [--degrees 2 4 10 16 30]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from thalweg.polynomial import (
    PolynomialActivation,
    excursions,
    fit_polynomial,
    replace_activations,
)

LIMIT = 1.5
RADIUS = 10.0
WIDTHS = (64, 64, 64, 128)
BATCH = 100


def network() -> nn.Sequential:
    """Four 3x3 convolutions of stride 2 with batch norm and a linear layer: 155,274 weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 4, 10))


class Step:
    """One step of SGD with momentum, timed in CPU seconds."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        self.times: list[float] = []

    def __call__(self) -> None:
        start = time.process_time()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()
        self.times.append(time.process_time() - start)


class ComposedClenshaw(nn.Module):
    """The recurrence in autograd operations: what a user would write first."""

    def __init__(self, layer: PolynomialActivation) -> None:
        super().__init__()
        self.numbers, self.radius = layer.coefficients.tolist(), float(layer.radius)

    def forward(self, x: Tensor) -> Tensor:
        scaled = x / self.radius
        last = before = torch.zeros_like(x)
        for number in self.numbers[:0:-1]:
            last, before = 2 * scaled * last - before + number, last
        return scaled * last - before + self.numbers[0]


def candidates(degrees: list[int]) -> dict[str, nn.Module]:
    """ReLU, no activation (the floor), polynomials of each degree, and a naive one."""
    relu = network()
    models: dict[str, nn.Module] = {"ReLU": relu, "no activation": network()}
    for i, layer in enumerate(models["no activation"]):
        if isinstance(layer, nn.ReLU):
            models["no activation"][i] = nn.Identity()
    for degree in degrees:
        models[f"degree {degree}"] = replace_activations(relu, degree, radius=RADIUS)
    # Neither part of this one is linear or constant: the most work a degree can ask for.
    lopsided = fit_polynomial(lambda x: torch.relu(x - 1.0), 10, radius=RADIUS)
    models["degree 10, no symmetry"] = network()
    models["degree 10, composed Clenshaw"] = network()
    for i, layer in enumerate(relu):
        if isinstance(layer, nn.ReLU):
            models["degree 10, no symmetry"][i] = PolynomialActivation(lopsided)
            naive = PolynomialActivation(fit_polynomial(torch.relu, 10, radius=RADIUS))
            models["degree 10, composed Clenshaw"][i] = ComposedClenshaw(naive)
    return models


def main() -> int:
    """Measure, print a table, and say whether degree 10 is within the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--degrees", type=int, nargs="*", default=[2, 4, 10, 16, 30])
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, 3, 32, 32, generator=generator)
    targets = torch.randint(10, (BATCH,), generator=generator)
    models = candidates(sorted({*options.degrees, 10}))
    steps = {name: Step(model, inputs, targets) for name, model in models.items()}
    for _ in range(options.steps):
        for step in steps.values():
            step()
    warm = options.steps // 10
    relu = steps["ReLU"].times[warm:]
    print(f"{'activation':30} {'ms a step':>10} {'x ReLU':>8}   (median of {len(relu)} pairs)")
    ratios = {}
    for name, step in steps.items():
        times = step.times[warm:]
        ratios[name] = statistics.median(a / b for a, b in zip(times, relu, strict=True))
        print(f"{name:30} {1e3 * statistics.median(times):10.2f} {ratios[name]:8.3f}")
    assert all(seen.seen for seen in excursions(models["degree 10"]).values()), "not recorded"
    worst = max(ratios["degree 10"], ratios["degree 10, no symmetry"])
    print(f"degree 10 costs {worst:.2f} times the ReLU's step at most; the limit is {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
