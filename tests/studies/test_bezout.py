"""The study of polynomial systems: its verdicts, their controls, and what the report shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.report import write_report
from thalweg.run import InProcess, Run, create_run, run_tasks
from thalweg.studies import bezout
from thalweg.studies.polynomial_networks import build
from thalweg.studies.presets import PRESETS

CUBE, SQUARE, LINEAR = [0, 0, 0, 1], [0, 0, 1], [0, 1]
VERDICTS = {
    "bezout/many": "supported",
    "bezout/bound-is-count": "refuted",
    "bezout/always-real": "refuted",
    "bezout/rank": "supported",
    "bezout/more-weights-suffice": "refuted",
    "bezout/dimension": "supported",
    "bezout/zeros-degenerate": "supported",
    "bezout/minima-one-unit": "supported",
    "bezout/minima-any": "refuted",
    "bezout/generic-decay": "supported",
    "bezout/loaded": "supported",
}


def dense(widths, activation, samples, *, bias=True, draws=1, **more):
    spec = {"widths": widths, "activation": activation, "bias": bias}
    return {"network": spec, "samples": samples, "draws": draws, **more}


SIZES: dict[str, Any] = {
    "square": [
        dense([1, 1, 1], CUBE, 2),
        dense([2, 1, 1], SQUARE, 3, draws=3),
        dense([1, 2, 1], CUBE, 4),
    ],
    "wide": [
        dense([1, 2, 1], CUBE, 1, bias=False, solve=True),
        dense([1, 3, 1], CUBE, 4, solve=False),
    ],
    "beyond": [dense([1, 3, 1], SQUARE, 4)],
    "rotated": [dense([2, 3, 1], SQUARE, 6, solve=False)],
    "minima": [dense([1, 1, 1], SQUARE, 5), dense([1, 1, 1], CUBE, 5)],
    "decayed": [dense([1, 1, 1], LINEAR, 1, bias=False, known=5)],
    "splits": [0.8, 1.5],
    "points": 4,
    "seconds": 10.0,
    "pictures": {
        "solutions": dense([1, 2, 1], CUBE, 4),
        "curve": dense([1, 2, 1], CUBE, 1, bias=False),
        "extent": 2.5,
        "points": 21,
    },
}
CONFIG: dict[str, Any] = {"seed": 3, "studies": ["bezout"], "bezout": SIZES}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Solve small systems once, without msolve: verdicts do not need it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("THALWEG_MSOLVE", "no-such-program")
    made = create_run(tmp_path_factory.mktemp("runs") / "bezout", CONFIG)
    run_tasks(made, bezout.tasks(CONFIG), engine=InProcess())
    bezout.assemble(made, CONFIG)
    patch.undo()
    return made


def test_the_verdicts(run):
    found = {claim.name: str(claim.verdict) for claim in bezout.claims(run, CONFIG)}
    assert found == VERDICTS


def test_every_control_fails_its_claim(run):
    for claim in bezout.claims(run, CONFIG):
        assert claim.controls
        assert all(claim.holds(control) for control in claim.controls), claim.name
        assert str(claim.control_verdict(claim.controls[0])) == "refuted"


def test_solutions_are_loaded_with_zero_loss(run):
    zeros = run.result("bezout/zeros")
    assert zeros.sizes["row"] > 10
    assert zeros["loss"].values.max() < 1e-20
    assert zeros["residual"].values.max() < 1e-10
    assert (zeros["loss_perturbed"] / zeros["at_zero"]).values.min() > 1e-10


def test_counts_are_those_of_closed_forms(run):
    systems = run.result("bezout/systems").to_dataframe()
    square = systems[systems["group"] == "square"]
    counts = square.drop_duplicates("network")["solutions_complex"].tolist()
    # One unit with z**d and n weights: d**n; two cubes in one variable: 2! 3**2, once each.
    assert counts == [9, 8, 18]
    rotated = systems[systems["group"] == "rotated"].iloc[0]
    assert (rotated["dimension_low"], rotated["continuous_symmetry"]) == (3, 3)


def test_nullity_is_symmetry_and_spare_weights(run):
    zeros = run.result("bezout/zeros").to_dataframe()
    beyond = zeros["nullity"] - zeros["nullity_symmetry"]
    spare = zeros["network"].map({"1-2-1, z³": 1, "1-3-1, z³, bias": 2})
    wide = zeros["group"] == "wide"
    np.testing.assert_array_equal(beyond[wide], spare[wide])
    assert (beyond[zeros["group"].isin(["square", "rotated"])] == 0).all()


def test_a_split_unit_is_a_degenerate_minimum(run):
    cases = run.result("bezout/cases").to_dataframe()
    split = cases[(cases["case"] == "split") & (cases["index"] == 0)]
    assert len(split)
    assert (split["nullity"] - split["nullity_symmetry"] == 1).all()
    assert (split["kind"] == "undetermined").all()


def test_the_curve_that_is_drawn_is_the_zero_set(run):
    surface = run.result("bezout/surface")
    curve = surface["curve"].values
    cubes = (curve**3).sum(axis=1)
    np.testing.assert_allclose(cubes, cubes[0], rtol=1e-9)
    assert np.abs(curve).max() > surface["first"].values.max()


def test_the_report_shows_tables_and_pictures(run, tmp_path):
    claims = [{"study": "bezout", **c.to_dict()} for c in bezout.claims(run, CONFIG)]
    (run.path / "claims.json").write_text(json.dumps({"claims": claims}))
    page = write_report(run).read_text(encoding="utf-8")
    assert "Systems of zero error" in page
    ledger = page[page.index('id="claims"') : page.index('id="run"')]
    for claim in claims:  # a naive reading's statement stands without the words
        said = claim["statement"].removeprefix("(Naive reading) ").replace("'", "&#39;")
        assert said in ledger or said.replace("&#39;", "'") in ledger
    assert ledger.count("A naive reading:") == 3
    drawn = {path.stem for path in Path(run.path, "figures").iterdir()}
    assert drawn == {"bezout_solutions", "bezout_zero_set", "bezout_critical"}


def test_every_preset_is_a_list_of_systems_that_exist():
    assert set(bezout.SIZES) == set(PRESETS)
    for preset, sizes in bezout.SIZES.items():
        listed = bezout.tasks({"seed": 0, "bezout": sizes})
        assert len({task.key for task in listed}) == len(listed), preset
        for entry in sizes["square"]:
            system = build(entry["network"]).system(entry["samples"], 0)
            assert system.weights == system.equations
        for entry in sizes["wide"] + sizes["beyond"]:
            system = build(entry["network"]).system(entry["samples"], 0)
            assert system.weights > system.equations


def test_the_seed_moves_every_draw():
    one, other = (bezout.tasks({"seed": seed, "bezout": bezout.SIZES["demo"]}) for seed in (0, 100))
    assert not {task.key for task in one} & {task.key for task in other}
