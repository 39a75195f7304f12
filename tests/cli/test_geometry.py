"""The commands surface and spectrum on a problem small enough for its answers to be known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from thalweg.cli.main import app
from thalweg.dynamics import train
from thalweg.errors import CheckpointMismatch, CheckpointRefused, InvalidArgument, RunConflict
from thalweg.plots.grids import what_is_off
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import open_run, read_checkpoint

# The loss of a linear model is a bowl: its Hessian is known and the same everywhere.
PROBLEM = """
import torch
from torch import nn
from thalweg import Problem

def make(outputs=1):
    x = torch.linspace(-1, 1, 36).reshape(12, 3).sin()
    model = nn.Linear(3, outputs)
    return Problem(model, nn.MSELoss(), (x, x[:, :1].repeat(1, outputs)), (x[:5], x[:5, :1]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A problem, three points, and a training of it, to be read only."""
    place = tmp_path_factory.mktemp("work")
    (place / "bowl.py").write_text(PROBLEM)
    risk = EmpiricalRisk(load_problem(f"{place / 'bowl.py'}:make"))
    for number in range(3):
        state = {"weight": torch.eye(3)[number : number + 1], "bias": torch.tensor([0.1])}
        torch.save(state, place / f"w{number}.pt")
    w = torch.tensor([0.0, 1.0, -1.0, 0.5])
    options = {"lr": 0.05, "batch_size": 4, "epochs": 8, "every": 3}
    train(risk, w, run=place / "trained", trajectory="seed0", **options)
    return place


@pytest.fixture
def work(folder, tmp_path, monkeypatch):
    """An empty current folder, from which `bowl` names the problem."""
    monkeypatch.chdir(tmp_path)
    # Pages are tested elsewhere, and cost more than the rest.
    monkeypatch.setattr("thalweg.report.write_report", lambda run: run.path / "report.html")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def answer(*arguments):
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def bowl(work):
    return f"{work / 'bowl.py'}:make"


def risk_of(work, **options):
    return EmpiricalRisk(load_problem(bowl(work)), **options)


def test_a_surface_through_three_points_is_the_risk_there(work):
    files = [word for n in range(3) for word in ("--checkpoint", work / f"w{n}.pt")]
    options = ("--points", 5, "--extent", "0,1", "--extent=-1,1", "--dtype", "float64")
    found = answer("surface", bowl(work), *files, *options, "--out", "r")
    assert set(found) == {"run", "report", "surface"}
    grid, risk = found["surface"]["grid"], risk_of(work, dtype=torch.float64)
    assert np.shape(grid["loss"]) == (5, 5)
    points = torch.eye(4, dtype=torch.float64)[:3]
    points[:, 3] = 0.1
    assert grid["loss"][0][2] == pytest.approx(risk.value(points[0]), rel=1e-6)
    assert grid["loss"][4][2] == pytest.approx(risk.value(points[1]), rel=1e-6)
    shown = found["surface"]["shown_points"]
    assert shown["name"] == ["w0", "w1", "w2"]
    assert shown["loss"][2] == pytest.approx(risk.value(points[2]), rel=1e-6)
    assert shown["position"][2] == pytest.approx([0.5, math.sqrt(3) / 2], rel=1e-6)
    assert found["surface"]["measured"].keys() == {"loss", "test_loss"}


def test_the_trajectory_of_a_run_is_shown_on_its_principal_plane(work):
    found = answer("surface", bowl(work), "--run", work / "trained", "--points", 7)["surface"]
    assert "principal components of the trajectory seed0" in found["directions"]
    assert 0.9 < found["trajectory_variance_share"] <= 1 + 1e-12
    shown, grid = found["shown_points"], found["grid"]
    assert shown["trajectory"] == ["seed0"] * len(shown["step"]) and shown["step"][0] == 0
    assert shown["position"][-1] == pytest.approx([0, 0], abs=1e-6)
    assert 0.0 in grid["x"] and 0.0 in grid["y"], "the end of the trajectory is a cell"
    centre = grid["loss"][grid["x"].index(0.0)][grid["y"].index(0.0)]
    assert centre == shown["loss"][-1] == found["measured"]["loss"]["centre"]
    assert all(grid["x"][0] < x < grid["x"][-1] for x, _ in shown["position"])


@pytest.mark.parametrize(
    ("options", "shape", "rule"),
    [
        (["--directions", "random", "--dims", "1"], (51,), "scaled to the weights by filter"),
        (["--normalize", "layer", "--seed", "3", "--points", "3"], (3, 3), "by layer"),
        (["--normalize", "none", "--points", "3"], (3, 3), "not scaled"),
        (["--directions", "eigen", "--points", "4", "--points", "3"], (4, 3), "eigenvectors"),
        (["--dims", "3", "--points", "3", "--no-test"], (3, 3, 3), "random"),
        (["--dims", "1", "--split", "test", "--batchnorm", "frozen"], (51,), "random"),
    ],
)
def test_directions_and_grids(work, options, shape, rule):
    found = answer("surface", bowl(work), "--checkpoint", work / "w0.pt", *options)["surface"]
    assert np.shape(found["grid"]["loss"]) == shape and found["cells"] == math.prod(shape)
    assert rule in found["directions"]
    assert ("test_loss" in found["grid"]) == ("--no-test" not in options and "test" not in options)


def test_eigenvectors_reach_to_where_the_bowl_has_risen_by_one(work):
    options = ("--directions", "eigen", "--dims", 1, "--points", 3, "--dtype", "float64")
    found = answer("surface", bowl(work), "--checkpoint", work / "w0.pt", *options)["surface"]
    losses, steepest = found["grid"]["loss"], found["extent"]["x"][1]
    hessian = torch.linalg.eigvalsh(dense_hessian(work))
    assert steepest == pytest.approx(min(math.sqrt(2 / hessian[-1]), 0.5 * math.sqrt(1.01)))
    rise = losses[0] + losses[2] - 2 * losses[1]
    assert rise == pytest.approx(float(hessian[-1]) * steepest**2, rel=1e-6)


def dense_hessian(work):
    x, _ = load_problem(bowl(work)).train
    features = torch.cat([x.double(), torch.ones(12, 1, dtype=torch.float64)], 1)
    return 2 * features.T @ features / 12


def test_a_spectrum_has_the_known_eigenvalues_density_and_trace(work):
    options = ("--density", "--probes", 40, "--steps", 4, "--trace", "--dtype", "float64", "-k", 4)
    found = answer("spectrum", bowl(work), "--checkpoint", work / "w0.pt", *options)["spectrum"]
    exact = torch.linalg.eigvalsh(dense_hessian(work)).flip(0)
    values = [row["value"] for row in found["eigenvalues"]]
    assert values == pytest.approx(exact.tolist(), rel=1e-6, abs=1e-9)
    assert all(row["residual"] < 1e-6 for row in found["eigenvalues"])
    assert found["trace"]["value"] == pytest.approx(float(exact.sum()), rel=1e-9)
    assert found["size"] == 4 and found["status"] == "converged"
    near = int((exact.abs() <= found["near_zero"]["threshold"]).sum())
    assert found["near_zero"]["low"] <= near <= found["near_zero"]["high"]


@pytest.mark.parametrize(
    "options",
    [
        ["-k", "2", "--which", "smallest", "--rtol", "0.01", "--dtype", "float64"],
        ["-k", "3", "--which", "both", "--seed", "5", "--dtype", "float64"],
        ["-k", "1", "--operator", "gauss-newton", "--dtype", "float64"],
    ],
)
def test_ends_of_the_spectrum(work, options):
    found = answer("spectrum", bowl(work), "--checkpoint", work / "w0.pt", *options)["spectrum"]
    exact = torch.linalg.eigvalsh(dense_hessian(work)).flip(0)
    wanted = {"2": exact[2:], "3": exact[[0, 1, 3]], "1": exact[:1]}[options[1]]
    values = [row["value"] for row in found["eigenvalues"]]
    assert values == pytest.approx(wanted.tolist(), rel=0.02, abs=1e-6)


def test_the_spectrum_at_the_end_of_a_trajectory(work):
    found = answer("spectrum", bowl(work), "--run", work / "trained", "-k", 1)
    assert found["spectrum"]["eigenvalues"][0]["value"] == pytest.approx(
        float(torch.linalg.eigvalsh(dense_hessian(work))[-1]), rel=1e-3
    )


def test_a_report_is_written(folder, tmp_path):
    place = ("-k", 1, "--out", tmp_path / "r")
    page = Path(
        answer("spectrum", bowl(folder), "--checkpoint", folder / "w0.pt", *place)["report"]
    )
    assert 'id="spectrum"' in page.read_text()


def test_people_get_tables(work):
    words = invoke("surface", bowl(work), "--checkpoint", work / "w0.pt", "--points", 3).stdout
    assert "0 of them not finite" in words and "lowest at" in words and "Report:" in words
    options = ("--density", "--probes", 3, "--steps", 3, "--trace")
    words = invoke("spectrum", bowl(work), "--checkpoint", work / "w0.pt", *options).stdout
    assert "residual" in words and "(standard error)" in words and "trace:" in words
    assert "{" not in words


def test_the_same_command_goes_on_with_its_run_and_another_gets_another(work):
    command = ("surface", bowl(work), "--checkpoint", work / "w0.pt", "--points", 3)
    first, again = answer(*command), answer(*command)
    other = answer(*command, "--seed", 1)
    assert first == again
    assert other["run"] != first["run"]
    assert other["surface"]["grid"]["loss"] != first["surface"]["grid"]["loss"]
    with pytest.raises(RunConflict, match=r"surface\.seed"):
        invoke(*command, "--seed", 2, "--out", first["run"])


def test_other_weights_under_the_same_name_are_not_taken_for_these(work, tmp_path):
    torch.save(torch.load(work / "w0.pt"), tmp_path / "w.pt")
    command = ("surface", bowl(work), "--checkpoint", "w.pt", "--points", 3, "--out", "r")
    answer(*command)
    torch.save(torch.load(work / "w1.pt"), tmp_path / "w.pt")
    with pytest.raises(RunConflict, match=r"at\.digest"):
        invoke(*command)


@pytest.mark.parametrize("kind", ["surface", "spectrum"])
def test_resume_gives_the_same_results(work, kind):
    options = ("--points", 3) if kind == "surface" else ("--density", "--probes", 2, "--steps", 3)
    whole = answer(kind, bowl(work), "--checkpoint", work / "w0.pt", *options)
    run = open_run(whole["run"])
    before = {name: run.result(name) for name in whole_results(run)}
    (run.path / "summary.json").unlink()
    resumed = answer("resume", run.path, "--workers", 1)
    summary = {k: v for k, v in whole[kind].items() if k not in ("grid", "shown_points")}
    assert resumed["studies"] == {kind: summary}
    for name, data in before.items():
        assert run.result(name).identical(data)


def whole_results(run):
    return [node.path[1:] for node in run.results.leaves if node.has_data]


@pytest.mark.slow
def test_workers_find_the_same_surface(work):
    command = ("surface", bowl(work), "--checkpoint", work / "w0.pt", "--points", 9)
    here = answer(*command, "--out", "here")
    there = answer(*command, "--out", "there", "--workers", 2)
    assert here["surface"] == there["surface"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--directions", "sideways"], "sideways"),
        (["--extent", "far"], "LOW,HIGH"),
        (["--dims", "4"], "dims"),
        (["--trajectory", "seed0"], "--run RUN"),
        (["--set", "width"], "NAME=VALUE"),
    ],
)
def test_wrong_use_exits_with_two(work, arguments, words):
    done = invoke("surface", bowl(work), "--checkpoint", work / "w0.pt", *arguments)
    assert done.exit_code == 2 and words in done.output


def test_a_problem_must_be_named(work):
    done = invoke("spectrum", "--checkpoint", work / "w0.pt")
    assert done.exit_code == 2 and "no problem is named" in done.output


@pytest.mark.parametrize(
    ("command", "arguments", "error", "words"),
    [
        ("surface", [], InvalidArgument, "--checkpoint FILE"),
        ("surface", ["--checkpoint", "gone.pt"], CheckpointRefused, "gone.pt is not there"),
        ("surface", ["W0", "--directions", "principal"], InvalidArgument, "--run RUN"),
        ("surface", ["W0", "--directions", "points"], InvalidArgument, "--checkpoint twice"),
        ("surface", ["W0", "W1", "--directions", "eigen"], InvalidArgument, "2 checkpoints"),
        ("surface", ["W0", "--points", "2"], InvalidArgument, "at least 3"),
        ("surface", ["W0", "--points", "3", "--extent", "1,0"], InvalidArgument, "low end"),
        ("surface", ["W0", "--set", "outputs=2"], CheckpointMismatch, "of another shape"),
        ("surface", ["RUN", "--trajectory", "seed9"], InvalidArgument, "one of: seed0"),
        ("spectrum", ["W0", "-k", "0"], InvalidArgument, "nothing is asked for"),
        ("spectrum", ["W0", "--rtol", "2"], InvalidArgument, "rtol=2.0"),
        ("spectrum", ["W0", "--density", "--near-zero", "0"], InvalidArgument, "near_zero=0"),
    ],
)
def test_what_cannot_be_done_is_said(work, command, arguments, error, words):
    short = {
        "W0": ["--checkpoint", work / "w0.pt"],
        "W1": ["--checkpoint", work / "w1.pt"],
        "RUN": ["--run", work / "trained"],
    }
    given = [word for one in arguments for word in short.get(one, [one])]
    with pytest.raises(error, match=words):
        invoke(command, bowl(work), *given)


CORNERS = [word for n in range(3) for word in ("--checkpoint", f"w{n}.pt")]


def around_three_points(work, *options):
    files = [work / word if word.endswith(".pt") else word for word in CORNERS]
    arguments = (bowl(work), *files, "--run", work / "trained", "--points", 9, *options)
    return answer("surface", *arguments)["surface"], invoke("surface", *arguments).stdout


def test_a_trajectory_is_shown_whole_on_a_plane_that_is_not_its_own(work):
    found, said = around_three_points(work)
    shown, grid, way = found["shown_points"], found["grid"], found["trajectory"]
    path = np.array(shown["position"])[np.array(shown["trajectory"]) == "seed0"]
    ends = np.array([[grid[name][0], grid[name][-1]] for name in "xy"])
    assert ((path > ends[:, 0]) & (path < ends[:, 1])).all()
    assert way["outside"] == 0 and way["checkpoints"] == len(path)
    assert f"trajectory seed0: 0 of {len(path)} checkpoints outside the picture" in said
    # The plane through w0, w1 and w2 is that of weights with sum 1 and bias 0.1.
    states = [risk_of(work).space.pack(tensors_of(path)) for path in run_files(work)]
    off = [math.hypot((float(w[:3].sum()) - 1) / math.sqrt(3), float(w[3]) - 0.1) for w in states]
    assert way["off_by"] == pytest.approx(max(off), rel=1e-5)
    assert f"up to {way['off_by']:.4g} weight units off it" in said


def run_files(work):
    return open_run(work / "trained").checkpoints("seed0")


def tensors_of(path):
    return read_checkpoint(path)[0]


def test_a_trajectory_that_leaves_the_picture_is_said_to(work):
    found, said = around_three_points(work, "--extent=-0.1,1", "--extent=-0.1,0.9")
    shown, grid, way = found["shown_points"], found["grid"], found["trajectory"]
    path = np.array(shown["position"])[np.array(shown["trajectory"]) == "seed0"]
    ends = np.array([[grid[name][0], grid[name][-1]] for name in "xy"])
    beyond = int(((path < ends[:, 0]) | (path > ends[:, 1])).any(axis=1).sum())
    assert 0 < beyond == way["outside"]
    assert f"{beyond} of {len(path)} checkpoints outside" in said
    run = open_run(found_run(work, said))
    title = what_is_off(run.result("surface/surface"), run.result("surface/points"))
    assert title.startswith(f"seed0: {beyond} of {len(path)} checkpoints outside, up to")


def found_run(work, said):
    (line,) = [line for line in said.splitlines() if line.startswith("Results:")]
    return Path(line.split(maxsplit=1)[1].partition("/results.zarr")[0])


def test_points_are_named_by_folder_and_step(work, tmp_path):
    first, *_, last = run_files(work)
    found = answer("surface", bowl(work), "--checkpoint", last, "--checkpoint", first)["surface"]
    assert found["shown_points"]["name"] == [f"seed0/{int(last.stem)}", "seed0/0"]
