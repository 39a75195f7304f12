"""The study of connectivity: verdicts where they are known, and a small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from studies.small import CONFIG
from thalweg.measurements.parts import Picture, Table
from thalweg.report.sections.connectivity import section
from thalweg.run import InProcess, Run, create_run
from thalweg.studies import PRESETS, complete, configure, connectivity
from thalweg.studies.claim import Verdict
from thalweg.studies.connectivity_claims import RULES, judge
from thalweg.studies.connectivity_task import LINES, measure_known
from thalweg.studies.preflight import Sizes

SMALL: dict[str, Any] = connectivity.SIZES["demo"] | {
    "pairs": 3,
    "settings": {"network": "mlp", "widths": [6], "train_size": 40, "test_size": 40},
    "training": {"lr": 0.1, "batch_size": 20},
    "epochs": 30,
    "copy": {"scale": 0.1, "epochs": 5},
    "align": {"restarts": 2, "steps": 20},
    "curve": {"kind": "bezier", "steps": 30},
    "points": 7,
    "known": 2,
    "tree": {"parents": 2, "steps": 10, "points": 5},
}
WHOLE = CONFIG | {"studies": ["connectivity"], "connectivity": SMALL}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = create_run(tmp_path_factory.mktemp("runs") / "ways", WHOLE)
    return complete(made, engine=InProcess())[0]


def made_pairs(**barriers: float) -> xr.Dataset:
    """Six pairs, all barriers but those named as they are where every claim holds."""
    good = dict(zip(LINES, (0.4, 0.02, 0.0, 0.4, 0.2, 0.01, 0.4, 0.0), strict=True)) | barriers
    around = np.linspace(0.9, 1.1, 6)[:, None]
    table = around * np.array([good[line] for line in LINES])
    refused = "" if np.isfinite(table).all() else "no units may change places"
    return xr.Dataset(
        {"barrier": (("pair", "line"), table), "refused": ("pair", [refused] * 6)},
        coords={"pair": range(6), "line": list(LINES)},
    )


def made_known(apart: float = 1.0, winding: float = 0.0) -> xr.Dataset:
    columns = {
        "landscape": ["basins"] * 3 + ["valley"] * 3,
        "number": [0, 1, 2] * 2,
        "straight": [1.0] * 3 + [0.5] * 3,
        "curve": [apart] * 3 + [winding] * 3,
    }
    return xr.Dataset({name: ("case", np.array(column)) for name, column in columns.items()})


def verdicts(pairs: xr.Dataset | None, known: xr.Dataset | None) -> dict[str, Verdict]:
    return {claim.name.partition("/")[2]: claim.verdict for claim in judge(pairs, known)}


def test_verdicts_of_known_cases():
    good = verdicts(made_pairs(), made_known())
    assert list(good) == list(RULES) and set(good.values()) == {Verdict.SUPPORTED}
    bad = {"aligned": 0.4, "curve": 0.3, "copies": 0.4, "permuted_aligned": 0.1}
    found = verdicts(made_pairs(**bad), made_known(winding=0.5))
    assert set(found.values()) == {Verdict.REFUTED}


def test_controls_that_are_none_leave_claims_undecided():
    """A curve through a plain, an order that random ones equal, lines that were low before."""
    spoilt = made_pairs(straight=0.03, aligned=0.01, shuffled=0.001, permuted=0.0005)
    found = verdicts(spoilt, made_known(apart=0.0))
    assert set(found.values()) == {Verdict.UNDECIDED}


def test_what_cannot_be_aligned_is_not_judged():
    nowhere = dict.fromkeys(
        ("aligned", "shuffled", "half_aligned", "permuted", "permuted_aligned"), np.nan
    )
    found = {claim.name: claim for claim in judge(made_pairs(**nowhere), made_known())}
    for name in ("alignment", "one-basin", "permuted-copy"):
        claim = found[f"connectivity/{name}"]
        assert claim.verdict is Verdict.NOT_APPLICABLE and "no units may" in claim.why
    assert found["connectivity/curve"].verdict is Verdict.SUPPORTED
    level = verdicts(made_pairs(straight=0.005), made_known())
    assert level["alignment"] is Verdict.NOT_APPLICABLE  # nothing to be lowered
    assert set(verdicts(None, None).values()) == {Verdict.NOT_APPLICABLE}


@pytest.mark.parametrize(("landscape", "line"), [("basins", 1.0), ("valley", None)])
def test_the_search_on_known_landscapes(landscape, line):
    options = {"kind": "bezier", "steps": 100}
    found = measure_known(None, {"landscape": landscape, "seed": 3, "curve": options}, print)
    if line is not None:
        assert found["curve"] == pytest.approx(line) == found["straight"]
    else:
        assert found["straight"] > 0.3 and found["curve"] < 0.02


def test_small_run(run: Run):
    pairs = run.result("connectivity/pairs")
    barriers = {line: pairs["barrier"].sel(line=line).values for line in LINES}
    assert (barriers["curve"] <= barriers["straight"]).all()
    assert (barriers["aligned"] < barriers["straight"]).all()
    assert np.abs(barriers["permuted_aligned"]).max() < 1e-6 < barriers["permuted"].min()
    assert (pairs["bound"] <= pairs["cost"]).all() and (pairs["cost"] < pairs["unaligned"]).all()
    # All ways begin and end at the same networks, whatever the order of their units.
    for end in (0, -1):
        losses = [pairs[f"loss_{way}"].isel(t=end) for way in ("straight", "aligned", "curve")]
        assert losses[1].values == pytest.approx(losses[0].values, rel=1e-4)
        assert losses[2].values == pytest.approx(losses[0].values, rel=1e-4)
    assert [claim["name"].partition("/")[2] for claim in run.claims] == list(RULES)
    tree = run.result("connectivity/tree")
    assert tree["way"].values.tolist() == ["line", "aligned", "bezier"]
    assert (tree["passes"].sel(way="bezier") <= tree["passes"].sel(way="line") + 1e-12).all()


def test_section_shows_ways_and_tree(run: Run, tmp_path):
    shown = section(run)
    assert shown is not None and not shown.missing
    names = [part.name for part in shown.parts if isinstance(part, Picture)]
    assert names == ["connectivity_ways", "connectivity_barriers", "connectivity_tree"]
    tables = [part for part in shown.parts if isinstance(part, Table)]
    assert [len(table.rows) for table in tables] == [3, 2]
    assert section(create_run(tmp_path / "run", {"studies": []})) is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_could_decide(preset):
    config = configure(preset, studies=["connectivity"])
    assert connectivity.faults(config, Sizes(50_000, 1437)) == []
    starts = [t.arguments for t in connectivity.tasks(config) if t.label.startswith("pair")]
    seeds = [a[name] for a in starts for name in ("seed", "rival")]
    assert len(set(seeds)) == 2 * config["connectivity"]["pairs"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pairs": 2}, "write connectivity.pairs = 3 or more"),
        ({"known": 1}, "write connectivity.known = 3 or more"),
        ({"epochs": 2}, "write connectivity.epochs = 13 or more"),
    ],
)
def test_what_could_not_be_decided_is_told_before_the_first_task(changes, expected):
    config = configure("demo", studies=["connectivity"])
    config = config | {"connectivity": connectivity.SIZES["demo"] | changes}
    (fault,) = connectivity.faults(config, Sizes(3_610, 200))
    assert expected in fault
