"""``thalweg barrier``: what it prints of a line, and how it refuses."""

from __future__ import annotations

import json
from functools import partial
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


@pytest.fixture
def short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let alignments and curves take few steps."""
    import thalweg.connectivity as rooms

    monkeypatch.setattr(rooms, "align", partial(rooms.align, steps=30, restarts=2))
    monkeypatch.setattr(rooms, "connect", partial(rooms.connect, steps=30))


@pytest.mark.usefixtures("short_searches")
def test_the_second_network_is_aligned_and_a_curve_is_looked_for(
    ends: list[str], tmp_path: Path
) -> None:
    mean = tmp_path / "mean.pt"
    words = ["barrier", "digits", *SETTINGS, *ends, "--points", "5", "--align", "--curve", "chain"]
    done = CliRunner().invoke(app, [*words, "--json", "--mean", str(mean)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[0])
    plain = CliRunner().invoke(
        app, ["barrier", "digits", *SETTINGS, *ends, "--points", "5", "--json"]
    )
    without = json.loads(plain.stdout)
    alignment, path = found["alignment"], found["curve"]
    assert alignment["losses"]["aligned"] < alignment["losses"]["unaligned"]
    assert alignment["cost"] != alignment["unaligned"] and alignment["difference"] < 1e-6
    assert sorted(alignment["permutations"]["conv1"]) == [0, 1, 2, 3]
    # The aligned network has its own loss at the end of the line, and stands elsewhere.
    assert found["line"]["loss"][-1] == pytest.approx(without["line"]["loss"][-1], rel=1e-5)
    assert found["line"]["loss"][2] != without["line"]["loss"][2]
    assert alignment["unaligned_barriers"]["loss"] == without["loss"]["barrier"]
    assert path["kind"] == "chain" and path["highest"] <= path["line_highest"]
    assert path["line_highest"] >= max(found["line"]["loss"]) - path["error"] - 1e-9
    problem = tw.load_problem("digits", widths=[4, 4], train_size=60, test_size=30)
    risk = tw.EmpiricalRisk(problem)
    merged = tw.open_point(problem, mean).load_into(risk)
    assert risk.value(merged) == pytest.approx(found["line"]["loss"][2], rel=1e-4)
    table = CliRunner().invoke(app, words)
    assert "the second network is aligned to the first: squared distance" in table.stdout
    assert "chain path (" in table.stdout and "the straight line" in table.stdout


def test_alignments_and_curves_are_between_two_networks(ends: list[str]) -> None:
    third = [*ends, *ends[:2]]
    done = CliRunner().invoke(app, ["barrier", "digits", *SETTINGS, *third, "--align"])
    assert "--align and --curve are between two networks" in str(done.exception)
    done = CliRunner().invoke(app, ["barrier", "digits", *SETTINGS, *ends, "--curve", "arc"])
    assert "--curve arc; write one of bezier, chain, band" in str(done.exception)
