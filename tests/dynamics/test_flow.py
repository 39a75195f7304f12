"""Gradient flow: closed forms on bowls and degenerate valleys, both solvers, both tolerances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.dynamics import gradient_flow
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.landscape import ParameterSpace
from thalweg.landscape.quadratic import Quadratic
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk

METHODS = ("implicit", "chebyshev")


def normal(size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)


class Quartic:
    """``sum of y^4 / 4`` in the first half of the weights, and flat in the other."""

    def __init__(self, size: int) -> None:
        self.space = ParameterSpace.euclidean(size)
        self.half = size // 2

    def value(self, w: torch.Tensor) -> float:
        return float(w[: self.half].pow(4).sum() / 4)

    def gradient(self, w: torch.Tensor, batch: object = None) -> torch.Tensor:
        return torch.cat([w[: self.half].pow(3), torch.zeros_like(w[self.half :])])


class Sphere:
    """``(|w|^2 - 1)^2 / 4``: the flow is radial, to the unit sphere, of dimension W - 1."""

    def __init__(self, size: int) -> None:
        self.space = ParameterSpace.euclidean(size)

    def value(self, w: torch.Tensor) -> float:
        return float((w @ w - 1) ** 2 / 4)

    def gradient(self, w: torch.Tensor, batch: object = None) -> torch.Tensor:
        return (w @ w - 1) * w


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("time", [0.1, 1.0, 100.0, 1e4])
def test_a_bowl_is_descended_as_the_matrix_exponential_says(method, time):
    eigenvalues = torch.logspace(-4, 1, 40, dtype=torch.float64)
    bowl, offset = Quadratic.of_spectrum(eigenvalues), normal(40)
    flow = gradient_flow(bowl, bowl.centre + offset, time=time, method=method, rtol=1e-4)
    exact = bowl.centre + torch.linalg.matrix_exp(-bowl.curvature * time) @ offset
    moved = float((exact - bowl.centre - offset).norm())
    assert (flow.status, flow.ended, flow.time) == ("converged", "time reached", time)
    assert float((flow.w - exact).norm()) <= 2e-4 * moved
    # What is stated of the looser tolerance covers the error of the tighter one.
    assert flow.difference is not None
    assert float((flow.w - exact).norm()) <= flow.difference * flow.distance


def test_what_memory_held_before_the_solver_took_it_changes_nothing(monkeypatch):
    bowl = Quadratic.of_spectrum(torch.logspace(-4, 1, 40, dtype=torch.float64))
    start, ends = bowl.centre + normal(40), []
    for bits in (0, 0x7FF0_0000_0000_0001):  # zero, and a number whose use is reported: sNaN

        def left_behind(shape, *_, bits=bits, **__):
            return np.full(shape, bits, dtype=np.int64).view(np.float64)

        monkeypatch.setattr(np, "empty", left_behind)
        ends.append(gradient_flow(bowl, start, time=0.1, method="implicit").w)
    assert torch.equal(*ends)


def test_a_trough_keeps_its_flat_part_and_loses_all_else():
    curvature = torch.cat([torch.logspace(-3, 0, 30), torch.zeros(70)]).double()
    trough, offset = Quadratic(curvature), normal(100)
    flow = gradient_flow(trough, trough.centre + offset, stationary=1e-9)
    left = flow.w - trough.centre
    assert (flow.status, flow.ended) == ("converged", "stationary")
    torch.testing.assert_close(left[30:], offset[30:], rtol=0, atol=1e-9)
    assert float(left[:30].norm()) < 1e-5


@pytest.mark.parametrize("time", [1.0, 1e3, 1e6])
def test_a_quartic_valley_is_descended_by_its_power_law(time):
    valley, start = Quartic(20), normal(20)
    flow = gradient_flow(valley, start, time=time, rtol=1e-4, stationary=1e-15)
    exact = start.clone()
    exact[:10] = start[:10] / (1 + 2 * start[:10].square() * time).sqrt()
    assert flow.method == "chebyshev" and flow.status == "converged"
    torch.testing.assert_close(flow.w, exact, rtol=0, atol=2e-4 * flow.distance)


def test_a_curved_valley_is_reached_where_it_is_known():
    start = 3 * normal(400)
    flow = gradient_flow(Sphere(400), start)
    assert flow.status == "converged"
    torch.testing.assert_close(flow.w, start / start.norm(), rtol=0, atol=1e-4)


def test_both_solvers_agree_on_a_network():
    settings = {"network": "mlp", "widths": [2], "activation": "tanh", "target": "onehot"}
    risk = EmpiricalRisk(load_problem("digits", train_size=10, **settings), dtype=torch.float64)
    w0 = risk.space.pack(risk.problem.model).double()
    flows = [gradient_flow(risk, w0, time=3.0, method=method) for method in METHODS]
    assert [flow.status for flow in flows] == ["converged"] * 2
    apart = float((flows[0].w - flows[1].w).norm())
    assert apart <= 1e-3 * flows[0].distance
    assert flows[0].provenance["problem"] == "digits"


def test_what_did_not_come_to_rest_is_said():
    bowl = Quadratic(torch.logspace(-8, 0, 300, dtype=torch.float64))
    flow = gradient_flow(bowl, bowl.centre + 1, max_gradients=200)
    assert (flow.status, flow.ended) == ("not converged", "gradients spent")
    saddle = Quadratic(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert gradient_flow(saddle, saddle.centre + 0.1, max_gradients=500).status == "not converged"


def test_ends_that_differ_between_tolerances_are_not_called_converged():
    """On a ridge rounding decides where to: a loose tolerance goes astray."""
    bowl = Quadratic(torch.logspace(-3, 0, 300, dtype=torch.float64))
    flow = gradient_flow(bowl, bowl.centre + 1, time=30.0, rtol=0.5, agreement=1e-6)
    assert flow.ended == "time reached" and flow.status == "not converged"


def test_it_stops_where_it_is_told_and_at_rest_does_not_move():
    bowl = Quadratic(torch.ones(3, dtype=torch.float64))
    stopped = gradient_flow(
        bowl, bowl.centre + 1, stop=lambda time, value, w: value < 0.1, check=False
    )
    assert stopped.ended == "stopped" and stopped.value < 0.1 and stopped.difference is None
    resting = gradient_flow(bowl, bowl.centre)
    assert (resting.status, resting.ended, resting.distance) == ("converged", "stationary", 0.0)
    assert math.isclose(stopped.history[0]["value"], 1.5)


def test_float32_flows_down_too():
    bowl = Quadratic(torch.logspace(-2, 0, 300))
    flow = gradient_flow(bowl, bowl.centre + 1, stationary=1e-3)
    assert flow.status == "converged" and flow.w.dtype == torch.float32


def test_nonsense_is_refused():
    bowl = Quadratic(torch.ones(2, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match="positive time"):
        gradient_flow(bowl, bowl.centre, time=0.0)
    with pytest.raises(InvalidArgument, match="'implicit' or 'chebyshev'"):
        gradient_flow(bowl, bowl.centre, method="euler")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="write method='chebyshev'"):
        gradient_flow(Sphere(2), bowl.centre, method="implicit")
    with pytest.raises(InvalidWeights, match="NaN"):
        gradient_flow(bowl, bowl.centre * np.nan)
