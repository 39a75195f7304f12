"""Where a landscape is looked at from: the risk stands at the point of the file, whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import CheckpointRefused, InvalidArgument
from thalweg.measurements.driver import RISK
from thalweg.measurements.places import place, trajectory_in
from thalweg.measurements.point import load_measured_point
from thalweg.problems import load_problem

ENTRY = """
import torch
from torch import nn
from thalweg import Problem


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    model.train()(torch.randn(50, 4) * (1 + seed))
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(5))
    return Problem(model, nn.CrossEntropyLoss(), (x, (x.sum(1) > 0).long()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "mine.py").write_text(ENTRY)
    (folder / "ckpt").mkdir()
    for step in (0, 5, 10):
        model = load_problem(f"{folder / 'mine.py'}:make", seed=step + 1).model
        content = {"step": step, "model": model.state_dict()}
        torch.save(content, folder / "ckpt" / f"w{step}.pt")
    return folder


def spec(folder, at, **risk):
    problem = {"entry": f"{folder / 'mine.py'}:make", "settings": {}}
    return {"problem": problem, "at": at, "risk": {**RISK, **risk}, "evaluation_batch": 20}


def model_of(folder, step):
    return load_problem(f"{folder / 'mine.py'}:make", seed=step + 1).model.eval()


def loss(folder, model):
    x, y = load_problem(f"{folder / 'mine.py'}:make").train
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), y))


def test_the_risk_is_at_the_file(folder):
    at = place([folder / "ckpt" / "w5.pt"])
    seen = load_measured_point(spec(folder, at, batchnorm="frozen"))
    expected = loss(folder, model_of(folder, 5))
    assert seen.risk.value(seen.centre) == pytest.approx(expected, rel=1e-5)


def test_held_statistics_are_those_at_the_file(folder):
    at = place([folder / "ckpt" / "w5.pt"])
    seen = load_measured_point(spec(folder, at, batchnorm="held"))
    free = load_measured_point(spec(folder, at))
    assert seen.risk.policy == "held"
    assert seen.risk.value(seen.centre) == pytest.approx(free.risk.value(free.centre), rel=1e-5)
    moved = seen.centre + 0.5
    other = free.risk.held(free.centre).value(moved)
    assert seen.risk.value(moved) == pytest.approx(other, rel=1e-5)


def test_a_folder_is_a_trajectory(folder):
    at = place(run=folder / "ckpt")
    seen = load_measured_point(spec(folder, at))
    assert seen.steps == (0, 5, 10) and not seen.given and seen.trajectory == "ckpt"
    assert seen.path is not None and torch.equal(seen.path[-1], seen.centre)
    space = seen.risk.space
    assert torch.equal(seen.path[0], space.pack(model_of(folder, 0)))
    (note,) = [note for note in seen.notes if note.startswith("along the trajectory")]
    assert "2 frozen weights (0.bias, 0.weight)" in note and "those of w10" in note


def test_a_list_in_order_is_a_trajectory(folder):
    files = [folder / "ckpt" / f"w{step}.pt" for step in (10, 0)]
    seen = load_measured_point(spec(folder, place(files, in_order=True)))
    assert seen.steps == (0, 1)  # names do not rise, so places in the list count
    assert torch.equal(seen.centre, seen.risk.space.pack(model_of(folder, 0)))


def test_other_weights_under_the_same_names_are_other_points(folder, tmp_path):
    path = tmp_path / "w.pt"
    torch.save(model_of(folder, 0).state_dict(), path)
    before = place([path])
    torch.save(model_of(folder, 5).state_dict(), path)
    assert place([path])["digest"] != before["digest"]
    assert "opening" not in before and place([path], entry="ema")["opening"] == {"entry": "ema"}


def test_what_is_no_trajectory_says_so(folder, tmp_path):
    with pytest.raises(InvalidArgument, match="leave out --trajectory late"):
        trajectory_in(folder / "ckpt", "late")
    with pytest.raises(tw.ThalwegError, match="is not a run"):
        trajectory_in(tmp_path)
    torch.save({}, tmp_path / "w.pt")
    with pytest.raises(CheckpointRefused, match="at least two"):
        trajectory_in(tmp_path)
