"""Certified weight boxes: closed forms, rational interval arithmetic, samples, attacks."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg import EmpiricalRisk, Problem, load_problem, train
from thalweg.certificates import certify_margin
from thalweg.certificates.activations import enclose_activation
from thalweg.certificates.attack import Attacker
from thalweg.certificates.bounds import MarginBounds
from thalweg.certificates.interval import Box, propagate
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.polynomial import PolynomialActivation, fit_polynomial
from thalweg.problems import MLP, AllConv
from thalweg.tracing.chain import Chain


def images(count: int = 40) -> tuple[Tensor, Tensor]:
    x, y = load_problem("digits").train
    return x[:count], y[:count]


def trained(model: nn.Module, lr: float = 0.05, **options) -> tuple[EmpiricalRisk, Tensor]:
    risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), images()), **options)
    w0 = risk.space.pack(model)
    w = train(risk, w0, epochs=60, lr=lr, momentum=0.9, batch_size=10, evaluate_every=240).w
    assert risk.error(w) == 0
    return risk, w.double()


def gelu_mlp() -> nn.Module:
    return MLP(64, (12, 12), 10, "gelu")


def poly_mlp() -> nn.Module:
    return MLP(64, (12,), 10, PolynomialActivation.from_coefficients([0, 1, 0.1, -0.01]))


def pooled() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, groups=2),
        nn.LeakyReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS = {
    "one layer": lambda: MLP(64, (12,), 10),
    "relu": lambda: MLP(64, (12, 12), 10),
    "gelu": gelu_mlp,
    "polynomial": poly_mlp,
    "convolutions": lambda: AllConv((1, 8, 8), 10, (4, 6), batchnorm=False),
    "pooling, groups": pooled,
}


@cache
def network(name: str) -> tuple[EmpiricalRisk, Tensor]:
    return trained(NETWORKS[name](), lr=0.02 if name == "polynomial" else 0.05)


@pytest.mark.parametrize("scale", ["absolute", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_in_the_box_misclassifies(name, scale):
    risk, w = network(name)
    found = certify_margin(risk, w, scale=scale, rtol=0.1)
    assert found.verdict == "certified" and 0 < found.half_width <= found.attacked
    assert found.ratio < 20
    exact = EmpiricalRisk(risk.problem, dtype=torch.float64)
    room = torch.cat(
        [torch.full((p.size,), found.layer_half_widths[p.layer]) for p in risk.space.parameters]
    ).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        signs = torch.randint(0, 2, w.shape, generator=generator) * 2 - 1
        assert exact.error(w + signs * room) == 0
    # The corner that the worst sample's gradient points to.
    bounds = MarginBounds(risk, w, scale)
    attacker = Attacker(bounds.chain, bounds.w, bounds.scales)
    for target in bounds.tightest(found.half_width, 5):
        assert attacker._within(target, found.half_width) is None


def test_attack_breaks_what_it_says():
    risk, w = network("one layer")
    bounds = MarginBounds(risk, w, "absolute")
    attacker = Attacker(bounds.chain, bounds.w, bounds.scales)
    found = None
    for target in bounds.tightest(0.0, 5):
        found = attacker.smallest(target, found, rtol=0.01)
    assert (found.weights - w).abs().max() <= found.half_width * (1 + 1e-12)
    assert EmpiricalRisk(risk.problem, dtype=torch.float64).error(found.weights) > 0
    certified = certify_margin(risk, w)
    assert certified.half_width <= certified.attacked <= found.half_width * 1.02
    assert certified.ratio < 1.5


def test_linear_classifier_has_its_box_in_closed_form():
    torch.manual_seed(0)
    x = torch.randn(30, 7, dtype=torch.float64)
    model = nn.Linear(7, 4).double()
    y = model(x).argmax(1)
    risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), (x, y)), dtype=torch.float64)
    outputs = model(x).detach()
    gaps = outputs.gather(1, y[:, None]) - outputs
    gaps.scatter_(1, y[:, None], math.inf)
    # A difference of two outputs moves by (|x|_1 + 1) on either side.
    exact = float((gaps.amin(1) / (2 * (x.abs().sum(1) + 1))).min())
    found = certify_margin(risk, risk.space.pack(model), rtol=1e-4)
    assert exact * (1 - 2e-4) <= found.half_width < exact
    assert exact * (1 - 1e-12) <= found.attacked <= exact * (1 + 2e-4)
    assert found.margin == pytest.approx(float(gaps.min()), rel=1e-9)


@pytest.mark.parametrize(
    ("loss", "targets", "threshold"),
    [
        (nn.BCEWithLogitsLoss(), (1.0, 0.0), 0.0),
        (nn.SoftMarginLoss(), (1.0, -1.0), 0.0),
        (nn.BCELoss(), (1.0, 0.0), 0.5),
    ],
)
def test_two_classes_by_one_output(loss, targets, threshold):
    model = nn.Sequential(nn.Linear(2, 1, bias=False).double())
    if threshold:
        model.append(nn.Sigmoid())
    x = torch.tensor([[1.0, 0.5], [-2.0, 1.0]], dtype=torch.float64)
    y = torch.tensor(targets, dtype=torch.float64)[:, None]
    risk = EmpiricalRisk(Problem(model, loss, (x, y)), dtype=torch.float64)
    found = certify_margin(risk, torch.tensor([2.0, 1.0], dtype=torch.float64), rtol=1e-3)
    # Margins 2.5 and 3 over sizes 1.5 and 3.
    assert found.half_width == pytest.approx(1.0, rel=2e-3) and found.half_width < 1.0


def test_a_misclassified_sample_is_refused_with_its_number():
    risk, w = network("one layer")
    x, y = images()
    y = y.clone()
    y[17] = (y[17] + 1) % 10
    wrong = EmpiricalRisk(Problem(risk.problem.model, nn.CrossEntropyLoss(), (x, y)))
    found = certify_margin(wrong, w)
    assert (found.verdict, found.half_width, found.broken) == ("refused", 0.0, 17)
    assert "sample 17 is not correctly classified" in found.reasons[0]
    assert found.margin < 0 and found.to_dict()["ratio"] is None


def test_intervals_hold_those_of_rational_arithmetic():
    """Two layers by naive interval arithmetic in fractions: ours contain it, and hardly more."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, half = torch.randn(1, 5, dtype=torch.float64), 0.03
    box = Box.point(x)
    for layer in model:
        weights = {name: tensor.detach() for name, tensor in layer.named_parameters()}
        box = propagate(layer, weights, dict.fromkeys(weights, half), box)
    rational = [(Fraction(v), Fraction(v)) for v in x[0].tolist()]
    for layer in model:
        rational = _rational_layer(layer, Fraction(half), rational)
    for (low, high), ours_low, ours_high in zip(
        rational, box.low[0].tolist(), box.high[0].tolist(), strict=True
    ):
        assert Fraction(ours_low) <= low and high <= Fraction(ours_high)
        # Centre and radius lose where an interval of weights holds zero: little at this width.
        assert ours_high - ours_low < 1.1 * float(high - low)


def _rational_layer(layer, half, x):
    if isinstance(layer, nn.ReLU):
        return [(max(low, 0), max(high, 0)) for low, high in x]
    rows = []
    for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
        low, high = Fraction(bias) - half, Fraction(bias) + half
        for weight, (a, b) in zip(row, x, strict=True):
            ends = [(Fraction(weight) + s * half) * v for s in (-1, 1) for v in (a, b)]
            low, high = low + min(ends), high + max(ends)
        rows.append((low, high))
    return rows


def test_rounding_is_inside_the_radius():
    """Sums that cancel lose digits; the exact result stays inside intervals of radius zero."""
    torch.manual_seed(0)
    layer = nn.Linear(400, 8).double()
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-8, 8, 400, dtype=torch.float64))
        layer.weight[:, 200:] = -layer.weight[:, :200]
    x = torch.randn(1, 400, dtype=torch.float64)
    x[:, 200:] = x[:, :200] * (1 + 1e-15)
    weights = {name: tensor.detach() for name, tensor in layer.named_parameters()}
    box = propagate(layer, weights, {}, Box.point(x))
    columns = (layer.weight, layer.bias, box.low[0], box.high[0])
    for row, bias, low, high in zip(*(c.tolist() for c in columns), strict=True):
        exact = Fraction(bias)
        for a, b in zip(row, x[0].tolist(), strict=True):
            exact += Fraction(a) * Fraction(b)
        assert Fraction(low) <= exact <= Fraction(high)


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(),
        nn.ReLU6(),
        nn.LeakyReLU(0.1),
        nn.ELU(inplace=True),
        nn.SELU(),
        nn.CELU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Softplus(),
        nn.Tanh(),
        nn.Sigmoid(),
        PolynomialActivation.from_coefficients([1, -2, 0, 0.5]),
        PolynomialActivation(fit_polynomial(torch.relu, 10, radius=3.0)),
    ],
    ids=str,
)
def test_activations_stay_in_their_range(module):
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(400, generator=generator, dtype=torch.float64) * 6 - 3
    center[:40] = torch.linspace(-1.5, -0.5, 40)
    radius = torch.logspace(-6, 0, 400, dtype=torch.float64)[
        torch.randperm(400, generator=generator)
    ]
    low, high = center - radius, center + radius
    bottom, top = enclose_activation(module, low, high)
    steps = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    values = module((1 - steps) * low + steps * high)
    assert (bottom <= values).all() and (values <= top).all()
    excess = (top - bottom - 1e-9) / (values.amax(0) - values.amin(0) + 1e-300)
    assert excess[radius < 0.01].quantile(0.8) < 1.25  # and not much wider


def test_batch_norm_with_frozen_statistics():
    model = AllConv((1, 8, 8), 10, (4, 6))
    generator = torch.Generator().manual_seed(0)
    for norm in (model.norm1, model.norm2):
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2.0, generator=generator)
    frozen, w = trained(model, batchnorm="frozen")
    found = certify_margin(frozen, w, rtol=0.1)
    assert 0 < found.half_width <= found.attacked
    exact = EmpiricalRisk(frozen.problem, batchnorm="frozen", dtype=torch.float64)
    for _ in range(10):
        signs = torch.randint(0, 2, w.shape, generator=generator) * 2 - 1
        assert exact.error(w + signs * found.half_width) == 0
    with pytest.raises(NotDefined, match="batchnorm='frozen'"):
        certify_margin(EmpiricalRisk(frozen.problem), w)


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x.flatten(1))
        return x + self.two(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.sin(self.one(x)))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Branched(), "what one gives is read by two and add"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LayerNorm(10)), "LayerNorm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LeakyReLU(-0.1)), "falls where"),
        (nn.Sequential(Functional(), nn.Flatten()), r"sin \(sin\) is no layer that is known"),
    ],
)
def test_other_networks_are_refused(model, says):
    problem = Problem(model, nn.CrossEntropyLoss(), images(4))
    with pytest.raises(NotDefined, match=says):
        risk = EmpiricalRisk(problem)
        certify_margin(risk, risk.space.pack(model))


def test_other_decisions_and_arguments_are_refused():
    scalar = load_problem("digits", network="mlp", width=4, target="scalar", train_size=5)
    risk = EmpiricalRisk(scalar)
    with pytest.raises(NotDefined, match="an error\\(outputs, targets\\) of its own"):
        certify_margin(risk, risk.space.pack(scalar.model))
    risk, w = network("one layer")
    with pytest.raises(InvalidArgument, match="scale='relative'"):
        certify_margin(risk, w, scale="relative")
    with pytest.raises(InvalidArgument, match="rtol"):
        certify_margin(risk, w, rtol=0.0)


def test_one_network_is_as_certified_in_float32_as_in_float64():
    risk, w = network("one layer")
    exact = EmpiricalRisk(risk.problem, dtype=torch.float64)
    one, other = certify_margin(risk, w.float()), certify_margin(exact, w)
    assert one.half_width == pytest.approx(other.half_width, rel=1e-3)


def test_chain_evaluates_the_network_in_float64():
    risk, w = trained(AllConv((1, 8, 8), 10, (4, 6), batchnorm=False))
    chain = Chain(risk)
    outputs = chain.forward(w, chain.inputs(0, 40))
    assert outputs.dtype == torch.float64
    losses = nn.functional.cross_entropy(outputs, chain.targets(0, 40), reduction="none")
    torch.testing.assert_close(losses.float(), risk.sample_losses(w.float()), rtol=1e-3, atol=1e-5)


def tall(activation, scale=1.0):
    """Make a classifier of one feature whose hidden units go through ``activation``."""
    model = nn.Sequential(nn.Linear(1, 2), activation, nn.Linear(2, 2))
    x = torch.tensor([[-1.0], [1.0], [2.0]])
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, torch.tensor([0, 1, 1]))))
    return risk, torch.tensor([1.0, -1.0, 0.0, 0.0, -1.0, 1.0, 1.0, -1.0, 0.0, 0.0]) * scale


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(-0.5), nn.ELU(-1.0), nn.CELU(-1.0), nn.Softplus(beta=-1.0)],
)
def test_an_activation_that_falls_is_refused(activation):
    with pytest.raises(NotDefined, match="falls"):
        tw.certify_margin(*tall(activation))


def test_softplus_falls_at_its_threshold():
    """Beyond the threshold it is the identity, which is below: the range takes in the step."""
    module = nn.Softplus(threshold=0.5)
    low, high = torch.tensor([0.4]).double(), torch.tensor([0.6]).double()
    x = torch.linspace(0.4, 0.6, 1001, dtype=torch.float64)
    bottom, top = enclose_activation(module, low, high)
    assert module(x).min() < module(low) - 0.3
    assert bottom <= module(x).min() and module(x).max() <= top


def test_steep_leaky_slopes_are_proved():
    box = tw.certify_margin(*tall(nn.LeakyReLU(3.0)))
    assert box.verdict == "certified" and 0 < box.half_width < box.attacked


def test_a_layer_without_scale_has_no_box():
    risk, w = tall(nn.Tanh())
    w[4:8] = 0.0
    w[8:] = torch.tensor([-1.0, 1.0])
    x = torch.tensor([[1.0], [2.0]])
    risk = tw.EmpiricalRisk(
        tw.Problem(risk.problem.model, nn.CrossEntropyLoss(), (x, torch.tensor([1, 1])))
    )
    found = tw.certify_margin(risk, w, scale="layer")
    assert found.verdict == "refused" and "half-width" in found.reasons[0]
    assert tw.certify_margin(risk, w).verdict == "certified"


def test_an_attack_inside_a_proved_box_refuses_it(monkeypatch):
    """Where proof and attack contradict each other nothing is certified."""
    monkeypatch.setattr(
        "thalweg.certificates.attack.Attacker._within", lambda self, target, half: self.center
    )
    found = tw.certify_margin(*tall(nn.Tanh()))
    assert found.verdict == "refused" and "inside" in found.reasons[0]
    assert found.half_width == 0


def test_a_width_of_zero_is_refused():
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(1, 0), nn.ReLU(), nn.Linear(0, 2))
    data = torch.ones(1, 1), torch.tensor([1])
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), data), check=False)
    with pytest.raises(NotDefined, match="width of zero"):
        tw.certify_margin(risk, torch.tensor([0.0, 1.0]))


def test_ends_in_time_and_says_how_far_it_came(monkeypatch):
    risk, w = network("one layer")
    whole = certify_margin(risk, w)
    assert whole.status == "converged"
    assert whole.half_width < whole.undecided <= whole.half_width * 1.01
    ticks = iter(range(10_000))
    monkeypatch.setattr("thalweg.certificates.margin.time.monotonic", lambda: float(next(ticks)))
    short = certify_margin(risk, w, seconds=4.5)
    assert short.status == "out of time"
    assert 0 < short.half_width < whole.half_width < short.undecided < math.inf
    none = certify_margin(risk, w, seconds=0.5)
    assert (none.verdict, none.status, none.half_width) == ("refused", "out of time", 0.0)
    assert "within 0.5 s" in none.reasons[0]


@pytest.mark.parametrize("options", [{"rtol": 1e-17}, {"rtol": 0.0}, {"seconds": 0.0}])
def test_searches_without_end_are_refused(options):
    risk, w = network("one layer")
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        certify_margin(risk, w, **options)


def test_a_network_that_no_weight_moves_ends():
    """First-order reach is infinite: the outputs do not depend on the only trained weight."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1.0)
    model[2].requires_grad_(False)
    problem = Problem(model, nn.BCEWithLogitsLoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
    found = certify_margin(EmpiricalRisk(problem, check=False), torch.full((2,), -1.0))
    assert found.verdict == "certified" and found.half_width >= 1
