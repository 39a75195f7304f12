"""Learning coefficients against closed forms: deep linear networks, normal crossings, bowls."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from thalweg.errors import InvalidArgument
from thalweg.geometry.ladder import _rounding, _without_laggards
from thalweg.geometry.ladder_fit import fit_ladder
from thalweg.geometry.learning_coefficient import learning_coefficient
from thalweg.landscape import DeepLinear, ParameterSpace, Quadratic
from thalweg.sampling import State


class Crossing:
    """``w1^(2 a) w2^(2 b)``: coefficient ``min(1 / 2 a, 1 / 2 b)``, multiplicity 2 where a = b."""

    dtype, device = torch.float64, torch.device("cpu")
    space = ParameterSpace.euclidean(2)

    def __init__(self, a, b):
        self.powers = torch.tensor([2.0 * a, 2.0 * b], dtype=torch.float64)

    def values_and_gradients(self, points):
        factors = points.abs() ** self.powers
        values = factors.prod(1)
        slopes = self.powers * points.abs() ** (self.powers - 1) * points.sign()
        return values, slopes * factors.flip(1)

    def value(self, w):
        return float(self.values_and_gradients(self.space.check(w)[None])[0][0])

    def gradient(self, w, batch=None):
        return self.values_and_gradients(self.space.check(w)[None])[1][0]

    @property
    def singularity(self):
        coefficients = 1 / self.powers
        least = float(coefficients.min())
        return least, int((coefficients == least).sum())


def test_a_deep_linear_network():
    network = DeepLinear((4, 4, 4), 2)
    answer = learning_coefficient(network, network.minimum)
    assert answer.status == "converged" and answer.sampler == "blocks"
    assert answer.value == pytest.approx(7.5, rel=0.02)
    assert answer.low < 7.5 < answer.high
    assert answer.multiplicity == 1
    assert all(abs(rung.virial - 1) < 0.05 for rung in answer.rungs)
    assert json.loads(json.dumps(answer.to_dict()))["value"] == answer.value


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_deep_linear_networks(seed):
    network = DeepLinear.random(seed)
    answer = learning_coefficient(network, network.minimum)
    assert answer.value == pytest.approx(network.singularity.coefficient, rel=0.05)


CROSSINGS = [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), CROSSINGS)
def test_a_normal_crossing(a, b):
    crossing = Crossing(a, b)
    answer = learning_coefficient(crossing, torch.zeros(2, dtype=torch.float64))
    coefficient, multiplicity = crossing.singularity
    assert answer.sampler == "slices" and answer.status == "converged"
    assert answer.value == pytest.approx(coefficient, rel=0.02)
    # The interval is one of 95 %: a fifth more on each side is nearly never missed.
    margin = 0.2 * (answer.high - answer.low)
    assert answer.low - margin < coefficient < answer.high + margin
    assert answer.probabilities[multiplicity - 1] > 0.05


def exact_mean(crossing, beta, localization):
    """``beta E[L]`` of a crossing by quadrature over logarithms."""
    x = np.logspace(-22, 1, 700)
    weight = x * np.exp(-(x**2) / 2)
    first, second = ((x / math.sqrt(localization)) ** float(p) for p in crossing.powers)
    energy = beta * first[:, None] * second
    density = np.exp(-energy) * weight[:, None] * weight
    return float((energy * density).sum() / density.sum())


def exact_ladder(a, b):
    """Rungs of two climbs, and their means to two thousandths."""
    rungs = [(10.0**k, g) for g in (1.0, 0.1) for k in range(6, 31, 3)]
    betas, localizations = np.array(rungs).T
    means = np.array([exact_mean(Crossing(a, b), *rung) for rung in rungs])
    noise = np.random.default_rng(a + 10 * b).standard_normal(len(means))
    return betas, localizations, means * (1 + 0.002 * noise), np.diag((0.002 * means) ** 2)


@pytest.mark.parametrize(("a", "b"), CROSSINGS)
def test_the_fit_knows_poles_that_are_near(a, b):
    coefficient, multiplicity = Crossing(a, b).singularity
    fit = fit_ladder(*exact_ladder(a, b), power_share=0.1, most=2, near_poles=True)
    assert fit.value == pytest.approx(coefficient, rel=0.01)
    assert fit.low < coefficient < fit.high
    assert fit.multiplicity == multiplicity


def test_without_near_poles_the_fit_takes_one_for_a_multiplicity():
    # The control: 1/6 with the next pole at 1/4.
    fit = fit_ladder(*exact_ladder(2, 3), power_share=0.1, most=2)
    assert abs(6 * fit.value - 1) > 0.01 and not fit.low < 1 / 6 < fit.high


def test_the_rounding_of_a_loss_is_that_of_its_value_and_of_the_weights():
    digit, zeros = 2.0**-52, torch.zeros(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    lifted = Crossing(1, 1)
    plain = lifted.values_and_gradients
    lifted.values_and_gradients = lambda points: (3 + plain(points)[0], plain(points)[1])
    assert _rounding(Crossing(1, 1), zeros, generator) == 0
    assert _rounding(lifted, zeros, generator) == 3 * digit
    bowl = Quadratic(torch.ones(2).double(), centre=zeros + 1)
    assert 0.1 * digit**2 < _rounding(bowl, bowl.centre, generator) < 20 * digit**2


class Plain:
    """A deep linear network that shows neither its blocks nor what it is."""

    def __init__(self, network):
        self.space, self.dtype, self.device = network.space, network.dtype, network.device
        self.value, self.gradient = network.value, network.gradient
        self.values_and_gradients, self.hessian = network.values_and_gradients, network.hessian


@pytest.mark.slow
def test_trajectories_find_what_blocks_do():
    network = DeepLinear((10, 5, 3), 1)
    answer = learning_coefficient(Plain(network), network.minimum, budget=20_000)
    assert answer.sampler == "hmc" and answer.value == pytest.approx(10, rel=0.06)
    assert answer.low < 10 < answer.high
    assert abs(answer.rungs[0].gap) < 0.1 * answer.rungs[0].value


@pytest.mark.slow
def test_a_ladder_that_still_rises_is_refused():
    # 12 is the truth; these gradients reach temperatures at which the estimate is about 9.
    network = DeepLinear((6, 4, 5, 4, 6), 2)
    answer = learning_coefficient(Plain(network), network.minimum, budget=2000)
    assert answer.status == "refused" and "budget" in answer.reasons[0]


def test_a_trough_counts_its_stiff_directions():
    trough = Quadratic(torch.tensor([0.0] * 4 + [1.0, 10.0, 100.0], dtype=torch.float64))
    answer = learning_coefficient(trough, trough.centre, budget=8000)
    assert answer.sampler == "hmc"
    assert answer.value == pytest.approx(1.5, rel=0.06)
    assert answer.low < 1.5 < answer.high


def test_a_climb_far_from_its_end_is_the_last():
    # 3 is the truth; these gradients reach temperatures at which the estimate is about 2.
    curvatures = [0.0] * 4 + [1e-2, 1e-1] + [1.0] * 4
    bowl = Quadratic(torch.tensor(curvatures, dtype=torch.float64))
    answer = learning_coefficient(bowl, bowl.centre, budget=1000)
    assert answer.status == "refused" and "ten times the budget" in answer.reasons[0]
    assert len({rung.localization for rung in answer.rungs}) == 1
    # Of both climbs, from both sides each, a quarter.
    assert answer.gradients < 0.3 * 1000 * 2 * len(answer.rungs[0].chain_means)


def test_no_minimum_is_refused():
    saddle = Quadratic(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    answer = learning_coefficient(saddle, saddle.centre, budget=1000, chains=8)
    assert answer.status == "refused" and answer.value is None
    assert "no minimum" in answer.reasons[0]


@pytest.mark.slow
def test_too_few_gradients_are_refused():
    # Trajectories of four steps in a narrow valley: the virial says that they get nowhere.
    rosenbrock = Valley()
    w = torch.ones(2, dtype=torch.float64)
    answer = learning_coefficient(rosenbrock, w, budget=1000, localization=1e-4, chains=4)
    assert answer.status == "refused"
    assert "budget" in answer.reasons[0]


class Valley(Crossing):
    """Rosenbrock's: a curved valley, a thousand times narrower than long."""

    def __init__(self):
        super().__init__(1, 1)

    def values_and_gradients(self, points):
        x, y = points[:, 0], points[:, 1]
        bend = y - x**2
        slopes = torch.stack([-4e6 * bend * x - 2 * (1 - x), 2e6 * bend], 1)
        return 1e6 * bend**2 + (1 - x) ** 2, slopes


@pytest.mark.parametrize(
    "options", [{"budget": 10}, {"chains": 1}, {"localization": 0.0}, {"localization": math.inf}]
)
def test_options_that_cannot_be_used(options):
    bowl = Quadratic(torch.ones(3, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match="give"):
        learning_coefficient(bowl, bowl.centre, **options)


def test_a_point_without_a_loss_is_refused():
    bowl = Quadratic(torch.ones(3, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match="the loss at w is nan"):
        learning_coefficient(bowl, bowl.centre * math.nan)


def test_laggards_start_from_others_even_where_these_are_fewer():
    energy = torch.tensor([1.0, math.nan, 1.1, 1e9, math.inf, 1.05], dtype=torch.float64)
    state = State(energy[:, None], energy, energy[:, None], energy)
    moved = _without_laggards(state).potential
    assert moved.isfinite().all() and set(moved.tolist()) == {1.0, 1.1, 1.05}
    lost = State(*(torch.full_like(tensor, math.nan) for tensor in state[:4]))
    assert _without_laggards(lost).potential.isnan().all()


@pytest.mark.parametrize(("coefficient", "multiplicity"), [(2.0, 1), (2.0, 2), (5.0, 3)])
def test_the_fit_finds_what_made_its_rungs(coefficient, multiplicity):
    betas = np.logspace(3, 12, 19)
    generator = np.random.default_rng(0)
    errors = np.full(19, 5e-4)
    means = coefficient - (multiplicity - 1) / (np.log(betas) - 2) - 0.1 * (betas / 1e3) ** -0.5
    means += errors * generator.standard_normal(19)
    answer = fit_ladder(betas, np.ones(19), means, np.diag(errors**2))
    assert answer.value == pytest.approx(coefficient, rel=0.01)
    assert answer.low < coefficient < answer.high
    assert answer.multiplicity == multiplicity


def test_the_interval_holds_what_chains_have_in_common():
    betas, means = np.logspace(3, 7, 5), np.full(5, 3.0)
    alone = fit_ladder(betas, np.ones(5), means, np.eye(5) * 1e-4)
    together = fit_ladder(betas, np.ones(5), means, np.eye(5) * 1e-4 + 0.01)
    assert together.high - together.low > 3 * (alone.high - alone.low) / 2
