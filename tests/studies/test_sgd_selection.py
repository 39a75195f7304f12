"""The study of selection: what is trained, verdicts where they are known, a small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from studies.small import CONFIG
from thalweg.measurements.parts import Picture, Table
from thalweg.problems import load_stored
from thalweg.report.sections.sgd_selection import section
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, Run, create_run
from thalweg.studies import PRESETS, complete, configure, sgd_selection
from thalweg.studies.claim import Verdict
from thalweg.studies.invariant_measures import MEASURES, margin, measure_robustness
from thalweg.studies.preflight import Sizes
from thalweg.studies.selection_claims import RULES, judge
from thalweg.studies.selection_landscapes import known_landscape

MEASURED = {"noise": 0.1, "radius": 0.02, "pairs": 2, "copies": 6, "gradients": 10}
DEMO = sgd_selection.SIZES["demo"]
SMALL: dict[str, Any] = DEMO | {
    "parents": 2,
    "settings": {"network": "mlp", "widths": [8], "train_size": 40, "test_size": 40},
    "level": 0.1,
    "epochs": 60,
    "descent": 100,
    "ladders": {
        "batch": {"rate": 0.3, "batch_sizes": [0, 10, 4]},
        "langevin": {"rate": 0.3, "temperatures": [0.0, 1e-4, 1e-3]},
    },
    "measures": MEASURED,
    "known": {
        "parents": 2,
        "alike": DEMO["known"]["alike"]
        | {"batch": {"rate": 0.05, "batch_sizes": [0, 5]}, "rate": {}, "langevin": {}},
        "widening": DEMO["known"]["widening"] | {"epochs": 800},
    },
}
WHOLE = CONFIG | {"studies": ["sgd_selection"], "sgd_selection": SMALL}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = create_run(tmp_path_factory.mktemp("runs") / "selection", WHOLE)
    return complete(made, engine=InProcess())[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_rung_begins_at_the_same_weights(preset):
    config = configure(preset, studies=["sgd_selection"], seed=7)
    own = [(p, t) for p, t in sgd_selection._placed(config) if p["case"] == "networks"]
    for parent in range(config["sgd_selection"]["parents"]):
        mine = [task.arguments for place, task in own if place["parent"] == parent]
        assert len({str((a["problem"], a["seed"], a["level"])) for a in mine}) == 1
        assert mine[0]["seed"] == 7 + parent
    # What is a rung of two ladders is trained once.
    tasks = sgd_selection.tasks(config)
    assert (
        len(tasks) == len({task.key for task in tasks}) < len(list(sgd_selection._placed(config)))
    )


def made_ends(trend: float, alike: float = 0.0) -> dict[str, xr.Dataset]:
    """Eight parents; the mean rise falls by a factor of e^trend a rung on networks."""
    found = {}
    slopes = {"networks": trend, "alike": alike, "widening": 1.0}
    for case, ladder in [
        *(("networks", name) for name in ("batch", "rate", "langevin", "decay")),
        *(("alike", name) for name in ("batch", "rate", "langevin")),
        ("widening", "langevin"),
    ]:
        parents, rungs = np.indices((8, 4))
        values = np.exp(-slopes[case] * rungs).reshape(-1)
        columns = {name: ("end", np.full(32, np.nan)) for name in MEASURES}
        columns |= {"average": ("end", values), "status": ("end", ["at level"] * 32)}
        coords = {"parent": ("end", parents.reshape(-1)), "rung": ("end", rungs.reshape(-1))}
        found[f"{case}/{ladder}"] = xr.Dataset(columns, coords=coords)
    return found


def made_volumes(gain: float, alike: float, refused: int = 0) -> xr.Dataset:
    rows = []
    for case, more in (("small", gain), ("alike", alike)):
        for parent in range(6):
            for rung in (0, 1):
                value = rung * more + 0.1 * parent
                given = not (case == "small" and parent < refused and rung)
                rows.append((f"volume-{case}", parent, rung, value if given else np.nan, given))
    case, parent, rung, value, given = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"case": ("end", case), "parent": ("end", parent), "rung": ("end", rung)}
    for name, sign in (("volume", 1.0), ("coefficient", -1.0)):
        columns |= {
            name: ("end", sign * value),
            f"{name}_low": ("end", sign * value - 0.05),
            f"{name}_high": ("end", sign * value + 0.05),
            f"{name}_status": ("end", np.where(given, "converged", "refused")),
        }
    return xr.Dataset(columns)


def verdicts(ends: dict[str, xr.Dataset], volumes: xr.Dataset | None) -> dict[str, Verdict]:
    config = configure("demo", studies=["sgd_selection"])
    claims = judge(ends, volumes, config)
    assert [claim.name.partition("/")[2] for claim in claims] == list(RULES)
    return {claim.name.partition("/")[2]: claim.verdict for claim in claims}


def test_verdicts_of_known_cases():
    good = verdicts(made_ends(1.0), made_volumes(3.0, 0.0))
    assert set(good.values()) == {Verdict.SUPPORTED}
    bad = verdicts(made_ends(-1.0), made_volumes(0.0, 0.0))
    known = bad.pop("known-case")
    assert set(bad.values()) == {Verdict.REFUTED} and known is Verdict.SUPPORTED
    # Where minima that are all alike show a trend, too, nothing is supported.
    spoilt = verdicts(made_ends(1.0, alike=1.0), made_volumes(3.0, 3.0))
    assert set(spoilt.values()) == {Verdict.UNDECIDED}


def test_a_refusal_is_no_number():
    some = verdicts(made_ends(1.0), made_volumes(3.0, 0.0, refused=2))
    assert some["volume"] is Verdict.SUPPORTED
    config = configure("demo", studies=["sgd_selection"])
    *_, volume, coefficient = judge(made_ends(1.0), made_volumes(3.0, 0.0, refused=5), config)
    assert volume.verdict is coefficient.verdict is Verdict.NOT_APPLICABLE
    assert "5 of 12 ends were refused" in volume.why
    *_, unasked, _ = judge(made_ends(1.0), None, config)
    assert unasked.statistic is None and "small.parents=6" in unasked.why


def test_ends_are_at_one_loss_and_measured_there(run: Run):
    ends = run.result("sgd_selection/ends")
    own = ends.isel(end=ends["case"].values == "networks")
    there = own["status"].values == "at level"
    assert there.sum() >= 8
    assert np.abs(own["loss"].values[there] / 0.1 - 1).max() <= 0.011
    assert np.isfinite(own["average"].values[there]).all()
    assert np.isnan(own["average"].values[~there]).all()
    assert [claim["name"].partition("/")[2] for claim in run.claims] == list(RULES)
    told = {claim["name"]: claim for claim in run.claims}
    assert told["sgd_selection/rate"]["verdict"] == "not applicable"
    assert told["sgd_selection/known-case"]["statistic"]["value"] > 0.5
    controls = [c for claim in told.values() for c in claim["controls"] if c["statistic"]]
    alike = [c for c in controls if "all alike" in c["description"]]
    assert alike and all(abs(c["statistic"]["value"]) < 1 / 3 for c in alike)


def test_section_shows_ladders_and_ends(run: Run, tmp_path):
    shown = section(run)
    assert shown is not None and not shown.missing
    names = [part.name for part in shown.parts if isinstance(part, Picture)]
    assert names == ["sgd_selection_ladders", "sgd_selection_trends", "sgd_selection_known"]
    (table,) = (part for part in shown.parts if isinstance(part, Table))
    assert [row[0] for row in table.rows][:3] == ["batch size all", "batch size 10", "batch size 4"]
    assert section(create_run(tmp_path / "run", {"studies": []})) is None


def test_robustness_is_left_alone_by_rescaling_layers():
    settings = {"network": "mlp", "widths": [8], "train_size": 60, "test_size": 60}
    problem = load_stored({"entry": "digits", "settings": settings}, seed=0)
    risk = EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    found = measure_robustness(risk, w, MEASURED | {"gradients": 12}, seed=0)
    rescaled = w.clone()
    first, shift, last, _ = risk.space.parameters
    for parameter, factor in ((first, 3.0), (shift, 3.0), (last, 1 / 3)):
        rescaled[parameter.start : parameter.start + parameter.count] *= factor
    again = measure_robustness(risk, rescaled, MEASURED | {"gradients": 12}, seed=0)
    for name in MEASURES:
        assert again[name] == pytest.approx(found[name], rel=0.03, nan_ok=True), name
    assert again["average"] == pytest.approx(found["average"], rel=1e-6)


def test_the_margin_is_that_of_all_but_a_tenth():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    x = torch.stack([torch.linspace(0.1, 1.0, 10), torch.zeros(10)], 1)
    from thalweg.problems import Problem

    problem = Problem(model, torch.nn.CrossEntropyLoss(), (x, torch.zeros(10, dtype=torch.long)))
    risk = EmpiricalRisk(problem)
    found = margin(risk, torch.tensor([1.0, 0.0, -1.0, 0.0]))
    expected = 2 * np.quantile(x[:, 0].numpy(), 0.1) / np.sqrt(np.mean(x[:, 0].numpy() ** 2))
    assert found == pytest.approx(expected, rel=1e-5)
    assert margin(risk, torch.tensor([7.0, 0.0, -7.0, 0.0])) == pytest.approx(expected, rel=1e-5)


def test_the_valley_widens():
    valley, w = known_landscape("widening", 0)
    e = torch.zeros_like(w)
    e[0] = 1e-5
    slope = (valley.value(w + e) - valley.value(w - e)) / 2e-5
    assert float(valley.gradient(w)[0]) == pytest.approx(slope, rel=1e-5)
    wide = w.clone()
    wide[0] = 3.0
    assert valley.value(wide) < 0.05 * valley.value(w)


DIGITS = Sizes(1_810, 200)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parents": 2}, "write sgd_selection.parents = 3 or more"),
        ({"known": DEMO["known"] | {"parents": 1}}, "sgd_selection.known.parents = 3 or more"),
        ({"small": DEMO["small"] | {"parents": 2}}, "sgd_selection.small.parents = 3 or more"),
        ({"epochs": 20}, "write sgd_selection.epochs = 50 or more"),
        (
            {"ladders": {"batch": {"rate": 0.2, "batch_sizes": [0, 10]}}},
            "ladders.batch has 2 rungs: the order of two is a coin; write 3",
        ),
    ],
)
def test_what_could_not_be_decided_is_told_before_the_first_task(changes, expected):
    config = configure("demo", studies=["sgd_selection"])
    assert sgd_selection.faults(config, DIGITS) == []
    config = config | {"sgd_selection": DEMO | changes}
    (fault,) = sgd_selection.faults(config, DIGITS)
    assert expected in fault
