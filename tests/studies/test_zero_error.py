"""The study of zero error: honest counts, the verdicts of cases that are known, a small run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from studies.small import CONFIG
from thalweg.dynamics import train
from thalweg.plots import plot_reach
from thalweg.problems import load_problem
from thalweg.report.parts import Picture, Table
from thalweg.report.sections.zero_error import section
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess
from thalweg.studies import configure, reproduce, zero_error
from thalweg.studies.equations import equations
from thalweg.studies.zero_error_claims import judge

NETWORKS: dict[str, dict[str, Any]] = {
    "true-labels": {"labels": "true", "epochs": 20},
    "random-labels": {"labels": "random", "epochs": 2},
    "narrow-true-labels": {"labels": "true", "epochs": 1, "control": [1, 1]},
    "narrow-random-labels": {"labels": "random", "epochs": 1, "control": [1, 1]},
}


def test_equations_are_counted_as_in_the_paper_and_honestly() -> None:
    counts = equations(50_000, 10)
    assert list(counts.values()) == [50_000, 450_000, 500_000]
    assert equations(7, 1) == {"per_sample": 7, "per_inequality": 7, "per_output": 7}


def cells(missed: dict[str, int], *, weights: int = 10_000, reached: float = 1.0) -> xr.Dataset:
    """Cells of 100 samples in 10 classes; the sweep's ``reached`` are those above N (C - 1)."""
    rows = []
    for name, count in missed.items():
        labels = "random" if "random" in name else "true"
        narrow = name.startswith("narrow")
        part = "control" if narrow else "network"
        rows.append((f"{name}-seed0", part, labels, 0, 50 if narrow else weights, count))
    for labels in ("true", "random"):
        for number in range(10):
            wrong = 0 if number < 10 * reached else 3
            rows.append((f"sweep-{number}", "sweep", labels, number, 2000, wrong))
            rows.append((f"sweep-{number}-few", "sweep", labels, number, 60, 40))
    keys = ("name", "part", "labels", "seed", "weights", "misclassified")
    data = {
        key: ("cell", list(column))
        for key, column in zip(keys, zip(*rows, strict=True), strict=True)
    }
    found = xr.Dataset(data).set_coords(["name", "part", "labels", "seed"])
    for key, count in equations(100, 10).items():
        found[key] = found["weights"] / count
    same = ("cell", np.full(len(rows), 100))
    return found.assign(samples=same, test_error=("cell", np.full(len(rows), 0.25)))


def verdicts(found: xr.Dataset) -> dict[str, str]:
    return {claim.name.partition("/")[2]: str(claim.verdict) for claim in judge(found, NETWORKS)}


NARROW = {"narrow-true-labels": 60, "narrow-random-labels": 80}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (cells({"true-labels": 0, "random-labels": 0} | NARROW), ["supported"] * 4),
        (
            cells({"true-labels": 1, "random-labels": 2} | NARROW, reached=0.0),
            ["refuted"] * 4,
        ),
        # Half of the sweep decides nothing; a control that reaches zero supports nothing.
        (
            cells(
                {"true-labels": 0, "random-labels": 0}
                | {"narrow-true-labels": 0, "narrow-random-labels": 80},
                reached=0.5,
            ),
            ["undecided", "supported", "undecided", "undecided"],
        ),
        # 90 weights are fewer than 100 samples: the claim says nothing of such a network.
        (
            cells({"true-labels": 0, "random-labels": 0} | NARROW, weights=90),
            ["not applicable"] * 2 + ["supported"] * 2,
        ),
    ],
    ids=["reached", "missed", "between", "few weights"],
)
def test_known_cases_get_their_verdicts(found: xr.Dataset, expected: list[str]) -> None:
    names = ["true-labels", "random-labels", "sweep-true-labels", "sweep-random-labels"]
    assert verdicts(found) == dict(zip(names, expected, strict=True))


def test_zero_error_is_reached_from_the_width_above_the_last_that_missed() -> None:
    found = cells({}, reached=1.0)
    assert zero_error.reached_from(found, "true") == {
        "weights": 2000.0,
        "per_sample": 20.0,
        "per_inequality": pytest.approx(20 / 9),
        "per_output": 2.0,
    }
    assert zero_error.reached_from(cells({}, reached=0.9), "true") is None


def test_the_paper_preset_states_which_random_labels_are_more_equations_than_weights() -> None:
    config = configure("paper", studies=["zero_error"])
    trainings = {task.arguments["trajectory"]: task for task in zero_error.tasks(config)}
    settings = trainings["random-labels-10000-seed0"].arguments["problem"]["settings"]
    assert settings == {"random_labels": 1.0, "data_seed": 0, "train_size": 10_000}
    few = configure("paper", data="digits", studies=["zero_error"], settings={"width": 8})
    for task in zero_error.tasks(few):
        load_problem("digits", **task.arguments["problem"]["settings"])


def test_a_problem_of_ones_own_is_not_judged(tmp_path: Path) -> None:
    config = configure("demo", data="mine.py:make", studies=["zero_error"])
    assert zero_error.tasks(config) == []
    claims = judge(None, config["zero_error"]["networks"])
    assert {str(claim.verdict) for claim in claims} == {"not applicable"}


def test_a_small_run_counts_what_its_trainings_misclassify(tmp_path: Path) -> None:
    sizes = {"seeds": [0], "checkpoints": 2, "networks": NETWORKS}
    sweep = {"seeds": [0], "samples": 30, "epochs": 8, "epochs_worth": 1}
    config = CONFIG | {"studies": ["zero_error"], "zero_error": sizes | {"sweep": sweep}}
    run, summary = reproduce(config, tmp_path / "run", engine=InProcess())
    found = run.result(zero_error.CELLS)
    assert found.sizes["cell"] == 4 + 2 * 8
    assert found["misclassified"].attrs["units"] == "training samples"
    row = found.isel(cell=int(np.flatnonzero(found["name"].values == "sweep-random-8-seed0")[0]))
    problem = load_problem(
        "digits", network="mlp", widths=[8], train_size=30, random_labels=1.0, test_size=40
    )
    risk = EmpiricalRisk(problem)
    options = {"lr": 0.05, "batch_size": 20, "epochs": 8, "stop_error": 0.0}
    result = train(risk, risk.space.pack(problem.model), **options)
    assert int(row["misclassified"]) == round(30 * risk.error(result.w))
    assert int(row["weights"]) == 64 * 8 + 8 + 8 * 10 + 10
    assert float(row["per_inequality"]) == pytest.approx(610 / 270)
    assert summary["zero_error"]["networks"]["true-labels-seed0"]["per_sample"] > 1
    assert {claim["name"] for claim in run.claims} == {
        f"zero_error/{name}"
        for name in ("true-labels", "random-labels", "sweep-true-labels", "sweep-random-labels")
    }
    shown = section(run)
    assert shown is not None
    assert shown.facts[0].value.endswith("of 120")
    captions = {part.name: part.caption for part in shown.parts if isinstance(part, Picture)}
    assert "N = 30, N(C−1) = 270 and NC = 300" in captions["zero_error_reach"]
    for claim in run.claims:
        picture = "reach" if "/sweep-" in claim["name"] else "curves"
        assert f": {claim['verdict']}." in captions[f"zero_error_{picture}"]
    rows = [len(part.rows) for part in shown.parts if isinstance(part, Table)]
    assert rows == [4, 8]


def test_the_picture_marks_every_network_and_the_three_counts() -> None:
    found = cells({}, reached=0.5)
    axes = plot_reach(found, ax=Figure().add_subplot())
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in marks] == [20, 20]
    places = {text.get_text(): text.xy[0] for text in axes.texts}
    expected = {"W = N": 1 / 9, "W = N(C−1)": 1.0, "W = NC": 10 / 9}
    assert places == pytest.approx(expected)
    means = {line.get_label(): line.get_ydata() for line in axes.lines}
    # 40 of 100 at 60 weights; half of those above missed 3 of 100.
    assert means["true labels, training error"] == pytest.approx([0.4, 0.015])
    assert means["random labels, test error"] == pytest.approx([0.25, 0.25])
