"""The checker verifies true claims, and of a thousand mutants none that is stronger."""

from __future__ import annotations

import ast
import json
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import expit
from torch import nn

import thalweg as tw
from certificates.cases import ACTIVATIONS, convolutional, dense, jacobian, solved
from certificates.mutants import FREE, at, mutants, places, write
from thalweg.certificates import checker, checker_box, checker_layers
from thalweg.certificates.ball import bound_ball
from thalweg.certificates.chain import Chain
from thalweg.certificates.extended import Extended
from thalweg.certificates.forward import run_forward
from thalweg.certificates.statement import Statement
from thalweg.certificates.store import verify, write_certificate
from thalweg.certificates.zero import certify_zero
from thalweg.certificates.zero_proof import prove
from thalweg.errors import InvalidArgument


def sorting(activation, outputs, seed=0):
    """Certify a box of a small classifier."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 6), ACTIVATIONS[activation](), nn.Linear(6, outputs))
    x = torch.randn(12, 2)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0).long() * (outputs > 2)
    loss = nn.CrossEntropyLoss() if outputs > 1 else nn.BCEWithLogitsLoss()
    target = labels if outputs > 1 else labels[:, None].float()
    risk = tw.EmpiricalRisk(tw.Problem(model, loss, (x, target)))
    w = tw.train(risk, risk.space.pack(model), epochs=300, lr=0.1, momentum=0.9, batch_size=12).w
    return tw.certify_margin(risk, w)


def one_hot():
    """Certify a network whose outputs sum to one at a zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
    targets = nn.functional.one_hot(torch.arange(12) % 3, 3).double()
    problem = tw.Problem(model, nn.MSELoss(), (torch.randn(12, 3).double(), targets))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    return certify_zero(risk, solved(risk, steps=60))


def path_of_zeros():
    small = tw.load_problem("teacher", inputs=2, samples=3, widths=[8])
    risk = tw.EmpiricalRisk(small, dtype=torch.float64)
    w0 = solved(risk)
    noise = torch.randn(len(w0), generator=torch.Generator().manual_seed(0))
    w1 = tw.train(risk, w0 + 0.02 * noise, optimizer="gauss-newton", steps=30).w
    return tw.certify_path(risk, w0, w1)


def certified(risk):
    return certify_zero(risk, solved(risk))


MADE = {
    "tanh": lambda: certified(dense("tanh")),
    "relu": lambda: certified(dense("relu", hidden=32)),
    "leaky relu": lambda: certified(dense("leaky relu", hidden=32)),
    "cubic": lambda: certified(dense("cubic")),
    "gelu": lambda: certified(dense("gelu")),
    "convolutional": lambda: certified(convolutional()),
    "one-hot": one_hot,
    "path": path_of_zeros,
    "box": lambda: sorting("relu", 3),
    "one output": lambda: sorting("tanh", 1),
    "box of cubic": lambda: sorting("cubic", 2),
}


@pytest.fixture(scope="module", params=MADE)
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("certificate") / "cert.json"
    content = write_certificate(MADE[request.param](), path)
    return path, content, load_file(path.with_suffix(".safetensors"))


def test_what_was_certified_is_verified(stored):
    path, content, _ = stored
    assert content["claim"]["verdict"] in ("certified", "connected"), content["claim"]["reasons"]
    found = checker.check(path)
    assert found.verdict == "verified", found.reasons
    assert verify(path).verdict == "verified"


def all_that_is_no_stronger(content, arrays, mutant, changed):
    """
    Say whether a mutant claims no more than what is known to hold.

    Either the same is said of the same network, and no number is stronger but by rounding; or what
    is said of another network or ball holds by the other implementation of the proof. Boxes of
    another network or width are searched for weights that misclassify.
    """
    same = [k for k in content if k not in ("claim", "sha256", *FREE)]
    alike = all(named(mutant.get(k)) == named(content[k]) for k in same)
    alike &= changed.keys() == arrays.keys()
    alike &= all(np.array_equal(changed[k], arrays[k]) for k in arrays)
    if alike and not stronger(mutant["claim"], content["claim"]):
        return True
    return {"zero": holds_of_zero, "path": holds_of_path, "margin": holds_of_box}[
        checker.FORMATS[mutant["format"]]
    ](mutant, changed)


def named(value):
    """Leave out names."""
    if isinstance(value, dict):
        return {k: named(v) for k, v in value.items() if k not in FREE}
    return [named(v) for v in value] if isinstance(value, list) else value


def stronger(claim, than):
    for name, number in than.items():
        if name in ("verdict", "reasons"):
            continue
        if name in ("residual", "lipschitz", "distance", "strays"):
            if claim[name] < number * (1 - 1e-12):
                return True
        elif name in ("singular_value", "slope", "smallest_radius", "margin", "radius"):
            if claim[name] > number * (1 + 1e-12):
                return True
        elif claim[name] != number:
            return True
    return False


def holds_of_zero(content, arrays, claim=None):
    """Ask the other implementation; its bounds may differ by a tenth."""
    claim = claim or content["claim"]
    chain = Chain.from_dict(content["network"], arrays)
    outputs = None if content["outputs"] is None else tuple(content["outputs"])
    proved = prove(Statement(chain, arrays["inputs"], arrays["targets"], outputs))
    if not proved.details or proved.weights != counted(content, arrays):
        return False
    ball = bound_ball(chain, run_forward(chain, arrays["inputs"], Extended())[0], claim["radius"])
    lipschitz = ball.lipschitz * (2 if "not independent" in " ".join(proved.notes) else 1)
    value = math.sqrt(proved.details["eigenvalue_estimate"]) * 1.001
    computed, error = proved.details["residual_computed"], proved.details["residual_error"]
    counts = [claim.get(n, getattr(proved, n)) for n in ("equations", "weights")]
    free = claim.get("dimension", counts[1] - counts[0])
    return bool(
        [*counts, free] == [proved.equations, proved.weights, proved.weights - proved.equations]
        and not ball.changes
        and claim.get("residual", computed) >= 0.999 * computed - error
        and claim["singular_value"] <= value
        and claim.get("lipschitz", lipschitz) >= 0.9 * lipschitz
        and claim.get("slope", 0) <= value - 0.9 * lipschitz * claim["radius"]
        and 0.9 * computed / value - error <= claim.get("distance", computed) < claim["radius"]
    )


def counted(content, arrays):
    rows = content["network"]["layers"]
    return sum(
        arrays[f"{i}.{part}"].size
        for i, row in enumerate(rows)
        for part, trained in zip(("weight", "bias"), row["trained"], strict=True)
        if trained
    )


def holds_of_path(content, arrays):
    stacked = [k for k in arrays if k not in ("inputs", "targets")]
    for p in range(len(arrays["radius"])):
        here = {k: v[p] if k in stacked else v for k, v in arrays.items()}
        claim = {k: float(here[k]) for k in ("radius", "singular_value")}
        if not holds_of_zero(content, here, claim):
            return False
    flat = np.concatenate([arrays[k].reshape(len(arrays["radius"]), -1) for k in stacked[:4]], 1)
    return bool((np.linalg.norm(np.diff(flat, axis=0), axis=1) < arrays["radius"][:-1]).all())


def holds_of_box(content, arrays):
    """Search corners of the box, and rays to them, for a sample that is misclassified."""
    generator = np.random.default_rng(0)
    halves, layers = content["claim"]["half_widths"], content["network"]["layers"]
    if len(halves) != len(layers) or content["claim"]["samples"] != len(arrays["inputs"]):
        return False
    if content["claim"]["weights"] != counted(content, arrays) or not min(halves) > 0:
        return False
    for attempt in range(300):
        a = arrays["inputs"]
        for i, row in enumerate(layers):
            moved = [
                arrays[f"{i}.{part}"]
                + (attempt > 0)
                * trained
                * halves[i]
                * generator.choice([-1, 1], arrays[f"{i}.{part}"].shape)
                for part, trained in zip(("weight", "bias"), row["trained"], strict=True)
            ]
            kind, powers = row["activation"]["kind"], row["activation"]["coefficients"]
            z = a @ moved[0].T + moved[1]
            a = {
                "tanh": np.tanh,
                "relu": lambda t: np.maximum(t, 0),
                "sigmoid": expit,
                "identity": lambda t: t,
                "polynomial": lambda t, c=powers: sum(
                    float(Fraction(x)) * t**k for k, x in enumerate(c)
                ),
            }[kind](z)
        labels = arrays["targets"][:, 0]
        chosen = a.argmax(1) if a.shape[1] > 1 else a[:, 0] > content["outputs"]
        if not np.array_equal(chosen, labels):
            return False
    return True


def never_stronger(stored, chosen, tmp_path):
    """Check mutants; give how many were refused."""
    _, content, arrays = stored
    refused = 0
    for name, mutant, changed in chosen:
        write(tmp_path / "cert.json", mutant, changed)
        try:
            verdict = checker.check(tmp_path / "cert.json").verdict
        except InvalidArgument:
            verdict = "refused"
        refused += verdict == "refused"
        if verdict == "verified":
            assert all_that_is_no_stronger(content, arrays, mutant, changed), name
    return refused


def renamed(content, arrays):
    """Keep the name of the numbers, which the file on disk has anyway."""
    named = {**content, "numbers": "cert.safetensors"}
    return [m for m in mutants(named, arrays) if not m[0].startswith(("problem", "numbers"))]


def test_mutants_are_verified_only_where_they_are_no_stronger(stored, tmp_path):
    every = renamed(*stored[1:])
    assert len(every) > 400
    chosen = random.Random(0).sample(every, 60)
    assert never_stronger(stored, chosen, tmp_path) > 40


@pytest.mark.slow
def test_no_mutant_is_verified_that_is_stronger(stored, tmp_path):
    every = renamed(*stored[1:])
    assert never_stronger(stored, every, tmp_path) > 0.8 * len(every)


def test_strictly_the_same_is_verified_and_less_is_trusted(stored, tmp_path):
    path, content, arrays = stored
    found = checker.check(path, strict=True)
    assert found.verdict == "verified", found.reasons
    assert len(found.assumptions) == len(checker.ASSUMPTIONS) - 2
    assert not any("products" in text or "Cholesky" in text for text in found.assumptions)
    name = next(n for n in ("strays", "distance", "margin") if n in content["claim"])
    factor = 1.009 if name == "margin" else 0.991
    claim = {**content["claim"], name: content["claim"][name] * factor}
    write(
        tmp_path / "cert.json", {**content, "claim": claim, "numbers": "cert.safetensors"}, arrays
    )
    assert checker.check(tmp_path / "cert.json", strict=True).verdict == "refused"


def test_strictly_a_wrong_factorization_is_noticed(monkeypatch):
    """A library whose Cholesky runs to its end on a matrix with a negative eigenvalue."""
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert not checker_layers.positive(matrix.copy(), 0.0)
    monkeypatch.setattr(checker_layers, "dpotrf", lambda a, **_: (np.eye(2), 0))
    assert checker_layers.positive(matrix.copy(), 0.0)
    token = checker_layers.STRICT.set(True)
    try:
        assert not checker_layers.positive(matrix.copy(), 0.0)
        monkeypatch.undo()
        assert checker_layers.positive(np.array([[2.0, 9.0], [1.0, 2.0]]), 0.9)
        assert not checker_layers.positive(np.array([[2.0, 9.0], [1.0, 2.0]]), 1.1)
    finally:
        checker_layers.STRICT.reset(token)


def test_strict_products_call_no_library(monkeypatch):
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 7)), generator.normal(size=(7, 3))
    token = checker_layers.STRICT.set(True)
    try:
        for left in (a, a + 1j * a[::-1]):
            found = checker_layers.product(left, b)
            assert found.dtype == left.dtype
            assert np.abs(found - left @ b).max() < 1e-13
    finally:
        checker_layers.STRICT.reset(token)
    # Numpy's loops of long double, not BLAS: no rounding of float64 within the sum.
    spread = np.array([[1.0, 2.0**-60, -1.0]])
    token = checker_layers.STRICT.set(np.finfo(np.longdouble).nmant > 60)
    try:
        total = checker_layers.product(spread, np.ones((3, 1)))[0, 0]
    finally:
        checker_layers.STRICT.reset(token)
    assert total == (2.0**-60 if np.finfo(np.longdouble).nmant > 60 else 0.0)


@pytest.mark.parametrize("unit", [2.0**-52])
def test_without_long_double_it_stays_rigorous_or_says_so(stored, unit, monkeypatch):
    path, content, _ = stored
    before = checker.check(path)
    monkeypatch.setattr(np, "longdouble", np.float64)
    for module in (checker, checker_layers):
        monkeypatch.setattr(module, "FINE", unit)
    found = checker.check(path)
    for name in ("residual", "strays"):
        if hasattr(before.certificate, name):
            assert getattr(found.certificate, name) >= getattr(before.certificate, name)
    if found.verdict == "refused":
        assert "no 80-bit long double" in found.reasons[-1]
    # What is written there is verified here.
    coarse = {k: v for k, v in vars(found.certificate).items() if k in checker._ABOVE}
    here = vars(before.certificate)
    assert checker._compare({**content["claim"], **coarse}, here) == []


class Bars:
    """Progress that is kept: what each bar was to count, and what it did."""

    def __init__(self):
        self.bars = []

    def __call__(self, total, label):
        self.bars.append([total, 0])
        return self

    def update(self, n):
        self.bars[-1][1] += n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_progress_is_told_to_the_end(stored):
    bars = Bars()
    assert verify(stored[0], progress=bars).verdict == "verified"
    assert bars.bars and all(total == done > 0 for total, done in bars.bars)


def test_the_digest_of_a_state_is_stored_and_compared(tmp_path):
    risk = dense("tanh", samples=4)
    certificate = certified(risk)
    content = write_certificate(certificate, tmp_path / "cert.json", state="a" * 64)
    assert content["state"] == "a" * 64
    assert verify(tmp_path / "cert.json").verdict == "verified"
    assert verify(tmp_path / "cert.json", state="a" * 64).verdict == "verified"
    other = verify(tmp_path / "cert.json", state="b" * 64)
    assert other.verdict == "refused" and "the certificate names aaaa" in other.reasons[0]
    # A file of before, without one.
    del content["state"]
    (tmp_path / "cert.json").write_text(json.dumps(content))
    assert verify(tmp_path / "cert.json").verdict == "verified"
    assert "names none" in verify(tmp_path / "cert.json", state="b" * 64).reasons[0]
    (tmp_path / "cert.json").write_text(json.dumps({**content, "state": 7}))
    assert verify(tmp_path / "cert.json").verdict == "refused"


def test_what_is_stronger_by_a_percent_is_refused(stored, tmp_path):
    """All numbers but the radius, whose change is judged by the others, and the box's widths."""
    _, content, arrays = stored
    for path in places(content["claim"]):
        number = at(content["claim"], path)
        if not path or not isinstance(number, float) or path[0] in ("radius", "half_widths"):
            continue
        factor = 0.991 if path[0] in ("residual", "lipschitz", "distance", "strays") else 1.009
        changed = {**content, "claim": {**content["claim"], path[0]: number * factor}}
        write(tmp_path / "cert.json", {**changed, "numbers": "cert.safetensors"}, arrays)
        found = checker.check(tmp_path / "cert.json")
        assert found.verdict == "refused", path
        assert path[0] in " ".join(found.reasons)


def test_a_digest_that_does_not_fit_is_refused(stored, tmp_path):
    _, content, arrays = stored
    write(tmp_path / "cert.json", {**content, "sha256": {}}, arrays, fitting=False)
    (tmp_path / "cert.safetensors").rename(tmp_path / content["numbers"])
    assert verify(tmp_path / "cert.json").verdict == "refused"


def test_it_imports_nothing_of_ours_but_errors_and_is_short():
    own = {
        "thalweg.errors",
        "thalweg.certificates.checker_box",
        "thalweg.certificates.checker_layers",
    }
    for module in (checker, checker_box, checker_layers):
        text = Path(module.__file__).read_text(encoding="utf-8")
        assert text.count("\n") < 600
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("thalweg"):
                assert node.module in own


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', "[" * 100_000, "\xff"])
def test_what_is_no_certificate_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidArgument, match="no certificate"):
        checker.check(tmp_path / "a.json")


def test_constants_of_activations_hold():
    """First and second derivatives stay below their bounds, and come near to them."""
    x = torch.linspace(-12, 12, 400_001, dtype=torch.float64, requires_grad=True)
    torch_of = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": nn.functional.softplus}
    torch_of |= {"silu": nn.functional.silu, "gelu": nn.functional.gelu}
    assert torch_of.keys() == checker_layers.SMOOTH.keys()
    for kind, (value, slope, one, two, turn) in checker_layers.SMOOTH.items():
        y = torch_of[kind](x)
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        first, second, z = first.detach(), second.detach(), x.detach().numpy()
        assert np.allclose(value(z), y.detach().numpy(), rtol=0, atol=1e-8)
        assert np.allclose(slope(z), first.numpy(), rtol=0, atol=1e-8)
        assert one * (1 - 1e-3) < float(first.abs().max()) <= one
        assert two * (1 - 1e-3) < float(second.abs().max()) <= two
        if math.isfinite(turn):
            assert abs(z[int(y.argmin())] - turn) < 1e-4


@pytest.mark.parametrize(
    "make", [dense, convolutional, lambda: dense("gelu"), lambda: dense("cubic")]
)
def test_what_is_verified_holds_on_the_ball(make, tmp_path):
    """Singular values and the Jacobian's change at points of the sphere, by dense algebra."""
    risk = make()
    w = solved(risk)
    claim = write_certificate(certify_zero(risk, w), tmp_path / "cert.json")["claim"]
    assert checker.check(tmp_path / "cert.json").verdict == "verified"
    centre = jacobian(risk, w)
    assert torch.linalg.svdvals(centre)[-1] >= claim["singular_value"]
    assert torch.linalg.svdvals(centre)[-1] <= claim["singular_value"] * 1.01
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        way = torch.randn(len(w), generator=generator, dtype=torch.float64)
        there = jacobian(risk, w + way * (claim["radius"] / way.norm()))
        assert torch.linalg.svdvals(there)[-1] >= claim["slope"]
        moved = torch.linalg.matrix_norm(there - centre, 2)
        assert moved <= claim["lipschitz"] * claim["radius"]
    assert float(risk.residuals(w).norm()) <= claim["residual"] + 1e-12


def forged(path, tmp_path, change):
    """Change a certificate and let its digests fit."""
    content = json.loads(path.read_text())
    change(content)
    write(tmp_path / "cert.json", content, load_file(path.with_suffix(".safetensors")))
    (tmp_path / "cert.safetensors").rename(tmp_path / content["numbers"])
    return verify(tmp_path / "cert.json")


@pytest.mark.parametrize("added", [1000, -55, 1])
def test_weights_are_counted(added, tmp_path):
    """W in the file decides nothing: the dimension is of the weights that are there."""
    risk = dense("tanh", outputs=1, samples=6)
    write_certificate(certify_zero(risk, solved(risk)), tmp_path / "a.json")

    def change(content):
        content["network"]["weights"] += added
        for name in ("weights", "dimension", "nullity"):
            content["claim"][name] += added

    (tmp_path / "b").mkdir()
    found = forged(tmp_path / "a.json", tmp_path / "b", change)
    assert found.verdict == "refused" and found.certificate.nullity == 61 - 6


@pytest.mark.parametrize(
    "activation",
    [
        {"kind": "softmax", "coefficients": []},
        {"kind": "leaky_relu", "coefficients": ["50"]},
        {"kind": "polynomial", "coefficients": ["1e9"]},
        {"kind": "relu", "coefficients": ["1"]},
    ],
)
def test_an_activation_that_is_not_known_is_refused_in_one_line(activation, tmp_path):
    risk = dense("tanh")
    write_certificate(certify_zero(risk, solved(risk)), tmp_path / "a.json")
    (tmp_path / "b").mkdir()
    found = forged(
        tmp_path / "a.json",
        tmp_path / "b",
        lambda content: content["network"]["layers"][0].update(activation=activation),
    )
    assert found.verdict == "refused" and len(found.reasons) == 1
    assert "\n" not in found.reasons[0]


def test_a_refused_certificate_is_refused(tmp_path):
    risk = dense("tanh")
    early = certify_zero(risk, risk.space.pack(risk.problem.model).double())
    content = write_certificate(early, tmp_path / "a.json")
    found = verify(tmp_path / "a.json")
    assert content["claim"]["verdict"] == found.verdict == "refused"
    assert "says 'refused'" in found.reasons[0]
