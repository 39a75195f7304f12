"""The commands ``thalweg margin`` and ``thalweg degeneracy``."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app

SETTINGS = ["digits", *["--set", "network=mlp", "--set", "width=4", "--set", "train_size=3"]]
run = CliRunner().invoke


@pytest.fixture
def checkpoint(tmp_path):
    """A network that has the three labels right: its last bias says so, or one sample wrong."""
    problem = tw.load_problem("digits", network="mlp", width=4, train_size=3)
    risk = tw.EmpiricalRisk(problem)
    options = {"lr": 0.1, "momentum": 0.9, "epochs": 60, "batch_size": 3}
    w = tw.train(risk, risk.space.pack(problem.model), **options).w
    path = tmp_path / "w.safetensors"
    save_file({name: t.clone() for name, t in risk.space.unpack(w).items()}, path)
    return path


def test_margin_proves_and_refuses(checkpoint, tmp_path):
    found = run(app, ["margin", *SETTINGS, "--checkpoint", str(checkpoint), "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert 0 < answer["half_width"] <= answer["attacked"] and answer["dimension"] == 330
    assert answer["status"] == "converged"
    short = run(app, ["margin", *SETTINGS, "--checkpoint", str(checkpoint), "--seconds", "1e-9"])
    assert short.exit_code == 1 and "within 1e-09 s" in short.stdout
    never = run(app, ["margin", *SETTINGS, "--checkpoint", str(checkpoint), "--seconds", "0"])
    assert "seconds=0" in str(never.exception)
    problem = tw.load_problem("digits", network="mlp", width=4, train_size=3)
    for tensor in problem.model.parameters():
        nn.init.zeros_(tensor)
    save_file(problem.model.state_dict(), tmp_path / "zero.safetensors")
    wrong = run(app, ["margin", *SETTINGS, "--checkpoint", str(tmp_path / "zero.safetensors")])
    assert wrong.exit_code == 1 and "not correctly classified" in wrong.stdout


def test_degeneracy_prints_rank_and_split(checkpoint):
    found = run(app, ["degeneracy", *SETTINGS, "--checkpoint", str(checkpoint), "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["weights"] - answer["rank"] == answer["nullity"] == sum(answer["split"].values())
    assert torch.get_default_dtype() == torch.float32
    shown = run(app, ["degeneracy", *SETTINGS, "--checkpoint", str(checkpoint)])
    assert "more weights than equations" in shown.stdout


def test_flatness_prints_a_row_a_measure_for_each_checkpoint(checkpoint):
    twice = [
        "flatness",
        *SETTINGS,
        "--checkpoint",
        str(checkpoint),
        "--checkpoint",
        str(checkpoint),
    ]
    few = ["--pairs", "2", "--copies", "6"]
    found = run(app, [*twice, *few, "--json"])
    assert found.exit_code == 0, found.output
    first, second = json.loads(found.stdout)["checkpoints"]
    assert first["measures"] == second["measures"]
    assert {m["name"] for m in first["measures"]} == {
        *("average", "worst", "eigenvalue", "trace", "loss noise", "error noise"),
    }
    shown = run(app, [*twice, *few])
    assert shown.stdout.count("permutation, rescaling") == 2 * 8
