"""The study of polynomial activations: verdicts of known cases, a small run, and its record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from studies.small import CONFIG
from thalweg.measurements.parts import Picture, Table
from thalweg.report.sections.polynomial_activations import section
from thalweg.run import InProcess, Run, create_run
from thalweg.studies import complete, configure
from thalweg.studies.polynomial_activations import EXCURSIONS, FITS, RUNS
from thalweg.studies.polynomial_activations import tasks as _tasks
from thalweg.studies.polynomial_activations_claims import (
    CLAIMED,
    CONTROL,
    NEAR,
    RELU,
    difference,
    judge,
)
from thalweg.studies.trainings import train_trunk

SIZES: dict[str, Any] = {
    "parents": 2,
    "allowed": 0.03,
    "degrees": [2, 10],
    "epochs": 3,
    "checkpoints": 3,
    "margin": 2.0,
    "clip": 1.0,
    "small_radius": 0.5,
    "keep": True,
}
SMALL = CONFIG | {"studies": ["polynomial_activations"], "polynomial_activations": SIZES}


def runs(
    shift: list[float],
    control: list[float],
    *,
    near: float = 0.04,
    outside: int = 0,
    wild: int = 500,
    own: float = 0.1,
) -> xr.Dataset:
    """Trainings whose errors are the ReLU's plus a shift, in each seed its own."""
    relu = np.linspace(own, 2 * own, len(shift))
    errors = np.array([relu, relu + shift, relu + near + np.array(shift), relu + control])
    names = [RELU, CLAIMED, NEAR, CONTROL]
    counts = np.repeat([[0], [outside], [0], [wild]], len(shift), axis=1)
    where = ("activation", "seed")
    return xr.Dataset(
        {
            "mean_error": (where, errors),
            "test_error": (where, errors),
            "seen": (where, np.full(errors.shape, 1000)),
            "outside": (where, counts),
        },
        coords={"activation": names, "seed": range(len(shift))},
    )


FAR = [0.7, 0.71, 0.72]
KNOWN = {
    "same": (runs([0.001, -0.001, 0.002], FAR), "supported", "supported"),
    "better": (runs([-0.05, -0.051, -0.052], FAR, near=0.09), "supported", "supported"),
    "worse": (runs([0.07, 0.071, 0.072], FAR, outside=3), "refuted", "refuted"),
    "scattered": (runs([0.0, 0.1, -0.1], FAR, outside=1), "undecided", "supported"),
    # A control that is as good decides nothing, be it far or near.
    "blind control": (runs([0.001, -0.001, 0.0], [0, 0, 0.001], wild=0), "undecided", "undecided"),
    "blind near control": (runs([0.001, -0.001, 0.0], FAR, near=0.0), "undecided", "supported"),
    "near control undecided": (runs([0.0, 0.008, 0.0], FAR, near=0.03), "supported", "supported"),
    "control without error": (
        runs([0.001, -0.001, 0.0], [math.nan, 0.7, 0.7]),
        "undecided",
        "supported",
    ),
    # What is allowed is more than the ReLU network's own error.
    "margin too wide": (runs([0.0, 0.001, 0.0], FAR, own=0.01), "not applicable", "supported"),
    "none": (None, "not applicable", "not applicable"),
}


@pytest.mark.parametrize(("found", "as_well", "interval"), KNOWN.values(), ids=KNOWN.keys())
def test_known_cases_get_their_verdicts(
    found: xr.Dataset | None, as_well: str, interval: str
) -> None:
    verdicts = [str(claim.verdict) for claim in judge(found, SMALL)]
    assert verdicts == [as_well, as_well, interval]


def test_the_difference_is_that_of_pairs_with_students_interval() -> None:
    found = difference(runs([0.0, 0.01, 0.02], [1, 1, 1]), CLAIMED, "test")
    assert found is not None
    # Standard deviation 0.01, three seeds: 4.3027 * 0.01 / sqrt(3).
    assert found.value == pytest.approx(0.01)
    assert found.high - found.value == pytest.approx(0.024841, rel=1e-4)


def test_degree_2_gets_as_much_training_on_the_same_draws() -> None:
    config = configure("demo", studies=["polynomial_activations"])
    given = {task.arguments["trajectory"]: task.arguments for task in _tasks(config)}
    for number in range(8):
        arms = [given[f"polynomial-{arm}-seed{number}"] for arm in ("relu", "degree2", "degree10")]
        assert all(arm["epochs"] == arms[0]["epochs"] for arm in arms)
        assert all(arm["problem"] == arms[0]["problem"] for arm in arms)
    drawn = {arm["problem"]["settings"].get("data_seed", 0) for arm in given.values()}
    assert drawn == set(range(8))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = create_run(tmp_path_factory.mktemp("runs") / "whole", SMALL)
    return complete(run, engine=InProcess())[0]


def test_every_preactivation_is_counted_and_leaving_the_interval_is_said(whole: Run) -> None:
    found = whole.result(RUNS)
    # Convolutions of stride 2 on 8x8: 8 * 16 and 8 * 4 pre-activations a sample.
    assert found["seen"].sel(activation=CLAIMED).values.tolist() == [3 * 120 * 160] * 2
    assert found["seen"].sel(activation=RELU).values.tolist() == [0, 0]
    assert set(found["status"].sel(activation=CONTROL).values) == {"left the interval"}
    assert set(found["status"].sel(activation=CLAIMED).values) == {"finished"}
    assert (found["factor"].sel(activation=CONTROL) > 1.5).all()
    outside = whole.result(EXCURSIONS).groupby("activation").sum()["outside"]
    assert int(outside.sel(activation=CONTROL)) == int(
        found["outside"].sel(activation=CONTROL).sum()
    )
    assert {claim["name"].partition("/")[2]: claim["verdict"] for claim in whole.claims}[
        "interval"
    ] == "supported"


def test_fits_have_the_published_errors(whole: Run) -> None:
    error = whole.result(FITS)["error"].sel(degree=10)
    expected = {"minimax": 0.0139, "chebyshev": 0.0289, "interpolation": 0.0273}
    for method, value in (expected | {"legendre": 0.0278}).items():
        assert float(error.sel(fit=method)) == pytest.approx(value, abs=6e-5)


class Stopped(Exception):
    """A kill, as far as a task can tell."""


def test_a_training_stopped_and_resumed_has_the_same_record(tmp_path: Path) -> None:
    task = next(t for t in _tasks(SMALL) if "degree10" in t.name)
    outcomes = []
    for name in ("at once", "stopped"):
        run = create_run(tmp_path / name, SMALL)
        if name == "stopped":
            with pytest.raises(Stopped):
                train_trunk(run, task.arguments, _stop_at(20))
        outcomes.append(train_trunk(run, task.arguments, lambda done: None))
    assert outcomes[0]["excursion_seen"].sum() == 3 * 120 * 160
    for key, value in outcomes[0].items():
        assert_array_equal(outcomes[1][key], value, err_msg=key)


def _stop_at(limit: int) -> Any:
    def report(done: int) -> None:
        if done >= limit:
            raise Stopped

    return report


def test_a_problem_of_ones_own_is_left_alone() -> None:
    config = configure("demo", data="mine.py:make", studies=["polynomial_activations"])
    assert _tasks(config) == []


def test_captions_end_in_what_was_measured_and_excursions_are_shown(
    whole: Run,
) -> None:
    shown = section(whole)
    assert shown is not None and not shown.missing
    pictures = {part.name: part for part in shown.parts if isinstance(part, Picture)}
    excursions = pictures["polynomial_activations_excursions"]
    assert excursions.caption.endswith("(exact).") and "supported" not in excursions.caption
    axes = excursions.still.axes[0]
    small = next(line for line in axes.lines if line.get_label() == CONTROL)
    record = whole.result(EXCURSIONS)
    mine = record["factor"].values[record["activation"].values == CONTROL]
    assert max(small.get_ydata()) == pytest.approx(mine.max())
    table = next(part for part in shown.parts if isinstance(part, Table))
    rows = {row[0]: row for row in table.rows}
    assert rows[RELU][4:] == ("–", "–")
    assert rows[CONTROL][1] == "2 left the interval"
    assert any("left the interval" in fact.note for fact in shown.facts)
