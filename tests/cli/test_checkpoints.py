"""Commands and the files they take: whole states, entries, parts, folders; errors of one line."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import thalweg as tw
from thalweg.cli.main import app

ENTRY = """
import torch
from torch import nn
from thalweg import Problem


def data():
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(5))
    return x, (x.sum(1) > 0).long()


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 2))
    model[0].requires_grad_(False)
    return Problem(model, nn.CrossEntropyLoss(), data())


def regression(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))
    model[0].requires_grad_(False)
    x, y = data()
    return Problem(model, nn.MSELoss(), (x, y[:, None].float()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.py").write_text(ENTRY)
    return folder


def make(folder: Path, seed: int) -> nn.Module:
    return tw.load_problem(f"{folder / 'mine.py'}:make", seed=seed).model


def loss(folder: Path, model: nn.Module) -> float:
    x, y = tw.load_problem(f"{folder / 'mine.py'}:make").train
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), y))


@pytest.fixture(scope="module")
def training(folder: Path) -> Path:
    """Save a training as another tool does: names out of order, values beside the weights."""
    place = folder / "ckpt"
    place.mkdir()
    model = make(folder, 7)
    x, y = tw.load_problem(f"{folder / 'mine.py'}:make").train
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for epoch in (0, 2, 10):
        content = {"net": model.state_dict(), "epoch": epoch, "args": argparse.Namespace(lr=0.1)}
        torch.save(content, place / f"epoch_{epoch}.pt")
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    torch.save(content, place / "best.pt")
    return place


def thalweg(folder: Path, *words: str, entry: str = "make") -> Result:
    command, *rest = words
    return CliRunner().invoke(app, [command, f"{folder / 'mine.py'}:{entry}", *rest])


def test_barriers_join_each_to_the_next(folder, training):
    done = thalweg(folder, "barrier", "--run", str(training), "--points", "3", "--json")
    lines = json.loads(done.stdout)["lines"]
    ends = [(Path(line["from"]).stem, Path(line["to"]).stem) for line in lines]
    assert ends == [("epoch_0", "epoch_2"), ("epoch_2", "epoch_10")]
    models = [make(folder, 0) for _ in range(3)]
    for model, epoch in zip(models, (0, 2, 10), strict=True):
        content = torch.load(training / f"epoch_{epoch}.pt", weights_only=False)
        model.load_state_dict(content["net"])
    expected = [loss(folder, model) for model in models]
    found = [lines[0]["line"]["loss"][0], *(line["line"]["loss"][-1] for line in lines)]
    assert found == pytest.approx(expected, rel=1e-5)
    assert any("the weights are those of its entry 'net'" in n for n in lines[0]["about"]["notes"])
    shown = thalweg(folder, "barrier", "--run", str(training), "--points", "3")
    assert "epoch_2.pt" in shown.stdout and "3 files from" in shown.stdout


def test_one_line_is_of_two_ends(folder, training):
    done = thalweg(folder, "barrier", "--checkpoint", str(training / "best.pt"))
    assert done.exit_code == 2 and "two ends" in done.output
    both = ["--checkpoint", str(training / "best.pt"), "--run", str(training)]
    assert thalweg(folder, "barrier", *both).exit_code == 2


@pytest.mark.parametrize("way", ["run", "pattern", "list"])
def test_a_surface_along_plain_files(folder, training, tmp_path, way):
    files = [str(training / f"epoch_{epoch}.pt") for epoch in (0, 2, 10)]
    words = {
        "run": ["--run", str(training)],
        "pattern": ["--run", str(training / "epoch_*.pt")],
        "list": [w for f in files for w in ("--checkpoint", f)] + ["--directions", "principal"],
    }[way]
    out = tmp_path / "run"
    done = thalweg(folder, "surface", *words, "--points", "3", "--json", "--out", str(out))
    answer = json.loads(done.stdout)["surface"]
    assert "principal components of the trajectory ckpt" in answer["directions"]
    assert answer["shown_points"]["step"] == [0, 2, 10]
    model = make(folder, 0)
    for place, file in zip(answer["shown_points"]["loss"], files, strict=True):
        model.load_state_dict(torch.load(file, weights_only=False)["net"])
        assert place == pytest.approx(loss(folder, model), rel=1e-5)
    assert answer["measured"]["loss"]["centre"] == pytest.approx(loss(folder, model), rel=1e-5)


def test_a_plane_through_three_files_with_other_frozen_layers(folder, tmp_path):
    models = [make(folder, seed) for seed in (1, 2, 3)]
    for seed, model in enumerate(models):
        torch.save(model.state_dict(), tmp_path / f"m{seed}.pt")
    files = [w for seed in range(3) for w in ("--checkpoint", str(tmp_path / f"m{seed}.pt"))]
    out = tmp_path / "run"
    done = thalweg(folder, "surface", *files, "--points", "5", "--json", "--out", str(out))
    answer = json.loads(done.stdout)["surface"]
    expected = [loss(folder, model) for model in models]
    assert answer["shown_points"]["loss"] == pytest.approx(expected, rel=1e-5)
    assert answer["measured"]["loss"]["centre"] == pytest.approx(expected[0], rel=1e-5)
    assert any("2 frozen weights, interpolated" in note for note in answer["notes"])


def test_the_spectrum_is_of_the_files_network(folder, training, tmp_path):
    checkpoint = training / "epoch_10.pt"
    words = ["--checkpoint", str(checkpoint), "-k", "1", "--json", "--out", str(tmp_path / "run")]
    found = json.loads(thalweg(folder, "spectrum", *words).stdout)["spectrum"]
    problem = tw.load_problem(f"{folder / 'mine.py'}:make", seed=7)
    risk = tw.EmpiricalRisk(problem)
    w = tw.open_point(problem, checkpoint).weights(risk.space)
    largest = torch.linalg.eigvalsh(risk.hessian(w).to_dense())[-1]
    assert found["eigenvalues"][0]["value"] == pytest.approx(float(largest), rel=1e-3)


def test_an_exact_zero_of_the_files_network(folder, tmp_path):
    problem = tw.load_problem(f"{folder / 'mine.py'}:regression", seed=3)
    model, (x, y) = problem.model.double(), problem.train
    hidden = torch.tanh(model[0](x.double())).detach()
    design = torch.cat([hidden, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    answer = torch.linalg.lstsq(design, y.double(), driver="gelsd").solution
    with torch.no_grad():
        model[2].weight.copy_(answer[:-1].T)
        model[2].bias.copy_(answer[-1])
    torch.save(model.state_dict(), tmp_path / "zero.pt")
    words = ["--checkpoint", str(tmp_path / "zero.pt"), "--json"]
    found = json.loads(thalweg(folder, "certify", *words, entry="regression").stdout)
    assert found["verdict"] == "certified" and found["residual"] < 1e-12
    point = tw.open_point(problem, tmp_path / "zero.pt")
    assert found["checkpoint"]["sha256"] == point.sha256


@pytest.mark.parametrize("command", ["margin", "degeneracy"])
def test_flatness_is_of_the_files_network(folder, training, command):
    checkpoint = ["--checkpoint", str(training / "epoch_10.pt"), "--json"]
    found, expected = (
        json.loads(thalweg(folder, command, *checkpoint, *seed).stdout)
        for seed in ([], ["--set", "seed=7"])  # the second knows the frozen layer anyhow
    )
    key = {"margin": "half_width", "degeneracy": "above"}[command]
    assert found[key] == pytest.approx(expected[key], rel=1e-6)
    assert found["checkpoint"]["notes"] and found["checkpoint"]["from_the_problem"] == []


COMMANDS = ["barrier", "surface", "spectrum", "certify", "margin", "degeneracy"]


def refused(folder, command, file, *more):
    twice = 2 if command == "barrier" else 1
    files = ["--checkpoint", str(file)] * twice
    done = thalweg(folder, command, *files, *more)
    assert done.exit_code == 1 and isinstance(done.exception, tw.ThalwegError)
    assert "\n" not in str(done.exception)
    return str(done.exception)


@pytest.mark.parametrize("command", COMMANDS)
def test_ambiguous_partial_and_strange_files(folder, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = make(folder, 1).state_dict()
    average = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "ema": average}, tmp_path / "both.pt")
    assert "'model', 'ema'" in refused(folder, command, tmp_path / "both.pt")
    torch.save({n: t for n, t in state.items() if n[0] == "2"}, tmp_path / "head.pt")
    assert "--partial" in refused(folder, command, tmp_path / "head.pt")
    torch.save(make(folder, 1), tmp_path / "whole.pt")
    message = refused(folder, command, tmp_path / "whole.pt")
    assert "would run code" in message and "weights_only" not in message
    (tmp_path / "w.gguf").write_bytes(b"GGUF" + bytes(60))
    assert "GGUF" in refused(folder, command, tmp_path / "w.gguf")


def test_what_is_asked_for_is_taken_and_said(folder, tmp_path, caplog):
    state = make(folder, 1).state_dict()
    content = {"ema": {"2.weight": state["2.weight"] + 1, "2.bias": state["2.bias"]}}
    content |= {"model": state, "config": Opaque()}
    torch.save(content, tmp_path / "w.pt")
    words = ["--checkpoint", str(tmp_path / "w.pt"), "--entry", "ema", "--partial", "--json"]
    words += ["--allow", f"{Opaque.__module__}.Opaque"]
    with caplog.at_level(logging.WARNING, "thalweg"):
        found = json.loads(thalweg(folder, "degeneracy", *words).stdout)["checkpoint"]
    assert found["from_the_problem"] == ["0.weight", "0.bias"]
    assert any("2 tensors of 4 taken from the problem" in note for note in found["notes"])
    assert "2 tensors of 4 taken from the problem" in caplog.text


class Opaque:
    """Stands beside the weights in a file."""
