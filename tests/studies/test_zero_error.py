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
from thalweg.measurements.parts import Picture, Table
from thalweg.plots import plot_reach
from thalweg.problems import load_problem
from thalweg.report.sections.zero_error import section
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, create_run
from thalweg.studies import complete, configure, zero_error
from thalweg.studies.equations import equations
from thalweg.studies.zero_error_claims import judge

NETWORKS: dict[str, dict[str, Any]] = {
    "true-labels": {"labels": "true", "epochs": 20},
    "random-labels": {"labels": "random", "epochs": 2},
}
SIZES = {"draws": 6, "checkpoints": 2, "networks": NETWORKS, "narrow": [1, 1]}
JUDGED = CONFIG | {"zero_error": SIZES}


def test_equations_are_counted_as_in_the_paper_and_honestly() -> None:
    counts = equations(50_000, 10)
    assert list(counts.values()) == [50_000, 450_000, 500_000]
    assert equations(7, 1) == {"per_sample": 7, "per_inequality": 7, "per_output": 7}


SWEPT = {60: 40, 110: 30, 880: 20, 2000: 0, 3000: 0}
MISSED = {
    "true-labels": (10_000, [0] * 6),
    "random-labels": (10_000, [0] * 6),
    **{f"narrow-{labels}-labels": (50, [60] * 6) for labels in ("true", "random")},
    **{f"below-{labels}-labels": (95, [3, 1, 2, 5, 1, 2]) for labels in ("true", "random")},
    **{f"above-{labels}-labels": (105, [0, 1, 0, 0, 3, 0]) for labels in ("true", "random")},
}


def cells(
    changed: dict[str, tuple[int, list[int]]] | None = None,
    *,
    swept: dict[int, int] | None = None,
    draws: int = 6,
) -> xr.Dataset:
    """Make cells of 100 samples in 10 classes: weights and misclassified of each draw."""
    rows = []
    parts = {"narrow": "control", "below": "near", "above": "near"}
    for name, (weights, missed) in (MISSED | (changed or {})).items():
        labels = "random" if "random" in name else "true"
        part = parts.get(name.partition("-")[0], "network")
        rows += [(f"{name}-seed{n}", part, labels, n, weights, m) for n, m in enumerate(missed)]
    for labels in ("true", "random"):
        for weights, wrong in (SWEPT | (swept or {})).items():
            name = f"sweep-{labels}-{weights}"
            rows += [(name, "sweep", labels, draw, weights, wrong) for draw in range(draws)]
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
    return {claim.name.partition("/")[2]: str(claim.verdict) for claim in judge(found, JUDGED)}


BOTH = ("true", "random")
KNOWN = {
    "reached": (cells(), ["supported"] * 4),
    "missed": (
        cells({f"{labels}-labels": (10_000, [1] * 6) for labels in BOTH}, swept={2000: 9, 3000: 9}),
        ["refuted"] * 4,
    ),
    # One draw of six misses; half of the sweep's networks of each draw do.
    "between": (
        cells({"true-labels": (10_000, [0, 0, 0, 0, 0, 9])}, swept={2000: 9}),
        ["undecided", "supported", "undecided", "undecided"],
    ),
    # 90 weights are fewer than 100 samples: the claim says nothing of such a network.
    "few weights": (
        cells({f"{labels}-labels": (90, [0] * 6) for labels in BOTH}),
        ["not applicable"] * 2 + ["supported"] * 2,
    ),
    # Nine networks on three draws, as the sweep had, are three trials.
    "three draws": (cells(draws=3), ["supported"] * 2 + ["undecided"] * 2),
    # A control that reaches zero supports nothing, be it near or far.
    "blind near control": (
        cells({"below-true-labels": (95, [0] * 6)}, swept={880: 0}),
        ["undecided", "supported", "supported", "undecided"],
    ),
    "blind far control": (
        cells({"narrow-random-labels": (50, [0] * 6)}, swept={60: 0}),
        ["supported", "undecided", "undecided", "undecided"],
    ),
}


@pytest.mark.parametrize(("found", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_known_cases_get_their_verdicts(found: xr.Dataset, expected: list[str]) -> None:
    names = ["true-labels", "random-labels", "sweep-true-labels", "sweep-random-labels"]
    assert verdicts(found) == dict(zip(names, expected, strict=True))


def test_networks_of_one_draw_are_one_trial() -> None:
    claim = judge(cells(draws=3), JUDGED)[2]
    assert claim.statistic is not None
    assert (claim.statistic.value, claim.statistic.n) == (1.0, 3)
    assert claim.statistic.low == pytest.approx(0.025 ** (1 / 3))


def test_controls_are_just_below_and_above_the_count_for_as_many_epochs() -> None:
    config = configure("demo", studies=["zero_error"])
    trainings = {task.arguments["trajectory"]: task.arguments for task in zero_error.tasks(config)}
    ratios = {}
    for size in ("below", "above"):
        given = trainings[f"{size}-random-labels-seed2"]
        assert given["epochs"] == trainings["random-labels-seed2"]["epochs"]
        assert given["problem"]["settings"]["data_seed"] == 2
        model = load_problem("digits", **given["problem"]["settings"]).model
        ratios[size] = sum(weight.numel() for weight in model.parameters()) / 1437
    assert 0.9 < ratios["below"] < 1 < ratios["above"] < 1.1
    # On 200 digits of the sweep, N (C - 1) = 1800.
    assert {"sweep-random-23-seed0", "sweep-random-24-seed0"} <= trainings.keys()
    assert 64 * 23 + 23 + 23 * 10 + 10 < 1800 < 64 * 24 + 24 + 24 * 10 + 10


def test_zero_error_is_reached_from_the_width_above_the_last_that_missed() -> None:
    assert zero_error.reached_from(cells(), "true") == {
        "weights": 2000.0,
        "per_sample": 20.0,
        "per_inequality": pytest.approx(20 / 9),
        "per_output": 2.0,
    }
    assert zero_error.reached_from(cells(swept={3000: 1}), "true") is None


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
    claims = judge(None, config)
    assert {str(claim.verdict) for claim in claims} == {"not applicable"}


def test_a_small_run_counts_what_its_trainings_misclassify(tmp_path: Path) -> None:
    sizes = SIZES | {
        "draws": 1,
        "sweep": {"draws": 1, "samples": 30, "epochs": 8, "epochs_worth": 1},
    }
    config = CONFIG | {"studies": ["zero_error"], "zero_error": sizes}
    run, summary = complete(create_run(tmp_path / "run", config), engine=InProcess())
    found = run.result(zero_error.CELLS)
    assert found.sizes["cell"] == 2 + 2 * 3 + 2 * 9
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
    assert shown.facts[0].value.endswith("of 1 draws")
    captions = {part.name: part.caption for part in shown.parts if isinstance(part, Picture)}
    assert "N = 30, N(C−1) = 270 and NC = 300" in captions["zero_error_reach"]
    for claim in run.claims:
        picture = "reach" if "/sweep-" in claim["name"] else "curves"
        assert claim["statistic"]["name"] in captions[f"zero_error_{picture}"].lower()
        assert claim["verdict"] not in captions[f"zero_error_{picture}"]
    rows = [len(part.rows) for part in shown.parts if isinstance(part, Table)]
    assert rows == [8, 9]


def test_the_picture_marks_every_network_and_the_three_counts() -> None:
    found = cells(swept={3000: 3})
    axes = plot_reach(found.isel(cell=found["part"].values == "sweep"), ax=Figure().add_subplot())
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in marks] == [30, 30]
    places = {text.get_text(): text.xy[0] for text in axes.texts}
    expected = {"W = N": 1 / 9, "W = N(C−1)": 1.0, "W = NC": 10 / 9}
    assert places == pytest.approx(expected)
    means = {line.get_label(): line.get_ydata() for line in axes.lines}
    errors = [0.4, 0.3, 0.2, 0.0, 0.03]
    assert means["true labels, training error"] == pytest.approx(errors, abs=1e-12)
    assert means["random labels, test error"] == pytest.approx([0.25] * 5)
