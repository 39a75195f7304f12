"""Runs compared, their figures drawn again, their results written for other programs."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app
from thalweg.report.difference import compare_runs
from thalweg.report.redraw import animate_path, redraw_figures
from thalweg.run import create_run
from thalweg.run.files import write_json
from thalweg.run.netcdf import export_netcdf

CLAIM = {
    "name": "study/claim",
    "study": "study",
    "verdict": "supported",
    "statement": "It is so, mostly.",
    "source": "here",
    "rule": "at least 0.5",
    "section": "",
    "why": "",
    "statistic": {"name": "share", "value": 0.9, "low": 0.8, "high": 1.0, "units": "1", "n": 9},
    "controls": [{"description": "far off", "verdict": "refuted", "statistic": None}],
}


def surface():
    x = np.linspace(-1, 1, 5)
    loss = (x[:, None] ** 2 + x[None] ** 2, {"units": "loss"})
    grid = xr.Dataset(
        {"loss": (("x", "y"), loss[0] + 0.1), "loss_stderr": (("x", "y"), 0 * loss[0])},
        coords={"x": x, "y": x},
        attrs={
            "mode": "made",
            "notes": ["a", "b"],
            "relative": True,
            "direction_norms": [1.0, 1.0],
        },
    )
    grid["finite"] = (("x", "y"), np.isfinite(loss[0]))
    grid["samples"] = (("x", "y"), np.full((5, 5), 2**40))
    steps = [0, 1, 2, 0, 1]
    places = np.array([[0.5, 0], [0.3, 0], [0, 0], [0, 1], [0, 0.5]])
    points = xr.Dataset(
        {
            "position": (("point", "axis"), places),
            "loss": ("point", [0.3, 0.2, 0.1, 1.1, 0.3]),
            "distance": ("point", np.zeros(5)),
        },
        coords={
            "trajectory": ("point", ["adam"] * 3 + ["sgd"] * 2),
            "name": ("point", [""] * 5),
            "step": ("point", steps),
        },
    )
    return grid, points


@pytest.fixture
def runs(tmp_path):
    made = []
    for name, lr, value in (("first", 0.1, 0.9), ("last", 0.2, 0.4)):
        run = create_run(tmp_path / name, {"studies": ["study"], "training": {"lr": lr}})
        claim = {**CLAIM, "statistic": {**CLAIM["statistic"], "value": value, "low": value - 0.1}}
        claim["verdict"] = "supported" if value > 0.5 else "refuted"
        write_json(run.path / "claims.json", {"claims": [claim]})
        for part, data in zip(("surface", "points"), surface(), strict=True):
            run.save_result(f"surface/{part}", data)
        made.append(run)
    return made


def invoke(*words):
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_differs_between_two_runs_and_nothing_else(runs):
    first, last = runs
    found = compare_runs(first, last)
    assert found.verdicts == {"study/claim": ("supported", "refuted")}
    assert found.statistics["study/claim value"] == (0.9, 0.4)
    assert "study/claim high" not in found.statistics, "equal in both"
    assert found.settings == {"training.lr": (0.1, 0.2)} and not found.versions
    assert compare_runs(first, first).none
    assert invoke("diff", str(first.path), str(first.path)).startswith("Nothing differs.")
    assert "study/claim: supported -> refuted" in invoke("diff", *(str(r.path) for r in runs))
    answer = json.loads(invoke("diff", *(str(r.path) for r in runs), "--json"))
    assert answer["settings"] == {"training.lr": [0.1, 0.2]}


def test_claims_are_a_table(runs):
    table = runs[0].claims.to_dataframe()
    assert table.loc["study/claim", "verdict"].tolist() == ["supported", "refuted"]
    rows = list(csv.DictReader(io.StringIO(invoke("claims", str(runs[0].path), "--csv"))))
    assert [row["control"] for row in rows] == ["", "far off"]
    assert float(rows[0]["value"]) == 0.9 and rows[0]["statement"] == "It is so, mostly."


def test_figures_are_drawn_again(runs, tmp_path):
    (path, *_) = redraw_figures(runs[0], tmp_path / "pdf")
    assert path.read_bytes().startswith(b"%PDF")
    out = invoke("figures", str(runs[0].path), "--format", "svg", "--name", "surface")
    assert out.strip() == str(tmp_path / "first-figures" / "surface.svg")
    for wrong in ({"format": "doc"}, {"names": ["nothing"]}):
        with pytest.raises(tw.ThalwegError, match=r"write one of|there are surface"):
            redraw_figures(runs[0], tmp_path, **wrong)


def test_trajectories_go_over_the_surface(runs, tmp_path):
    from PIL import Image

    with Image.open(animate_path(runs[0], tmp_path / "way.gif")) as image:
        assert image.n_frames == 3
    with pytest.raises(tw.ThalwegError, match="ends in"):
        animate_path(runs[0], tmp_path / "way.mp4")


def test_results_become_netcdf(runs, tmp_path):
    written = export_netcdf(runs[0], tmp_path / "nc")
    assert {path.name for path in written} == {"surface-surface.nc", "surface-points.nc"}
    grid = xr.open_dataset(tmp_path / "nc" / "surface-surface.nc", engine="scipy")
    kept = runs[0].result("surface/surface")
    np.testing.assert_array_equal(grid["loss"], kept["loss"])
    assert float(grid["samples"][0, 0]) == 2**40 and grid["finite"].values.all()
    assert grid.attrs["mode_"] == "made" and json.loads(grid.attrs["notes"]) == ["a", "b"]
    points = xr.open_dataset(tmp_path / "nc" / "surface-points.nc", engine="scipy")
    assert points["trajectory"].astype(str).values.tolist() == ["adam"] * 3 + ["sgd"] * 2
