"""Protocols: who has which, how they refuse by name, and that only they are asked for."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg
from thalweg import barrier, surface, train
from thalweg.errors import InvalidArgument, NotSymmetric
from thalweg.landscape import DeepLinear, Provenance, Quadratic, protocols
from thalweg.landscape.differences import difference
from thalweg.landscape.protocols import Curved, Documented, Sampled, Scored, members, require
from thalweg.landscape.synthetic import Noisy, RuggedField
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

SOURCE = Path(thalweg.__file__).parent
ALL = [
    protocol
    for protocol in vars(protocols).values()
    if isinstance(protocol, type) and getattr(protocol, "_is_runtime_protocol", False)
]
# Floors that know the empirical risk from inside.
INSIDE = ("risk", "evaluation", "curvature", "problems", "landscape")


@pytest.fixture
def risk():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    return EmpiricalRisk(Problem(nn.Linear(2, 1), nn.MSELoss(), (x, x[:, :1]), test=(x, x[:, 1:])))


@pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.__name__)
def test_a_risk_has_every_protocol_of_landscapes(protocol, risk):
    subject = risk
    if protocol is protocols.LinearOperator:
        subject = risk.hessian(torch.zeros(3))
    elif protocol is protocols.Blocked:  # quadratic in each of its blocks, as no risk of torch is
        subject = DeepLinear.random(0)
    elif protocol is protocols.Parallel:  # many points, each with a batch of its own
        subject = Noisy(RuggedField(2), samples=3, noise=0.1)
    assert isinstance(subject, protocol) and require(subject, protocol, "", "") is subject


def test_a_quadratic_is_curved_and_has_no_samples():
    quadratic = Quadratic(torch.ones(2))
    assert isinstance(quadratic, Curved) and isinstance(quadratic, Documented)
    assert not isinstance(quadratic, Sampled) and not isinstance(quadratic, Scored)


def test_a_refusal_names_the_protocol_and_all_that_is_missing():
    with pytest.raises(InvalidArgument, match=r"crossfit takes a Sampled landscape, and Quadratic"):
        require(Quadratic(torch.ones(2)), Sampled, "crossfit", "give a risk")
    with pytest.raises(InvalidArgument, match=r"Linear has no space, value; give an Empirical"):
        surface(nn.Linear(2, 1), torch.ones(3))
    with pytest.raises(InvalidArgument, match=r"barrier takes a Function landscape, and Linear"):
        barrier(nn.Linear(2, 1), torch.ones(3), torch.zeros(3))
    with pytest.raises(InvalidArgument, match=r"has no residuals|has no target_scale"):
        train(Quadratic(torch.ones(2)), torch.ones(2), optimizer="gauss-newton", steps=1)


@pytest.mark.parametrize("instrument", ["degeneracy", "certify_zero", "certify_margin"])
def test_what_reads_a_network_refuses_what_is_none(instrument):
    with pytest.raises(InvalidArgument, match=f"{instrument} takes a Network landscape, and Quad"):
        getattr(thalweg, instrument)(Quadratic(torch.ones(2)), torch.ones(2))
    with pytest.raises(InvalidArgument, match="certify_path takes a Network landscape, and Linear"):
        thalweg.certify_path(nn.Linear(2, 1), torch.ones(2), torch.zeros(2))


def test_members_are_the_public_names():
    assert members(Sampled) == ["space", "value", "gradient", "samples", "sample_losses"]


def test_samples_give_standard_errors_to_any_class_that_has_them():
    class Means:
        """Half the squared distance to each of ten points of the line."""

        space = Quadratic(torch.ones(1)).space
        samples, points = 10, torch.linspace(0, 9, 10, dtype=torch.float64)

        def sample_losses(self, w):
            return (w - self.points).square() / 2

        def value(self, w):
            return float(self.sample_losses(w).mean())

        def gradient(self, w, batch=None):
            return (w - self.points.mean()).reshape(1)

    w0, w1 = torch.zeros(1, dtype=torch.float64), 2 * torch.ones(1, dtype=torch.float64)
    found = barrier(Means(), w0, w1, points=3)
    losses = (torch.arange(10.0) ** 2 / 2).numpy()
    assert float(found.loss[0]) == pytest.approx(losses.mean())
    assert float(found.loss_stderr[0]) == pytest.approx(losses.std(ddof=1) / math.sqrt(10))
    # Every sample lies 1/2 below its own chord in the middle of a step of 2.
    assert float(found.barrier[0]) == -0.5 and float(found.barrier_stderr[0]) == 0.0
    assert surface(Means(), w0, directions=w1, points=3).samples.values.tolist() == [10, 10, 10]


def test_provenance_holds_as_facts_what_described_says_in_words(risk):
    facts = risk.provenance
    assert (facts.split, facts.samples, facts.batchnorm) == ("train", 20, "none")
    assert facts.dtype == torch.float32 and not facts.pooled
    assert risk.described == facts.words
    assert (
        risk.described.items()
        >= {
            "problem": "problem",
            "split": "train",
            "samples": 20,
            "batchnorm": "no batch norm",
            "dtype": "float32",
        }.items()
    )
    assert Provenance().words == {} and Provenance(batchnorm="batch").pooled
    assert protocols.provenance_of(object()) == Provenance()
    assert risk.held_out().provenance.split == "test" and risk.held_out().held_out() is None


def test_nobody_tests_for_the_risk_or_sniffs_attributes_of_a_landscape():
    files = [p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] not in INSIDE]
    assert len(files) > 100
    for path in files:
        for call in _calls(path):
            said = f"{path.relative_to(SOURCE)}:{call.lineno}: {ast.unparse(call)}"
            if call.func.id == "isinstance":
                assert "EmpiricalRisk" not in ast.unparse(call.args[1]), said
            if call.func.id in ("getattr", "hasattr"):
                asked = ast.unparse(call.args[0])
                assert asked not in ("landscape", "risk", "self.risk", "test", "op"), said


def _calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node


def test_a_quadratic_has_the_spectrum_it_was_given():
    wanted = torch.tensor([-2.0, 0.0, 0.5, 3.0, 3.0], dtype=torch.float64)
    quadratic = Quadratic.of_spectrum(wanted, seed=4)
    assert torch.allclose(torch.linalg.eigvalsh(quadratic.curvature), wanted, atol=1e-14)
    other = Quadratic.of_spectrum(wanted, seed=5)
    assert not torch.allclose(quadratic.curvature, other.curvature)
    w = quadratic.centre + torch.arange(5.0, dtype=torch.float64)
    step = w - quadratic.centre
    assert quadratic.value(w) == pytest.approx(float(step @ quadratic.curvature @ step) / 2)


def test_a_diagonal_is_never_made_a_matrix():
    size = 300_000  # W^2 numbers would take 720 GB
    quadratic = Quadratic(torch.linspace(0, 1, size, dtype=torch.float64), height=3.0)
    op = quadratic.hessian(quadratic.centre)
    v = torch.ones(size, 2, dtype=torch.float64)
    assert torch.equal((op @ v)[:, 1], quadratic.curvature) and op.shape == (size, size)
    assert quadratic.value(quadratic.centre) == 3.0


@pytest.mark.parametrize(
    ("curvature", "options", "error", "match"),
    [
        (torch.ones(2, 3), {}, InvalidArgument, r"shape \(2, 3\)"),
        (torch.ones(0), {}, InvalidArgument, r"shape \(0,\)"),
        (torch.ones(2, dtype=torch.int64), {}, InvalidArgument, "int64"),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), {}, NotSymmetric, "matrix.T"),
        (torch.ones(2), {"centre": torch.ones(3)}, ValueError, r"\(3,\)"),
        (torch.ones(2), {"space": Quadratic(torch.ones(3)).space}, InvalidArgument, "3 weights"),
    ],
)
def test_what_is_no_quadratic_is_refused(curvature, options, error, match):
    with pytest.raises(error, match=match):
        Quadratic(curvature, **options)


def test_a_quadratic_takes_no_batch_and_no_other_length():
    quadratic = Quadratic(torch.ones(2))
    with pytest.raises(InvalidArgument, match="no samples"):
        quadratic.gradient(torch.ones(2), torch.tensor([0]))
    with pytest.raises(InvalidArgument, match=r"expected \(2,\) or"):
        quadratic.hessian(torch.ones(2)) @ torch.ones(3)


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (math.exp, 1.0),
        (lambda t: math.sin(30 * t), 30.0),
        (lambda t: (1 + t) ** 7, 7.0),
        (lambda t: torch.tensor([t**3, 5 * t]), [0.0, 5.0]),
    ],
)
def test_differences_know_their_error(function, derivative):
    found = difference(function, 0.1, 2.2e-16)
    miss = float((found.value - torch.tensor(derivative, dtype=torch.float64)).abs().max())
    assert miss <= found.error < 1e-6


def test_differences_across_a_kink_claim_little():
    found = difference(lambda t: abs(t - 0.001), 0.1, 2.2e-16)
    assert found.error > 0.01 or abs(float(found.value) + 1.0) <= found.error
