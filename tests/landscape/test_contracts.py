"""The contract suite against the empirical risk, quadratics, and a class as a user writes one."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from thalweg.landscape import ParameterSpace, Quadratic
from thalweg.landscape.testing import (
    BatchedContract,
    CurvedContract,
    DrawableContract,
    LandscapeContract,
    LeastSquaresContract,
    ParallelContract,
    RemakeableContract,
    SampledContract,
    ScoredContract,
    StatefulContract,
    SteppedContract,
    TrainableContract,
)
from thalweg.problems import Problem, load_problem
from thalweg.risk import EmpiricalRisk


class Frequencies:
    """How well sines of given frequencies fit samples: a landscape as a user writes one."""

    space = ParameterSpace.euclidean(3)

    def __init__(self, samples=7):
        self.samples = samples
        self.x = torch.linspace(0, 2, samples, dtype=torch.float64)
        self.y = torch.cos(3 * self.x)

    def residuals(self, w):
        w = self.space.check(w).double()
        return w[0] * torch.sin(w[1] * self.x + w[2]) - self.y

    def sample_losses(self, w):
        return self.residuals(w) ** 2

    def value(self, w):
        return float(self.sample_losses(w).mean())

    def gradient(self, w, batch=None):
        leaf = self.space.check(w).detach().clone().requires_grad_()
        losses = self.sample_losses(leaf)
        losses = losses if batch is None else losses[batch]
        return torch.autograd.grad(losses.mean(), leaf)[0]

    def hessian(self, w):
        return torch.autograd.functional.hessian(lambda v: self.sample_losses(v).mean(), w)

    def values_and_gradients(self, points):
        values = torch.tensor([self.value(w) for w in points], dtype=torch.float64)
        return values, torch.stack([self.gradient(w) for w in points])

    def batch_gradients(self, points, batches):
        return torch.stack([self.gradient(*pair) for pair in zip(points, batches, strict=True)])


class TestUsersClass(LandscapeContract, SampledContract):
    @pytest.fixture
    def landscape(self):
        return Frequencies()

    @pytest.fixture
    def w(self):
        return torch.tensor([0.8, 2.5, 1.0], dtype=torch.float64)


@pytest.fixture(params=["diagonal", "saddle", "trough", "float32"])
def quadratic(request):
    double = torch.float64
    return {
        "diagonal": lambda: Quadratic(torch.tensor([1.0, 3.0, 0.5], dtype=double), height=2.0),
        "saddle": lambda: Quadratic.of_spectrum(torch.linspace(-3, 5, 9, dtype=double)),
        "trough": lambda: Quadratic.of_spectrum(torch.tensor([0.0] * 5 + [2.0], dtype=double)),
        "float32": lambda: Quadratic.of_spectrum(torch.tensor([1.0, 2.0, 3.0, 0.1])),
    }[request.param]()


class TestQuadratic(LandscapeContract, CurvedContract):
    @pytest.fixture
    def landscape(self, quadratic):
        return quadratic

    @pytest.fixture
    def w(self, quadratic):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(quadratic.space.size, generator=generator).to(quadratic.dtype)


class TokenMeans(nn.Module):
    """Embedding, attention and layer norm: means over positions, then classes."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1))


def images(samples=20):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 2, 6, 6, generator=generator)
    return x, torch.randint(3, (samples,), generator=generator)


def convolutional():
    head = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    return nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Softplus(), head)


def classes(batchnorm="recalibrate", dtype=torch.float64):
    problem = Problem(convolutional(), nn.CrossEntropyLoss(), images(), test=images(7))
    risk = EmpiricalRisk(problem, batchnorm=batchnorm, dtype=dtype, batch_size=6)
    risk.set_buffers({"1.running_mean": torch.randn(4), "1.running_var": torch.rand(4) + 0.5})
    return risk


def frozen_layers():
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    model.register_buffer("shift", torch.zeros(2))
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    problem = Problem(model, nn.MSELoss(), (x, torch.stack([x[:, 0], x[:, 1] ** 2], 1)))
    return EmpiricalRisk(problem, dtype=torch.float64, batch_size=4)


def tokens():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(6, (12, 5), generator=generator)
    problem = Problem(TokenMeans(), nn.CrossEntropyLoss(), (x, x[:, 0] % 3))
    return EmpiricalRisk(problem, dtype=torch.float64, batch_size=5)


RISKS = {
    "recalibrated": classes,
    "frozen statistics": lambda: classes("frozen"),
    "held statistics": lambda: classes("held"),
    "whole batch": lambda: classes("batch"),
    "frozen layers": frozen_layers,
    "tokens": tokens,
    "float32": lambda: classes("frozen", torch.float32),
}


def make(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RISKS[name]()


class OfRisk:
    """A risk of the name that parametrizes the test, near the weights it was made with."""

    @pytest.fixture
    def landscape(self, name):
        return make(name)

    @pytest.fixture
    def w(self, landscape):
        packed = landscape.space.pack(landscape.problem.model).to(landscape.dtype)
        generator = torch.Generator().manual_seed(1)
        return packed + 0.1 * torch.randn(len(packed), generator=generator).to(packed)


@pytest.mark.parametrize("name", RISKS)
class TestRisk(
    OfRisk,
    LandscapeContract,
    SampledContract,
    TrainableContract,
    SteppedContract,
    ScoredContract,
):
    pass


@pytest.mark.parametrize("name", RISKS)
class TestRisksCurvature(OfRisk, CurvedContract):
    pass


@pytest.mark.parametrize("name", ["frozen statistics", "frozen layers", "recalibrated"])
class TestRisksState(OfRisk, StatefulContract):
    pass


@pytest.mark.parametrize("name", ["frozen statistics", "frozen layers", "tokens"])
class TestRisksSamples(OfRisk, DrawableContract):
    pass


@pytest.mark.parametrize("name", ["frozen layers"])
class TestRisksLeastSquares(OfRisk, LeastSquaresContract):
    pass


class TestRemakeable(RemakeableContract):
    @pytest.fixture
    def landscape(self):
        return EmpiricalRisk(load_problem("digits", widths=[3], train_size=30, test_size=30))


class TestCopiesOfARisk(BatchedContract, ScoredContract):
    """A copy among several of one risk is a landscape of its own."""

    @pytest.fixture
    def landscape(self):
        return make("frozen layers").copies(2).members[1]

    @pytest.fixture
    def w(self, landscape):
        return torch.full((landscape.space.size,), 0.2, dtype=torch.float64)


# A user's class with one fault each, and the checks that must find it.

W = torch.tensor([0.8, 2.5, 1.0], dtype=torch.float64)


class Broken(Frequencies):
    pass


class NoGradient:
    space = ParameterSpace.euclidean(3)
    value = Frequencies.value


class OfAnotherSize(Broken):
    space = ParameterSpace.euclidean(4)


class TensorValue(Broken):
    def value(self, w):
        return super().sample_losses(w).mean()


class Constant(Broken):
    def value(self, w):
        self.space.check(w)
        return 1.5


class Noisy(Broken):
    calls = 0

    def value(self, w):
        self.calls += 1
        return super().value(w) + 1e-12 * self.calls


class Remembers(Broken):
    """Its value depends on where it was evaluated before."""

    last = W

    def gradient(self, w, batch=None):
        self.last = w
        return super().gradient(w, batch)

    def value(self, w):
        return super().value(w) + 1e-12 * float((self.last - W).norm())


class NormalizesInPlace(Broken):
    def value(self, w):
        found = super().value(w)
        w[0] = w[0].clamp(max=0.5)
        return found


class GradientWithGraph(Broken):
    def gradient(self, w, batch=None):
        return super().gradient(w, batch).requires_grad_()


class OneBuffer(Broken):
    def __init__(self):
        super().__init__()
        self.held = torch.zeros(3, dtype=torch.float64)

    def gradient(self, w, batch=None):
        return self.held.copy_(super().gradient(w, batch))


class SlightlyOff(Broken):
    """One entry of the gradient is off by a millionth."""

    def gradient(self, w, batch=None):
        return super().gradient(w, batch) * torch.tensor([1.0, 1.0 + 1e-6, 1.0])


class Float64Only(Broken):
    def value(self, w):
        return super().value(w + (0.1 if w.dtype == torch.float32 else 0.0))


class TakesAnything(Broken):
    def residuals(self, w):
        w = w.double().flatten()
        return w[0] * torch.sin(w[1] * self.x + w[-1]) - self.y

    def gradient(self, w, batch=None):
        return torch.autograd.functional.jacobian(lambda v: self.residuals(v).mean(), w.double())


class RawErrors(Broken):
    def residuals(self, w):
        assert w.shape == (3,)
        return super().residuals(w)


class TensorsInWords(Broken):
    described = {"frequencies": torch.ones(3)}  # noqa: RUF012


class NoSamples(Broken):
    def __init__(self):
        super().__init__()
        self.samples = 0


class Sums(Broken):
    """A batch's gradient is a sum, not a mean."""

    def gradient(self, w, batch=None):
        return super().gradient(w, batch) * (1 if batch is None else len(batch))


class IgnoresTheBatch(Broken):
    def gradient(self, w, batch=None):
        return super().gradient(w)


class OneBatchForAll(Broken):
    def batch_gradients(self, points, batches):
        return torch.stack([self.gradient(w, batches[0]) for w in points])


class NeighboursSamples(Broken):
    """A batch's gradient is of the samples next to those asked for."""

    def gradient(self, w, batch=None):
        return super().gradient(w, None if batch is None else (batch + 1) % self.samples)


class UnevenMeans(Broken):
    """The mean of the means of two halves."""

    def value(self, w):
        first, second = self.sample_losses(w).tensor_split(2)
        return float((first.mean() + second.mean()) / 2)


class LossesInAColumn(Broken):
    def sample_losses(self, w):
        return super().sample_losses(w)[:, None]


BROKEN = [
    (NoGradient, LandscapeContract, "test_has_the_members"),
    (OfAnotherSize, LandscapeContract, "test_w_is_a_point_of_the_space"),
    (TensorValue, LandscapeContract, "test_the_value_is_a_finite_float"),
    (Constant, LandscapeContract, "test_the_value_moves_with_w"),
    (Noisy, LandscapeContract, "test_the_value_is_a_function_of_w_alone"),
    (Remembers, LandscapeContract, "test_the_value_is_a_function_of_w_alone"),
    (NormalizesInPlace, LandscapeContract, "test_w_is_not_changed"),
    (GradientWithGraph, LandscapeContract, "test_the_gradient_is_a_vector_like_w"),
    (OneBuffer, LandscapeContract, "test_the_gradient_is_the_callers_to_keep"),
    (SlightlyOff, LandscapeContract, "test_the_gradient_is_the_values"),
    (Float64Only, LandscapeContract, "test_either_precision_is_taken"),
    (TakesAnything, LandscapeContract, "test_what_is_no_point_is_refused"),
    (RawErrors, LandscapeContract, "test_what_is_no_point_is_refused"),
    (TensorsInWords, LandscapeContract, "test_words_are_plain"),
    (NoSamples, BatchedContract, "test_has_samples"),
    (Sums, BatchedContract, "test_the_batch_of_all_gives_the_gradient"),
    (Sums, BatchedContract, "test_batches_average_to_the_gradient"),
    (IgnoresTheBatch, BatchedContract, "test_a_batch_of_few_is_their_own"),
    (OneBatchForAll, ParallelContract, "test_each_point_has_its_own_batch"),
    (LossesInAColumn, SampledContract, "test_has_sample_losses"),
    (UnevenMeans, SampledContract, "test_sample_losses_average_to_the_value"),
    (NeighboursSamples, SampledContract, "test_a_samples_gradient_is_its_losss"),
]


class Operator:
    """A dense matrix as an operator, to be broken."""

    def __init__(self, matrix):
        self.matrix, self.shape = matrix, matrix.shape
        self.dtype, self.device = matrix.dtype, matrix.device

    def __matmul__(self, v):
        if len(v) != len(self.matrix):
            raise ValueError("another length")
        return self.matrix @ v


class Curvature(Frequencies):
    operator = Operator

    def hessian(self, w):
        self.space.check(w)
        return self.operator(super().hessian(w))


class OfValues(Curvature):
    def hessian(self, w):
        return super().hessian(w) @ torch.eye(3, dtype=torch.float64)[:, :2]


class GaussNewtonInstead(Curvature):
    """A symmetric matrix that is nearly the Hessian."""

    def hessian(self, w):
        jacobian = torch.autograd.functional.jacobian(self.residuals, w)
        return Operator(2 * jacobian.T @ jacobian / self.samples)


class Asymmetric(Curvature):
    class operator(Operator):
        def __matmul__(self, v):
            return super().__matmul__(v) + 1e-8 * torch.roll(v, 1, 0)


class Rounds(Curvature):
    class operator(Operator):
        def __matmul__(self, v):
            return super().__matmul__(v.round(decimals=5) if v.dim() == 2 else v)


class Floats(Curvature):
    """Evaluated at the landscape's last point, not at its own."""

    def hessian(self, w):
        self.last = w
        return Moving(self)


class Moving:
    dtype, device, shape = torch.float64, torch.device("cpu"), (3, 3)

    def __init__(self, landscape):
        self.landscape = landscape

    def __matmul__(self, v):
        return Frequencies.hessian(self.landscape, self.landscape.last) @ v


class Broadcasts(Curvature):
    class operator(Operator):
        def __matmul__(self, v):
            return self.matrix @ v[:3]


CURVED = [
    (OfValues, "test_the_hessian_is_an_operator"),
    (GaussNewtonInstead, "test_products_are_the_gradients_differences"),
    (Asymmetric, "test_products_are_symmetric"),
    (Rounds, "test_products_are_linear"),
    (Floats, "test_it_stays_at_its_point"),
    (Broadcasts, "test_other_lengths_are_refused"),
]


@pytest.mark.parametrize(
    ("broken", "contract", "check"),
    BROKEN + [(broken, CurvedContract, check) for broken, check in CURVED],
)
def test_each_check_finds_what_it_is_for(broken, contract, check):
    _run(contract, check, Curvature() if contract is CurvedContract else Frequencies(), W)
    with pytest.raises(AssertionError):
        _run(contract, check, broken(), W)


class Proxy:
    """A risk with one method replaced."""

    def __init__(self, risk, **replaced):
        self.__dict__.update(_risk=risk, **replaced)

    def __getattr__(self, name):
        return getattr(self._risk, name)


def shares(mapping):
    """Give the tensors themselves at each call, never copies."""
    held = dict(mapping)
    return lambda: held


@contextlib.contextmanager
def elsewhere(risk):
    """Set up another state for the steps, and leave it so."""
    risk.set_fixed({name: tensor + 1 for name, tensor in risk.fixed().items()})
    yield


RISKY = [
    (TrainableContract, "test_a_step_tells_what_gradient_gives", lambda r: {
        "batch_gradient": lambda w, b: (*r.batch_gradient(w, b)[:2], r.gradient(w))}),
    (TrainableContract, "test_a_step_tells_its_loss", lambda r: {
        "batch_gradient": lambda w, b: (r.batch_gradient(w, b)[0] * 2, None, r.gradient(w))}),
    (TrainableContract, "test_value_and_gradient_are_both", lambda r: {
        "value_and_gradient": lambda w: (r.value(w), 2 * r.gradient(w))}),
    (SteppedContract, "test_steps_are_the_same_inside", lambda r: {
        "stepping": lambda: elsewhere(r)}),
    (ScoredContract, "test_evaluates_the_value", lambda r: {
        "evaluate": lambda w: {"loss": r.value(w) * 1.001}}),
    (ScoredContract, "test_samples_average_to_what_is_evaluated", lambda r: {
        "evaluate_samples": lambda w: {"loss": r.sample_losses(w) * 1.001}}),
    (DrawableContract, "test_drawn_samples_have_their_own_losses", lambda r: {
        "draw": lambda indices: r.draw(indices.sort().values)}),
    (LeastSquaresContract, "test_residuals_give_the_value_and_the_gradient", lambda r: {
        "residuals": lambda w: -r.residuals(w)}),
    (LeastSquaresContract, "test_the_gram_matrix_is_that_of_the_jacobian", lambda r: {
        "gram": lambda w: r.gram(w).diag().diag()}),
    (StatefulContract, "test_state_is_given_as_copies", lambda r: {
        "fixed": lambda: dict(r._measured.model.named_buffers())}),
    (StatefulContract, "test_buffers_are_part_of_the_state", lambda r: {
        "fixed": lambda: {n: t for n, t in r.fixed().items() if n != "shift"}}),
    (StatefulContract, "test_state_comes_back", lambda r: {
        "set_fixed": lambda tensors: r.set_buffers(
            {n: t for n, t in tensors.items() if n == "shift"})}),
    (StatefulContract, "test_buffers_come_back", lambda r: {"set_buffers": lambda tensors: None}),
]  # fmt: skip


@pytest.mark.parametrize(("contract", "check", "fault"), RISKY)
def test_each_check_of_a_risk_finds_what_it_is_for(contract, check, fault):
    risk = make("frozen layers")
    w = torch.linspace(-1, 1, risk.space.size, dtype=torch.float64)
    _run(contract, check, risk, w)
    with pytest.raises(AssertionError):
        _run(contract, check, Proxy(risk, **fault(risk)), w)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("test_the_spec_is_plain", {"spec": lambda: {"dtype": torch.float32}}),
        ("test_the_fingerprint_follows_the_state", {"fingerprint": lambda: "always"}),
    ],
)
def test_each_check_of_what_can_be_remade_finds_what_it_is_for(check, fault):
    risk = TestRemakeable.landscape.__wrapped__(None)
    with pytest.raises(AssertionError):
        _run(RemakeableContract, check, Proxy(risk, **fault), None)


def test_every_check_is_tried_on_something_broken():
    tried = {check for _, _, check in BROKEN} | {check for _, check in CURVED}
    tried |= {check for _, check, _ in RISKY}
    tried |= {"test_the_spec_is_plain", "test_the_fingerprint_follows_the_state"}
    contracts = (LandscapeContract, SampledContract, CurvedContract, StatefulContract)
    contracts += (TrainableContract, ScoredContract, DrawableContract, LeastSquaresContract)
    contracts += (RemakeableContract, SteppedContract, ParallelContract)
    checks = {n for contract in contracts for n in dir(contract) if n.startswith("test_")}
    assert checks == tried


def test_a_rough_point_decides_nothing():
    class Rough(Frequencies):
        def value(self, w):
            return super().value(w) + 1e-3 * float((1e5 * w).sin().sum())

    with pytest.raises(AssertionError, match="differences decide along"):
        _run(LandscapeContract, "test_the_gradient_is_the_values", Rough(), W)


def _run(contract, check, landscape, w):
    function = getattr(contract(), check)
    takes = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    given = {"landscape": landscape, "w": w if w is None else w.clone()}
    function(**{name: given[name] for name in takes})
