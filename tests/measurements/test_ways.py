"""Surfaces along an optimizer's moments, and of several trainings on one plane."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app
from thalweg.landscape import ParameterSpace
from thalweg.measurements.optimizer_moments import optimizer_moments, orthonormal
from thalweg.run import open_run

SETTINGS = {"network": "mlp", "width": 4, "train_size": 30, "test_size": 20}
WORDS = [w for k, v in SETTINGS.items() for w in ("--set", f"{k}={v}")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    problem = tw.load_problem("digits", **SETTINGS)
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(problem.model)
    for name, how in (("adam", {"lr": 0.01}), ("sgd", {"lr": 0.1})):
        options = {"batch_size": 10, "epochs": 2, "run": folder / name, "trajectory": name}
        tw.train(risk, w, optimizer=name, **how, **options)
    return folder, risk


def invoke(*words):
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    return done


def last(folder, name):
    return open_run(folder / name).checkpoints(name)[-1]


def test_the_moments_are_those_that_the_optimizer_kept(runs):
    from safetensors.torch import load_file

    folder, risk = runs
    found = optimizer_moments(last(folder, "adam"), risk.space)
    kept = load_file(last(folder, "adam"))
    mean = kept["thalweg/optimizer/state.0.exp_avg"].double()
    square = kept["thalweg/optimizer/state.0.exp_avg_sq"].double()
    torch.testing.assert_close(found.directions[0], mean)
    moved = square > 1e-12
    expected = mean / square.sqrt()
    torch.testing.assert_close(found.directions[1][moved], expected[moved], rtol=1e-3, atol=1e-5)
    (momentum,) = optimizer_moments(last(folder, "sgd"), risk.space).directions
    torch.testing.assert_close(
        momentum,
        load_file(last(folder, "sgd"))["thalweg/optimizer/state.0.momentum_buffer"].double(),
    )


def test_moments_are_refused_in_words(runs, tmp_path):
    folder, risk = runs
    torch.save(risk.space.unpack(torch.zeros(risk.space.size)), tmp_path / "plain.pt")
    with pytest.raises(tw.ThalwegError, match=r"recorded checkpoint"):
        optimizer_moments(tmp_path / "plain.pt", risk.space)
    with pytest.raises(tw.ThalwegError, match=r"keeps no moments"):
        optimizer_moments(last(folder, "adam"), ParameterSpace.euclidean(3))
    with pytest.raises(tw.ThalwegError, match="parallel"):
        orthonormal(torch.ones(4, 2))
    basis = orthonormal(torch.tensor([[2.0, 1.0], [0.0, -1.0]]))
    assert torch.equal(basis, torch.tensor([[1.0, 0.0], [0.0, -1.0]]))


def test_a_plane_along_the_moments_and_another_training_on_it(runs, tmp_path):
    folder, _ = runs
    words = ["surface", "digits", *WORDS, "--run", str(folder / "adam"), "--points", "3"]
    words += ["--directions", "moments", "--also", f"{folder / 'sgd'}:sgd", "--json"]
    done = invoke(*words, "--out", str(tmp_path / "r"))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["surface"]
    assert "mean of gradients" in found["directions"]
    assert [way["name"] for way in found["trajectories"]] == ["adam", "sgd"]
    points = open_run(tmp_path / "r").result("surface/points")
    steps = {
        name: points["step"].values[points["trajectory"].values == name] for name in ("adam", "sgd")
    }
    assert all(list(step) == [0, 3, 6] for step in steps.values())
    start = [points.sel(point=points["trajectory"].values == name).isel(point=0) for name in steps]
    assert float(start[0]["distance"]) == pytest.approx(float(start[1]["distance"]), rel=1e-5)
    assert float(points["distance"].max()) > 0.1, "trainings leave the plane, and it is said"


def test_a_training_that_is_not_there_is_refused_and_nothing_is_left(runs, tmp_path, monkeypatch):
    folder, _ = runs
    monkeypatch.chdir(tmp_path)
    words = ["surface", "digits", *WORDS, "--run", str(folder / "adam"), "--points", "3"]
    with pytest.raises(tw.ThalwegError, match="nothere is not a run"):
        invoke(*words, "--also", "nothere")
    other = ["surface", "digits", "--set", "network=mlp", "--set", "width=5", *words[10:]]
    with pytest.raises(tw.ThalwegError, match="does not fit"):
        invoke(*other)
    assert list(tmp_path.iterdir()) == []
