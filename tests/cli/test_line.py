"""``thalweg barrier``: what it prints of a line, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app

SETTINGS = ["--set", "widths=[4,4]", "--set", "train_size=60", "--set", "test_size=30"]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two networks of different seeds, as checkpoints of another program."""
    folder = tmp_path_factory.mktemp("ends")
    paths = [folder / f"{seed}.pt" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        problem = tw.load_problem("digits", widths=[4, 4], seed=seed)
        torch.save(problem.model.state_dict(), path)
    return [word for path in paths for word in ("--checkpoint", str(path))]


def test_json_is_the_line_of_the_library(ends: list[str]) -> None:
    done = CliRunner().invoke(
        app, ["barrier", "digits", *ends, *SETTINGS, "--points", "3", "--json"]
    )
    answer = json.loads(done.stdout)
    problem = tw.load_problem("digits", widths=[4, 4], train_size=60, test_size=30)
    risk = tw.EmpiricalRisk(problem)
    w0, w1 = (
        risk.space.pack(tw.load_problem("digits", widths=[4, 4], seed=seed).model)
        for seed in (0, 1)
    )
    found = tw.barrier(risk, w0, w1, points=3)
    assert answer["line"]["t"] == [0.0, 0.5, 1.0]
    assert answer["line"]["loss"] == pytest.approx(found["loss"].values.tolist(), rel=1e-5)
    assert answer["test_error"]["barrier"] == pytest.approx(
        float(found["barrier"].sel(quantity="test_error")), abs=1e-6
    )
    assert "re-estimated" in answer["about"]["batchnorm"]


def test_the_table_says_what_errors_leave_out(ends: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "line.png"
    words = ["--points", "3", "--no-test", "--picture", str(picture)]
    done = CliRunner().invoke(app, ["barrier", "digits", *ends, *SETTINGS, *words])
    assert done.exit_code == 0, done.output
    assert "barrier: highest above the chord" in done.stdout
    assert "include the choice of the highest point" in done.stdout
    assert "(standard error), 95% " in done.stdout
    assert "test loss" not in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_checkpoint_is_no_line(ends: list[str]) -> None:
    done = CliRunner().invoke(app, ["barrier", "digits", *ends[:2]])
    assert done.exit_code == 2 and "two ends" in done.output


def test_frozen_statistics_are_refused(ends: list[str]) -> None:
    words = [*ends, *SETTINGS, "--batchnorm", "frozen"]
    done = CliRunner().invoke(app, ["barrier", "digits", *words])
    assert done.exit_code == 1 and "re-estimates" in str(done.exception)


@pytest.mark.parametrize("name", ["mean.pt", "mean.safetensors"])
def test_the_mean_of_both_is_written_and_opens_as_a_checkpoint(
    ends: list[str], tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    words = ["--points", "3", "--no-test", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, ["barrier", "digits", *ends, *SETTINGS, *words])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["one_basin"]["verdict"] in ("one basin", "a barrier", "undecided")
    problem = tw.load_problem("digits", widths=[4, 4], train_size=60, test_size=30)
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen")
    w = tw.open_point(problem, out).load_into(risk)
    assert risk.value(w) == pytest.approx(answer["line"]["loss"][1], rel=1e-5)


def test_the_verdict_stands_below_the_table(ends: list[str]) -> None:
    words = ["--points", "3", "--no-test", "--allowed", "1.5"]
    done = CliRunner().invoke(app, ["barrier", "digits", *ends, *SETTINGS, *words])
    assert "one basin along the straight line: error barrier" in done.stdout
