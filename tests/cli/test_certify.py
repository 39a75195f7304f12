"""The commands ``thalweg certify``."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from safetensors.numpy import load_file as load_numbers
from safetensors.numpy import save_file as save_numbers
from safetensors.torch import save_file
from typer.testing import CliRunner

import thalweg as tw
from thalweg.certificates.store import digests
from thalweg.cli.main import app
from thalweg.report.commands import measurement_command
from thalweg.run import open_run

TEACHER = ["teacher", *["--set", "inputs=2", "--set", "samples=5", "--set", "widths=[8]"]]
run = CliRunner().invoke


def test_trains_certifies_writes_and_verifies(tmp_path):
    out = tmp_path / "cert.json"
    found = run(app, ["certify", *TEACHER, "--train", "--epochs", "3", "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert (answer["verdict"], answer["equations"], answer["nullity"]) == ("certified", 5, 28)
    again = run(app, ["certify", "verify", str(out), "--json"])
    assert again.exit_code == 0
    proved = json.loads(again.stdout)
    assert proved["verdict"] == "verified"
    assert proved["certificate"]["distance"] < 1e-13 and proved["certificate"]["nullity"] == 28
    numbers = bytearray(out.with_suffix(".safetensors").read_bytes())
    numbers[-1] ^= 1
    out.with_suffix(".safetensors").write_bytes(numbers)
    refused = run(app, ["certify", "verify", str(out)])
    assert refused.exit_code == 1 and "not those certified" in refused.stdout


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_certificate_with_numbers_that_are_none_is_refused_in_one_line(tmp_path, bad):
    out = tmp_path / "cert.json"
    run(app, ["certify", *TEACHER, "--train", "--epochs", "3", "--out", str(out)])
    arrays, content = load_numbers(out.with_suffix(".safetensors")), json.loads(out.read_text())
    for name in arrays:
        changed = {key: value.copy() for key, value in arrays.items()}
        changed[name].flat[0] = bad
        save_numbers(changed, out.with_suffix(".safetensors"))
        # Its digests fit, as a stranger would write it.
        out.write_text(json.dumps(content | {"sha256": digests(content["network"], changed)}))
        refused = run(app, ["certify", "verify", str(out), "--json"])
        assert refused.exit_code == 1
        answer = json.loads(refused.stdout)
        assert answer["verdict"] == "refused" and answer["certificate"] is None
        assert len(answer["reasons"]) == 1
        assert f"{name} holds numbers that are not finite" in answer["reasons"][0]


@pytest.mark.parametrize("word", [[], ["zero"]])
def test_takes_a_checkpoint_and_says_why_it_is_refused(word, tmp_path):
    problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[8])
    path = tmp_path / "w.safetensors"
    save_file(problem.model.state_dict(), path)
    found = run(app, ["certify", *word, "--checkpoint", str(path), *TEACHER])
    assert found.exit_code == 1
    assert "refused" in found.stdout and "the residual" in found.stdout
    trained = run(app, ["certify", *word, *TEACHER, "--checkpoint", str(path), "--train"])
    assert trained.exit_code == 0 and "assumptions:" in trained.stdout


def test_a_checkpoint_of_float64_keeps_its_digits(tmp_path):
    problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[8])
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    w = tw.train(risk, w, optimizer="gauss-newton", steps=20).w
    save_file({k: v.clone() for k, v in risk.space.unpack(w).items()}, tmp_path / "w.safetensors")
    given = ["--checkpoint", str(tmp_path / "w.safetensors")]
    out = tmp_path / "cert.json"
    found = run(app, ["certify", *TEACHER, *given, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert "is written, and verified" in found.stdout
    point = tw.open_point(problem, tmp_path / "w.safetensors")
    assert json.loads(out.read_text())["state"] == point.sha256
    own = ["certify", "verify", str(out), "--problem", *TEACHER]
    assert run(app, [*own, *given]).exit_code == 0
    save_file(problem.model.state_dict(), tmp_path / "w.safetensors")
    other = run(app, [*own, *given])
    assert other.exit_code == 1 and "the state of the checkpoint has the digest" in other.stdout
    assert run(app, ["certify", "verify", str(out), *given]).exit_code == 2


def test_says_what_became_of_the_file(tmp_path, monkeypatch):
    problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[8])
    save_file(problem.model.state_dict(), tmp_path / "w.safetensors")
    given = [*TEACHER, "--checkpoint", str(tmp_path / "w.safetensors")]
    out = tmp_path / "cert.json"
    early = run(app, ["certify", *given, "--out", str(out)])
    assert early.exit_code == 1 and "will not verify" in early.stdout
    monkeypatch.setattr("thalweg.certificates.store._SHARES", (1.5,))
    found = run(app, ["certify", *given, "--train", "--out", str(out), "--json"])
    answer = json.loads(found.stdout)
    assert found.exit_code == 1
    assert (answer["verdict"], answer["written"]["verdict"]) == ("certified", "refused")
    assert "the checker does not prove it" in answer["written"]["reasons"][0]
    words = run(app, ["certify", *given, "--train", "--out", str(out)]).stdout
    assert "is written and refused, although the proof above holds" in words


def test_verifies_strictly(tmp_path):
    out = tmp_path / "cert.json"
    run(app, ["certify", *TEACHER, "--train", "--epochs", "3", "--out", str(out)])
    found = run(app, ["certify", "verify", str(out), "--strict", "--json"])
    answer = json.loads(found.stdout)
    assert (found.exit_code, answer["verdict"]) == (0, "verified")
    assert not any("products" in text or "Cholesky" in text for text in answer["assumptions"])


def test_a_run_keeps_the_training_and_makes_the_command_again(tmp_path):
    out, file = tmp_path / "run", tmp_path / "zero.json"
    command = ["certify", *TEACHER, "--train", "--epochs", "3", "--out", str(out), "--json"]
    found = run(app, [*command, "--certificate", str(file)])
    assert found.exit_code == 0, found.output
    answer, kept = json.loads(found.stdout), open_run(out)
    assert answer["written"]["verdict"] == "certified"
    assert answer["checkpoint"]["file"] == "the problem's own initialization"
    assert float(kept.result("certify/points")["distance"][0]) == answer["distance"]
    assert 'id="certify"' in (out / "report.html").read_text()
    again = run(app, shlex.split(measurement_command(kept.config, str(out)))[1:])
    assert again.exit_code == 0 and f"distance        {answer['distance']:.4g}" in again.stdout


def test_a_file_is_the_proof_of_one_checkpoint(tmp_path):
    problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[8])
    path = tmp_path / "w.safetensors"
    save_file(problem.model.state_dict(), path)
    both = ["certify", *TEACHER, "--checkpoint", str(path), "--checkpoint", str(path)]
    refused = run(app, [*both, "--out", str(tmp_path / "zero.json")])
    assert refused.exit_code == 2 and "these are 2" in refused.output
    found = run(app, [*both, "--json"])
    answers = json.loads(found.stdout)["checkpoints"]
    assert found.exit_code == 1 and [a["verdict"] for a in answers] == ["refused", "refused"]


def test_wrong_usage():
    assert run(app, ["certify", *TEACHER]).exit_code == 2
    assert run(app, ["certify"]).exit_code == 2
    assert "verify" in run(app, ["certify", "--help"]).stdout
