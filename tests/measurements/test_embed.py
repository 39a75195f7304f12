"""The command ``thalweg embed``: the same numbers as `thalweg.embed`, of several trainings."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app
from thalweg.measurements.embed import RECORD, RESULT
from thalweg.run import open_run

TEACHER = {"inputs": 2, "samples": 5, "widths": [3]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs, each with a training of the same name, and a file of another tool."""
    folder = tmp_path_factory.mktemp("trained")
    problem = tw.load_problem("teacher", **TEACHER)
    risk = tw.EmpiricalRisk(problem)
    start = risk.space.pack(problem.model)
    for number in range(2):
        w = start + number
        how = {"lr": 0.05, "batch_size": 5, "epochs": 4, "every": 2}
        tw.train(risk, w, run=folder / f"run{number}", trajectory="seed0", **how)
    torch.save(problem.model.state_dict(), folder / "own.pt")
    return folder, risk


def test_several_trainings_have_the_distances_and_losses_of_their_checkpoints(trained, tmp_path):
    folder, risk = trained
    settings = [
        w for key, value in TEACHER.items() for w in ("--set", f"{key}={json.dumps(value)}")
    ]
    places = ["--checkpoint", str(folder / "own.pt"), "--run", str(folder / "run0")]
    command = ["embed", "teacher", *settings, *places, "--also", str(folder / "run1")]
    command += ["--dims", "2", "--out", str(tmp_path / "r"), "--json"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found, data = json.loads(done.stdout)["embed"], open_run(tmp_path / "r").result(RESULT)
    assert found["embedding"]["trajectory"] == ["own", *["seed0"] * 3, *["run1, seed0"] * 3]
    assert [way["checkpoints"] for way in found["trajectories"]] == [1, 3, 3]
    files = [folder / "own.pt"]
    files += [file for n in range(2) for file in open_run(folder / f"run{n}").checkpoints("seed0")]
    plain = tw.embed(files, dims=2)
    for name in ("position", "distance", "stress", "fidelity"):
        assert (data[name].values == plain[name].values).all(), name
    weights = [tw.open_point(risk.problem, file).weights(risk.space).double() for file in files]
    apart = float((weights[0] - weights[-1]).norm())
    assert float(data["distance"][0, 0, -1]) == pytest.approx(apart, rel=1e-9)
    losses = [risk.value(w.to(risk.dtype)) for w in weights]
    assert data["loss"].values == pytest.approx(losses, rel=1e-6) and losses[0] != losses[-1]
    picture, table = RECORD.section(open_run(tmp_path / "r")).parts
    assert picture.interactive is None and not hasattr(picture.still.axes[0], "get_zlim")
    assert table.rows[0][0] == "network"
