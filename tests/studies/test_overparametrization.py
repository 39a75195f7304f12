"""The study of overparametrization: verdicts where they are known, and a small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from studies.small import CONFIG
from thalweg.measurements.parts import Picture, Table
from thalweg.report.sections.overparametrization import section
from thalweg.run import InProcess, Run, create_run
from thalweg.studies import PRESETS, complete, configure, overparametrization
from thalweg.studies.claim import Verdict
from thalweg.studies.invariant_measures import MEASURES
from thalweg.studies.narrow_networks import weights_of
from thalweg.studies.overparametrization_claims import RULES, judge
from thalweg.studies.preflight import Sizes

SMALL: dict[str, Any] = overparametrization.SIZES["demo"] | {
    "draws": 2,
    "settings": {"network": "mlp", "train_size": 30, "test_size": 60},
    "widths": [[1], [8], [16]],
    "epochs": 60,
    "level": 0.02,
    "measures": {"noise": 0.1, "radius": 0.02, "pairs": 2, "copies": 6, "gradients": 10},
}
WHOLE = CONFIG | {"studies": ["overparametrization"], "overparametrization": SMALL}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = create_run(tmp_path_factory.mktemp("runs") / "widths", WHOLE)
    return complete(made, engine=InProcess())[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_widths_reach_from_too_few_weights_to_far_too_many(preset):
    config = configure(preset, studies=["overparametrization"])
    study = config["overparametrization"]
    problem = overparametrization.problem_of(config, study["settings"], 0)
    weights = [weights_of(problem, widths) for widths in study["widths"]]
    samples = study["settings"]["train_size"]
    assert weights == sorted(weights) and weights[0] < samples and weights[-1] > 20 * samples
    # A misclassified sample has a loss of log 2 or more: at the level there is none.
    assert study["level"] < np.log(2) / samples
    draws = {}
    for place, task in overparametrization._placed(config):
        if place["part"] == "networks":
            settings = task.arguments["problem"]["settings"]
            draws.setdefault(place["parent"], set()).add(settings.get("data_seed", 0))
    assert draws == {draw: {draw} for draw in range(study["draws"])}


def made_cells(
    *,
    falls: float = 0.5,
    reached: float = 20.0,
    missing: int = 0,
    repeated: int = 10,
    shuffled: float = 1.0,
) -> xr.Dataset:
    """Six draws, five widths: from ``reached`` weights a sample on networks come to the level."""
    rows = []
    for draw in range(6):
        for rung, weights in enumerate((50, 500, 2000, 4000, 8000)):
            there = weights >= reached * 100
            rank = min(weights, 1000)
            robust = falls**rung if there else np.nan
            rows.append(
                {
                    "parent": draw,
                    "rung": rung,
                    "weights": weights,
                    "samples": 100,
                    "equations": 1000,
                    "inequalities": 900,
                    "misclassified": 0 if there else 40,
                    "status": "at level" if there else "not reached",
                    "rank": rank - missing if draw == 0 else np.nan,
                    "rank_repeated": rank - repeated if draw == 0 else np.nan,
                    **dict.fromkeys(MEASURES, np.nan),
                    "average": robust,
                    "margin": 1 / robust,
                    "test_error": robust,
                    "shuffled_test_error": shuffled**rung,
                }
            )
    return xr.Dataset({key: ("end", np.array([row[key] for row in rows])) for key in rows[0]})


def verdicts(true: xr.Dataset, random: xr.Dataset) -> dict[str, Verdict]:
    config = configure("demo", studies=["overparametrization"])
    claims = judge({"true": true, "random": random}, config)
    return {claim.name.partition("/")[2]: claim.verdict for claim in claims}


def test_verdicts_of_known_cases():
    flat = made_cells(falls=1.0)
    good = verdicts(made_cells(), flat)
    assert list(good) == list(RULES) and set(good.values()) == {Verdict.SUPPORTED}
    bad = verdicts(made_cells(falls=2.0, missing=1), made_cells(reached=30.0, falls=1.0))
    assert bad.pop("zero-error") is Verdict.UNDECIDED  # two of the three such widths
    assert set(bad.values()) == {Verdict.REFUTED}
    assert verdicts(flat, made_cells(reached=100.0))["zero-error"] is Verdict.REFUTED
    # Controls that are none: shuffled test labels that tell widths apart, repeated samples that do
    # not show, zero error with fewer weights than samples.
    spoilt = verdicts(made_cells(repeated=0, shuffled=0.5), made_cells(reached=0.1))
    assert {spoilt[name] for name in ("test-error", "full-rank", "zero-error")} == {
        Verdict.UNDECIDED
    }


def test_a_problem_of_ones_own_is_not_judged():
    config = configure("demo", studies=["overparametrization"], data="teacher")
    assert overparametrization.tasks(config) == []
    assert {claim.verdict for claim in judge({}, config)} == {Verdict.NOT_APPLICABLE}


def test_small_run(run: Run):
    cells = run.result("overparametrization/cells")
    wide = cells["rung"].values == 2
    assert (cells["misclassified"].values[wide] == 0).all()
    narrow = cells["rung"].values == 0
    assert (cells["misclassified"].values[narrow] > 0).all()
    assert np.isnan(cells["average"].values[narrow]).all()
    by_chance = cells["shuffled_test_error"].values
    assert (by_chance > 0.75).all() and (cells["test_error"].values[wide] < 0.75)[:2].all()
    ranked = np.isfinite(cells["rank"].values)
    assert ranked.sum() == 6 and (cells["rank"].values[ranked] <= 300).all()
    full = ranked & wide
    assert (cells["rank"].values[full] == 300).all()
    assert (cells["rank_repeated"].values[full] == 270).all()
    assert [claim["name"].partition("/")[2] for claim in run.claims] == list(RULES)


def test_section_shows_what_widths_change(run: Run, tmp_path):
    shown = section(run)
    assert shown is not None and not shown.missing
    names = [part.name for part in shown.parts if isinstance(part, Picture)]
    assert names == ["overparametrization_widths", "overparametrization_trends"]
    (table,) = (part for part in shown.parts if isinstance(part, Table))
    assert len(table.rows) == 6 and table.rows[2][5] == "2 of 2"
    assert section(create_run(tmp_path / "run", {"studies": []})) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"draws": 5}, "write overparametrization.draws = 6 or more"),
        ({"epochs": 2}, "write overparametrization.epochs = 6 or more"),
        ({"widths": [[12], [24], [48]]}, "some with fewer than the 90 samples"),
        ({"widths": [[1], [12], [20]]}, "more than twice the 900 outputs"),
        ({"widths": [[1], [48], [12]]}, "the smallest first"),
    ],
)
def test_what_could_not_be_decided_is_told_before_the_first_task(changes, expected):
    config = configure("demo", studies=["overparametrization"])
    demo = overparametrization.SIZES["demo"]
    assert overparametrization.faults(config, Sizes(3_610, 90)) == []
    config = config | {"overparametrization": demo | changes}
    (fault,) = overparametrization.faults(config, Sizes(3_610, 90))
    assert expected in fault
