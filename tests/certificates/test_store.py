"""Stored certificates: proved anew, and refused for a single flipped bit."""

from __future__ import annotations

import json
import random

import pytest
import torch
from safetensors.numpy import load_file

import thalweg as tw
from certificates.cases import convolutional, dense, solved
from thalweg.certificates.store import verify, write_certificate
from thalweg.certificates.zero import certify_zero
from thalweg.errors import InvalidArgument


@pytest.fixture(scope="module", params=["dense", "convolutional"])
def stored(request, tmp_path_factory):
    risk = {"dense": dense, "convolutional": convolutional}[request.param]()
    path = tmp_path_factory.mktemp("certificate") / "cert.json"
    found = certify_zero(risk, solved(risk))
    write_certificate(found, path)
    return path, found


def test_is_proved_anew_from_what_is_stored(stored):
    path, found = stored
    again = verify(path)
    assert again.verdict == "verified", again.reasons
    content = json.loads(path.read_text())
    for name in ("equations", "weights", "dimension", "nullity", "radius"):
        assert getattr(again.certificate, name) == getattr(found, name) == content["claim"][name]
    for name in ("singular_value", "slope", "lipschitz"):
        assert content["claim"][name] == pytest.approx(getattr(found, name), rel=0.2)
    assert found.residual <= content["claim"]["residual"] < 1e-12
    assert again.certificate.distance <= content["claim"]["distance"]
    assert {len(digest) for digest in content["sha256"].values()} == {64}


def flip(path, bit):
    """Flip one bit of the numbers behind the header."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    place = start + bit % (len(content) - start)
    content[place] ^= 1 << (bit % 8)
    path.write_bytes(content)


def flipped_is_refused(stored, seed):
    path, _ = stored
    numbers = path.with_suffix(".safetensors")
    kept = numbers.read_bytes()
    flip(numbers, random.Random(seed).randrange(1 << 40))
    try:
        found = verify(path)
        assert found.verdict == "refused" and found.certificate is None
        assert "not those certified" in found.reasons[0]
    finally:
        numbers.write_bytes(kept)


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_is_refused(stored, seed):
    flipped_is_refused(stored, seed)


@pytest.mark.slow
def test_every_flipped_bit_is_refused(stored):
    for seed in range(5, 55):
        flipped_is_refused(stored, seed)


CHANGES = {
    "residual": 0.5,
    "singular_value": 1.1,
    "radius": 2.0,
    "distance": 0.5,
    "nullity": 2,
    "equations": 2,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_claim_is_refused(stored, name, tmp_path):
    path, _ = stored
    content = json.loads(path.read_text())
    content["claim"][name] = content["claim"][name] * CHANGES[name]
    changed = tmp_path / "cert.json"
    changed.write_text(json.dumps(content))
    (tmp_path / "cert.safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    found = verify(changed)
    assert found.verdict == "refused"
    assert {"radius": "slope"}.get(name, name) in " ".join(found.reasons)


def test_a_changed_coefficient_is_refused(stored, tmp_path):
    path, _ = stored
    content = json.loads(path.read_text())
    content["network"]["layers"][0]["activation"] = {"kind": "sigmoid", "coefficients": []}
    (tmp_path / "cert.json").write_text(json.dumps(content))
    (tmp_path / "cert.safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    assert "coefficients" in verify(tmp_path / "cert.json").reasons[0]


def test_the_numbers_are_readable_by_anyone(stored):
    path, found = stored
    arrays = load_file(path.with_suffix(".safetensors"))
    assert {"inputs", "targets", "0.weight", "0.bias"} <= arrays.keys()
    assert (arrays["targets"] == found.statement.targets).all()


def test_other_files_are_refused(stored, tmp_path):
    with pytest.raises(InvalidArgument, match="no certificate"):
        verify(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InvalidArgument, match="no certificate"):
        verify(tmp_path / "other.json")
    with pytest.raises(InvalidArgument, match=r"ends in \.json"):
        write_certificate(stored[1], tmp_path / "cert.txt")


def test_data_of_the_problem_are_compared(tmp_path):
    settings = {"inputs": 2, "samples": 5, "widths": [8]}
    problem = tw.load_problem("teacher", **settings)
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    found = certify_zero(risk, solved(risk))
    write_certificate(
        found, tmp_path / "a.json", problem={"entry": "teacher", "settings": settings}
    )
    own = ("teacher", settings)
    assert verify(tmp_path / "a.json", problem=own).verdict == "verified"
    # What the file says of a built-in problem need not be written again, and can be overridden.
    assert verify(tmp_path / "a.json", problem=("teacher", {})).verdict == "verified"
    refused = verify(tmp_path / "a.json", problem=("teacher", {"data_seed": 1}))
    assert refused.verdict == "refused" and "data of 'teacher'" in refused.reasons[0]


@pytest.mark.parametrize("entry", ["os:system", "beside.py:make", "no.such.module:make"])
def test_what_a_certificate_names_is_never_called(stored, tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("raise SystemExit('it ran')\n")
    content = json.loads(stored[0].read_text())
    content["problem"] = {"entry": entry, "settings": {"command": "false"}}
    (tmp_path / "cert.json").write_text(json.dumps(content))
    numbers = tmp_path / content["numbers"]
    numbers.write_bytes(stored[0].with_suffix(".safetensors").read_bytes())
    assert verify(tmp_path / "cert.json").verdict == "verified"
    own = ("teacher", {"inputs": 2, "samples": 5, "widths": [8]})
    refused = verify(tmp_path / "cert.json", problem=own)
    assert refused.verdict == "refused" and "data of 'teacher'" in refused.reasons[-1]


def test_the_network_of_the_problem_is_compared(tmp_path):
    """A file that names the teacher of 16 units and holds another network on its data."""
    settings = {"inputs": 3, "samples": 8, "widths": [16]}
    data = tw.load_problem("teacher", **settings).train
    torch.manual_seed(0)
    other = torch.nn.Sequential(
        torch.nn.Linear(3, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1)
    ).double()
    risk = tw.EmpiricalRisk(tw.Problem(other, torch.nn.MSELoss(), data), dtype=torch.float64)
    named = {"entry": "teacher", "settings": settings}
    found = certify_zero(risk, solved(risk))
    content = write_certificate(found, tmp_path / "a.json", problem=named)
    assert content["claim"]["verdict"] == verify(tmp_path / "a.json").verdict == "refused"
    assert "network of 'teacher'" in content["claim"]["reasons"][0]
    write_certificate(found, tmp_path / "b.json")
    assert verify(tmp_path / "b.json").verdict == "verified"
    compared = verify(tmp_path / "b.json", problem=("teacher", settings))
    assert compared.verdict == "refused" and "network of 'teacher'" in compared.reasons[0]


MARGIN_PROBLEM = """
import torch, thalweg as tw
from torch import nn

def make(dtype="float64"):
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(kind)
    x = torch.randn(20, 4, dtype=kind)
    y = model(x).argmax(1)
    return tw.Problem(model, nn.CrossEntropyLoss(), (x, y))
"""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_margin_is_compared_with_a_problem_of_its_own_precision(dtype, tmp_path):
    """Its network is evaluated as it was certified, in double."""
    (tmp_path / "own.py").write_text(MARGIN_PROBLEM)
    entry, settings = f"{tmp_path / 'own.py'}:make", {"dtype": dtype}
    problem = tw.load_problem(entry, **settings)
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen", dtype=torch.float64)
    found = tw.certify_margin(risk, risk.space.pack(problem.model).double())
    assert found.verdict == "certified"
    write_certificate(found, tmp_path / "a.json")
    compared = verify(tmp_path / "a.json", problem=(entry, settings))
    assert compared.verdict == "verified", compared.reasons
