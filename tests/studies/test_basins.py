"""The study of basins: verdicts where they are known, and a small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from studies.small import CONFIG
from thalweg.basins import FAMILIES
from thalweg.basins.fit import NONE
from thalweg.measurements.parts import Picture, Table
from thalweg.report.sections.basins import section
from thalweg.run import InProcess, Run, create_run
from thalweg.studies import PRESETS, basins, complete, configure
from thalweg.studies.basins_claims import NETWORKS, RULES, SHUFFLED, judge
from thalweg.studies.basins_task import PLAIN
from thalweg.studies.claim import Verdict
from thalweg.studies.preflight import Sizes

SMALL: dict[str, Any] = basins.SIZES["demo"] | {
    "draws": 1,
    "settings": {"network": "mlp", "train_size": 30, "test_size": 20},
    "widths": [[3], [4]],
    "steps": 8,
    "predictive": 1,
}
WHOLE = CONFIG | {"studies": ["basins"], "basins": SMALL}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = create_run(tmp_path_factory.mktemp("runs") / "basins", WHOLE)
    return complete(made, engine=InProcess())[0]


def made_fits(networks: str, *, plain: str = NONE, known: dict[str, str] | None = None):
    """Six signatures of each kind: networks given one answer, known landscapes their own."""
    answers = {NETWORKS: networks, **{name: name for name in FAMILIES}, PLAIN: plain}
    answers |= known or {}
    rows = [(kind, answer) for kind, answer in answers.items() for _ in range(6)]
    columns = dict(zip(("kind", "family"), zip(*rows, strict=True), strict=True))
    return xr.Dataset({name: ("signature", np.array(column)) for name, column in columns.items()})


def made_memories(networks: bool, *, tree: bool = True, valley: bool = False, widths: int = 2):
    nested = {NETWORKS: networks, "tree": tree, "valley": valley, SHUFFLED: False}
    kinds = [kind for kind in nested for _ in range(widths)]
    return xr.Dataset({"kind": ("set", kinds), "nested": ("set", [nested[k] for k in kinds])})


def verdicts(fits: xr.Dataset | None, memories: xr.Dataset | None) -> dict[str, Verdict]:
    return {claim.name.partition("/")[2]: claim.verdict for claim in judge(fits, memories)}


def test_verdicts_of_known_cases():
    tree = verdicts(made_fits("basins"), made_memories(True))
    assert list(tree) == list(RULES)
    assert tree.pop("one-valley") is Verdict.REFUTED
    assert set(tree.values()) == {Verdict.SUPPORTED}
    valley = verdicts(made_fits("valley"), made_memories(False))
    assert valley["one-valley"] is valley["described"] is Verdict.SUPPORTED
    assert valley["side-by-side"] is valley["inside-basins"] is Verdict.REFUTED
    none = verdicts(made_fits(NONE), made_memories(False))
    assert {none[name] for name in ("side-by-side", "one-valley", "described")} == {Verdict.REFUTED}
    assert none["known-case"] is Verdict.SUPPORTED


def test_a_protocol_that_tells_nothing_apart_supports_nothing():
    """A tree taken for basins side by side, a plain for a family, a valley for a tree."""
    spoilt = made_fits("basins", plain="bowl", known={"tree": "basins", "rugged": NONE})
    found = verdicts(spoilt, made_memories(True, valley=True))
    for name in ("side-by-side", "described", "inside-basins"):
        assert found[name] is Verdict.UNDECIDED
    assert found["known-case"] is Verdict.UNDECIDED  # 24 of 36 reach beyond three quarters


@pytest.mark.parametrize("memories", [made_memories(False, tree=False), None])
def test_what_the_test_cannot_find_is_not_refuted(memories):
    assert verdicts(made_fits(NONE), memories)["inside-basins"] is Verdict.NOT_APPLICABLE
    one = verdicts(made_fits(NONE), made_memories(False, widths=1))
    assert one["inside-basins"] is Verdict.NOT_APPLICABLE
    assert set(verdicts(None, None).values()) == {Verdict.NOT_APPLICABLE}


def test_small_run(run: Run):
    fits = run.result("basins/fits")
    known = fits.isel(signature=np.isin(fits["kind"].values, list(FAMILIES)))
    assert (known["family"].values == known["kind"].values).sum() >= 10  # of 12
    assert (fits["family"].values[fits["kind"].values == PLAIN] == NONE).all()
    assert fits["posterior"].sum("among").values == pytest.approx(1.0)
    profiles = run.result("basins/profiles")
    # One bowl takes everything back; wells in all directions nothing.
    returned = {
        k: float(profiles["returned"].isel(set=profiles["kind"].values == k).mean())
        for k in ("bowl", "rugged")
    }
    assert returned["bowl"] == 1.0 and returned["rugged"] < 0.5
    memories = run.result("basins/memories")
    assert memories["kind"].values.tolist().count(SHUFFLED) == 2
    assert not memories["nested"].values[np.isin(memories["kind"], ["valley", SHUFFLED])].any()
    assert [claim["name"].partition("/")[2] for claim in run.claims] == list(RULES)


def test_section_shows_families_and_checks(run: Run, tmp_path):
    shown = section(run)
    assert shown is not None and not shown.missing
    names = [part.name for part in shown.parts if isinstance(part, Picture)]
    assert names == ["basins_profiles", "basins_posterior", "basins_predictive", "basins_memory"]
    (table,) = (part for part in shown.parts if isinstance(part, Table))
    assert len(table.rows) == 2 * (2 + len(FAMILIES))
    assert section(create_run(tmp_path / "run", {"studies": []})) is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_could_decide(preset):
    config = configure(preset, studies=["basins"])
    assert basins.faults(config, Sizes(50_000, 1437)) == []
    own = [task.arguments for place, task in basins._placed(config) if place["kind"] == NETWORKS]
    draws = [arguments["problem"]["settings"].get("data_seed", 0) for arguments in own]
    assert len(set(draws)) == len(draws) == 6


def test_a_problem_of_ones_own_has_one_network():
    config = configure("demo", studies=["basins"], data="teacher")
    own = [task for place, task in basins._placed(config) if place["kind"] == NETWORKS]
    assert len(own) == 3
    (fault,) = basins.faults(config, Sizes(100, 50))
    assert "write basins.draws = 6 or more" in fault


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"draws": 2}, "write basins.draws = 3 or more"),
        ({"copies": 2}, "write basins.copies = 4 or more"),
        ({"parents": 3}, "write basins.parents = 4 or more"),
    ],
)
def test_what_could_not_be_decided_is_told_before_the_first_task(changes, expected):
    config = configure("demo", studies=["basins"])
    config = config | {"basins": basins.SIZES["demo"] | changes}
    (fault,) = basins.faults(config, Sizes(610, 100))
    assert expected in fault
