"""Certificates of zeros: against 60 digits, against what is impossible, and on each structure."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from certificates.cases import ACTIVATIONS, convolutional, dense, jacobian, solved
from thalweg.certificates.ball import bound_ball
from thalweg.certificates.extended import Extended
from thalweg.certificates.forward import run_forward
from thalweg.certificates.statement import state
from thalweg.certificates.zero import certify_zero
from thalweg.certificates.zero_proof import prove
from thalweg.errors import NotDefined
from thalweg.tracing.chain import Chain

TRUE = {
    "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2),
    "cubic": (
        lambda z: mpmath.mpf(0.1) + z + mpmath.mpf(0.3) * z**2 + mpmath.mpf(0.2) * z**3,
        lambda z: 1 + 2 * mpmath.mpf(0.3) * z + 3 * mpmath.mpf(0.2) * z**2,
    ),
    "sigmoid": (
        lambda z: 1 / (1 + mpmath.exp(-z)),
        lambda z: mpmath.exp(-z) / (1 + mpmath.exp(-z)) ** 2,
    ),
    "relu": (lambda z: max(z, mpmath.mpf(0)), lambda z: mpmath.mpf(z > 0)),
}
exact = np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])


class Truth:
    """A network of one hidden layer with 60 digits."""

    def __init__(self, risk, activation):
        self.x, self.y = (exact(t.double().numpy()) for t in risk.problem.train)
        self.shapes = [p.shape for p in risk.space.parameters]
        self.value, self.slope = (np.vectorize(f, otypes=[object]) for f in TRUE[activation])

    def residual_and_jacobian(self, w):
        sizes = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        w1, b1, w2, b2 = (
            part.reshape(s) for part, s in zip(np.split(w, sizes), self.shapes, strict=True)
        )
        z = self.x @ w1.T + b1
        a, slopes = self.value(z), self.slope(z)
        residual = (a @ w2.T + b2 - self.y).reshape(-1)
        rows = []
        for i in range(len(self.x)):
            for c in range(len(w2)):
                delta = w2[c] * slopes[i]
                unit = np.array([mpmath.mpf(k == c) for k in range(len(w2))], dtype=object)
                parts = np.outer(delta, self.x[i]), delta, np.outer(unit, a[i]), unit
                rows.append(np.concatenate([part.ravel() for part in parts]))
        return residual, np.array(rows)

    def newton(self, w, steps=4):
        """Go to a zero by steps of least length."""
        start = w
        for _ in range(steps):
            residual, jacobian = self.residual_and_jacobian(w)
            gram = mpmath.matrix((jacobian @ jacobian.T).tolist())
            y = mpmath.lu_solve(gram, mpmath.matrix(residual.tolist()))
            w = w - jacobian.T @ np.array(list(y), dtype=object)
        assert size(self.residual_and_jacobian(w)[0]) < mpmath.mpf(10) ** -50
        return size(w - start)


def size(v):
    return mpmath.sqrt(sum(x * x for x in v))


def is_at_least(jacobian, bound):
    """Say whether the smallest singular value is at least the bound: Cholesky with 60 digits."""
    gram = mpmath.matrix((jacobian @ jacobian.T).tolist())
    try:
        mpmath.cholesky(gram - mpmath.mpf(bound) ** 2 * mpmath.eye(len(jacobian)))
    except ValueError:
        return False
    return True


def check_against_truth(activation, seed):
    risk = dense(activation, seed, hidden=32 if activation == "relu" else 12)
    w = solved(risk)
    found = certify_zero(risk, w)
    with mpmath.workdps(60):
        truth = Truth(risk, activation)
        residual, jacobian = truth.residual_and_jacobian(exact(w.numpy()))
        assert size(residual) <= found.residual <= 100 * size(residual) + 1e-13
        assert is_at_least(jacobian, found.singular_value)
        assert not is_at_least(jacobian, 1.1 * found.singular_value + 1e-6)
        if found.verdict == "certified":
            assert truth.newton(exact(w.numpy())) <= found.distance
    return found


@pytest.mark.parametrize("activation", TRUE)
def test_bounds_hold_against_newton_with_60_digits(activation):
    found = check_against_truth(activation, 0)
    assert found.verdict == "certified", found.reasons
    assert (found.equations, found.nullity) == (20, found.weights - 20)


@pytest.mark.slow
@pytest.mark.parametrize("activation", TRUE)
def test_bounds_hold_on_many_networks(activation):
    found = [check_against_truth(activation, seed) for seed in range(1, 14)]
    assert sum(f.verdict == "certified" for f in found) >= 11


def test_the_nullity_is_that_of_the_hessian():
    risk = dense("tanh", 4)
    w = solved(risk)
    eigenvalues = torch.linalg.eigvalsh(risk.hessian(w).to_dense())
    found = certify_zero(risk, w)
    assert int((eigenvalues < 1e-10 * eigenvalues[-1]).sum()) == found.nullity == 54


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("double_double", [False, True], ids=["long double", "pairs"])
def test_every_activation_in_both_extended_arithmetics(activation, double_double):
    risk = dense(activation, 1, samples=5)
    w = solved(risk)
    statement = state(Chain(risk), w, outputs=None, strict=False)
    found = prove(statement, double_double=double_double)
    assert found.verdict == "certified", found.reasons
    other = prove(statement, double_double=not double_double)
    assert found.singular_value == pytest.approx(other.singular_value, rel=1e-6)
    assert found.details["residual_computed"] == pytest.approx(
        other.details["residual_computed"], rel=1e-3
    )


@pytest.mark.parametrize("make", [dense, convolutional])
def test_the_chain_is_the_network(make):
    risk = make()
    w = risk.space.pack(risk.problem.model).double()
    statement = state(Chain(risk), w, outputs=None, strict=False)
    kind = Extended()
    passed, outputs, error = run_forward(statement.chain, statement.samples, kind)
    residuals = risk.residuals(w).numpy()
    np.testing.assert_allclose(kind.parts(outputs)[0] - statement.targets, residuals, atol=1e-14)
    assert 0 < error.max() < 1e-15 and len(passed) == len(statement.chain.layers)


@pytest.mark.parametrize("strict", [False, True])
def test_convolutions_are_certified(strict):
    risk = convolutional()
    w = solved(risk)
    found = certify_zero(risk, w, strict=strict)
    assert found.verdict == "certified", found.reasons
    true = float(torch.linalg.svdvals(jacobian(risk, w))[-1])
    assert 0.9 * true < found.singular_value < true
    assert found.nullity == found.weights - 12 == risk.space.size - 12


@pytest.mark.parametrize("make", [lambda: dense("tanh", 2), convolutional])
def test_the_jacobian_moves_no_faster_than_claimed(make):
    risk = make()
    w = solved(risk)
    statement = state(Chain(risk), w, outputs=None, strict=False)
    passed, _, _ = run_forward(statement.chain, statement.samples, Extended())
    generator = torch.Generator().manual_seed(0)
    for radius in (1e-3, 1.0):
        ball = bound_ball(statement.chain, passed, radius)
        for _ in range(3):
            ends = [torch.randn(len(w), dtype=w.dtype, generator=generator) for _ in range(2)]
            v, u = (w + radius * end / end.norm() for end in ends)
            moved = (jacobian(risk, v) - jacobian(risk, u)).norm()
            assert moved <= ball.lipschitz * (u - v).norm()


def one_hot(samples=40, hidden=16, classes=3):
    torch.manual_seed(0)
    x = torch.randn(samples, 6)
    y = nn.functional.one_hot(torch.randint(0, classes, (samples,)), classes).float()
    model = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, classes))
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), (x, y)), dtype=torch.float64)


def test_one_hot_targets_are_dependent_and_the_independent_equations_are_used():
    risk = one_hot()
    w = solved(risk, 80)
    found = certify_zero(risk, w)
    assert found.verdict == "certified", found.reasons
    assert found.equations == 40 * 2 + 17
    assert "not independent" in found.notes[0]
    eigenvalues = torch.linalg.eigvalsh(risk.hessian(w).to_dense())
    assert int((eigenvalues < 1e-9 * eigenvalues[-1]).sum()) == found.nullity


def test_with_fewer_samples_than_features_all_outputs_are_used():
    risk = one_hot(samples=12)
    found = certify_zero(risk, solved(risk, 80))
    assert (found.verdict, found.equations, found.notes) == ("certified", 36, ())


def test_a_class_can_be_dropped():
    risk = one_hot(samples=20)
    w = solved(risk, 80)
    found = certify_zero(risk, w, outputs=[0, 2])
    assert found.verdict == "certified", found.reasons
    assert found.equations == 40 and "dropped" in found.notes[0]
    # The nullity is that of the loss of two outputs, not of all three.
    assert "nullity are those of the squared loss of outputs [0, 2] alone" in found.notes[0]
    rows = jacobian(risk, w).reshape(20, 3, -1)
    ranks = [
        int(torch.linalg.matrix_rank(rows[:, chosen].flatten(0, 1)))
        for chosen in ([0, 2], [0, 1, 2])
    ]
    assert found.weights - ranks[0] == found.nullity != found.weights - ranks[1]


def test_copies_are_counted_once_and_contradictions_refused():
    risk = dense("tanh", 3)
    x, y = risk.problem.train
    w = solved(risk)

    def doubled(targets):
        data = torch.cat([x, x[:2]]), torch.cat([y, targets])
        return tw.EmpiricalRisk(tw.Problem(risk.problem.model, nn.MSELoss(), data), dtype=w.dtype)

    found = certify_zero(doubled(y[:2]), w)
    assert (found.verdict, found.equations) == ("certified", 20)
    assert "2 samples are copies" in found.notes[0]
    refused = certify_zero(doubled(y[2:4]), w)
    assert refused.verdict == "refused" and "samples 0 and 10" in refused.reasons[0]


IMPOSSIBLE = ("contradiction", "too few weights", "perturbed weights")


def impossible(kind, seed):
    """Give a risk and weights that no certificate may be given for."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "too few weights":
        risk = dense("tanh", seed, hidden=2, samples=10)
        return risk, solved(risk, 10)
    risk = dense(("tanh", "cubic", "relu")[seed % 3], seed)
    if kind == "perturbed weights":
        w = solved(risk)
        return risk, w + 0.3 * w.abs().mean() * torch.randn(len(w), generator=generator)
    x, y = (t.clone() for t in risk.problem.train)
    one, other = torch.randperm(len(x), generator=generator)[:2]
    x[other] = x[one]
    problem = tw.Problem(risk.problem.model, nn.MSELoss(), (x, y))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    return risk, solved(risk, 15)


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_the_impossible_is_refused(kind):
    for seed in range(3):
        found = certify_zero(*impossible(kind, seed))
        assert found.verdict == "refused" and found.reasons
        assert found.dimension is None and found.nullity is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_the_impossible_is_always_refused(kind):
    refused = [certify_zero(*impossible(kind, seed)).verdict for seed in range(3, 53)]
    assert refused == ["refused"] * 50


def test_an_early_point_and_a_dead_network_are_refused_with_the_number_that_failed():
    risk = dense("tanh", 0)
    early = certify_zero(risk, risk.space.pack(risk.problem.model).double())
    assert early.verdict == "refused" and "residual" in early.reasons[0]
    risk = dense("relu", 0)
    dead = certify_zero(risk, -10 * torch.ones(risk.space.size, dtype=torch.float64))
    assert dead.verdict == "refused" and "singular" in dead.reasons[0]


def test_unknown_structures_are_refused_and_other_losses_are_errors():
    torch.manual_seed(0)
    data = torch.randn(4, 3), torch.randn(4, 2)
    model = nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 2))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), batchnorm="frozen")
    found = certify_zero(risk, risk.space.pack(model))
    assert found.verdict == "refused" and "normalization" in found.reasons[0]
    classes = tw.Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), (data[0], torch.zeros(4).long()))
    with pytest.raises(NotDefined, match="squared"):
        certify_zero(tw.EmpiricalRisk(classes), torch.zeros(8))


def test_layers_and_activations_used_twice_are_seen_twice():
    torch.manual_seed(0)
    data = torch.randn(6, 3), torch.randn(6, 1)
    tanh, middle = nn.Tanh(), nn.Linear(8, 8)
    model = nn.Sequential(nn.Linear(3, 8), tanh, nn.Linear(8, 8), tanh, nn.Linear(8, 1))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)
    w = solved(risk)
    found = certify_zero(risk, w)
    assert found.verdict == "certified", found.reasons
    assert found.singular_value <= float(torch.linalg.svdvals(jacobian(risk, w))[-1])
    model = nn.Sequential(nn.Linear(3, 8), tanh, middle, tanh, middle, tanh, nn.Linear(8, 1))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)
    refused = certify_zero(risk, risk.space.pack(model).double())
    assert refused.verdict == "refused" and "several layers" in refused.reasons[0]


class Written(nn.Module):
    """A chain that is no nn.Sequential, with what is passed over."""

    def __init__(self, branch=False):
        super().__init__()
        self.read, self.first, self.bend = nn.Flatten(), nn.Linear(4, 9), nn.Tanh()
        self.drop, self.last, self.branch = nn.Dropout(0.5), nn.Linear(9, 1), branch

    def forward(self, x):
        a = self.drop(self.bend(self.first(self.read(x))))
        return self.last(a + 0.0 if self.branch else a)


def test_a_chain_need_not_be_written_as_one():
    torch.manual_seed(0)
    data = torch.randn(5, 2, 2), torch.randn(5, 1)
    found = []
    for branch in (False, True):
        problem = tw.Problem(Written(branch).eval(), nn.MSELoss(), data)
        risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
        found.append(certify_zero(risk, solved(risk)))
    assert found[0].verdict == "certified", found[0].reasons
    assert found[0].nullity == risk.space.size - 5
    assert found[1].verdict == "refused" and "no layer that is known" in found[1].reasons[0]


class Doubled(nn.Linear):
    """A layer that does more than it looks."""

    def __call__(self, x):
        return 2 * super().__call__(x)


def test_a_network_that_is_not_what_it_looks_is_refused():
    torch.manual_seed(0)
    data = torch.randn(3, 3), torch.randn(3, 1)
    model = nn.Sequential(Doubled(3, 8), nn.Tanh(), nn.Linear(8, 1))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)
    refused = certify_zero(risk, solved(risk))
    assert refused.verdict == "refused" and "0 has a __call__ of its own" in refused.reasons[0]


def made(middle, *, hidden=12):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, hidden), middle, nn.Linear(hidden, 2)).double()
    data = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)


@pytest.mark.parametrize(
    "middle",
    [nn.LeakyReLU(2.0), nn.LeakyReLU(-0.1), nn.LeakyReLU(math.nan), nn.Softplus(threshold=5.0)],
)
def test_activations_beyond_their_bounds_are_refused(middle):
    risk = made(middle)
    found = certify_zero(risk, risk.space.pack(risk.problem.model))
    assert found.verdict == "refused"


def test_softplus_is_refused_where_torch_ends_it():
    """Beyond 20 torch gives x: another function than log(1 + exp(x)), by up to 2e-9."""
    risk = made(nn.Softplus())
    w = solved(risk)
    assert certify_zero(risk, w).verdict == "certified"
    x, y = (t.clone() for t in risk.problem.train)
    bias = w.clone()
    bias[36:48] += 30.0
    moved = tw.EmpiricalRisk(
        tw.Problem(risk.problem.model, nn.MSELoss(), (x, y)), dtype=torch.float64
    )
    again = tw.train(moved, bias, optimizer="gauss-newton", steps=40).w
    found = certify_zero(moved, again)
    assert found.verdict == "refused"


@pytest.mark.parametrize("scale", [1e-310, 1e-200])
def test_numbers_whose_products_underflow_are_refused(scale):
    risk = made(nn.Tanh())
    found = certify_zero(risk, risk.space.pack(risk.problem.model) * scale)
    assert found.verdict == "refused" and "underflow" in found.reasons[0]


def test_a_width_of_zero_is_refused():
    with pytest.warns(UserWarning, match="zero-element"):
        risk = made(nn.Tanh(), hidden=0)
    assert certify_zero(risk, risk.space.pack(risk.problem.model)).verdict == "refused"


def test_strict_names_the_products_it_trusts():
    risk = dense("tanh")
    found = certify_zero(risk, solved(risk), strict=True)
    assert any("norms of layers" in text for text in found.assumptions)
