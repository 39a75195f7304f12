"""The study of degeneracy: both verdicts where they are known, a small run, its report section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from studies.small import CONFIG
from thalweg.certificates.store import verify
from thalweg.measurements.parts import Picture, Table
from thalweg.plots import plot_boxes, plot_eigenvalues, plot_split
from thalweg.report.sections.degeneracy import section
from thalweg.run import InProcess, Run
from thalweg.studies import reproduce
from thalweg.studies.degeneracy_claims import _CONTROLS, _NEAR, judge
from thalweg.studies.degeneracy_measures import _regression

SMALL: dict[str, Any] = {
    "networks": 6,
    "few": 1,
    "zeros": {"samples": 30, "outputs": 3, "width": 16, "activation": "tanh", "units": 1},
    "hessian": {"samples": 8, "outputs": 3, "width": 8, "activation": "tanh", "units": 1},
    "boxes": {"samples": 20, "width": 16, "epochs": 150, "units": 1},
}


def zeros(certified: int, missed: int, repeated: int, early: int) -> xr.Dataset:
    rows = [("zero", "network", "certified", 0)] * certified
    rows += [("zero", "network", "refused", 7)] * (6 - certified)
    rows[0] = ("zero", "network", rows[0][2], missed)
    rows += [("zero", case, "refused", 0) for case in (*_CONTROLS, *_NEAR)] * 6
    rows += [("zero", "repeated", "certified", repeated)]
    rows += [("hessian", "network", "certified", missed), ("hessian", "early", "refused", early)]
    measure, case, verdict, miss = (list(column) for column in zip(*rows, strict=True))
    size = np.full(len(rows), 100)
    return xr.Dataset(
        {
            "verdict": ("network", verdict),
            "weights": ("network", size),
            "equations": ("network", size - 60),
            "nullity": ("network", 60.0 + np.array(miss)),
        },
        coords={"case": ("network", case), "measure": ("network", measure)},
    )


def boxes(proved: int, wrong: int) -> xr.Dataset:
    widths = [1e-3] * proved + [0.0] * (6 - proved) + [1e-3] * wrong + [0.0] * (6 - wrong)
    cases = ["network"] * 6 + ["contradictory"] * 6
    return xr.Dataset({"half_width": ("network", widths)}, coords={"case": ("network", cases)})


def verdicts(*parts: xr.Dataset) -> dict[str, str]:
    return {claim.name.partition("/")[2]: str(claim.verdict) for claim in judge(*parts)}


def test_verdicts_of_known_cases() -> None:
    good = verdicts(zeros(6, 0, 9, -5), boxes(6, 0))
    assert set(good.values()) == {"supported"} and len(good) == 4
    bad = verdicts(zeros(0, 0, 9, -5), boxes(0, 0))
    assert bad["certified"] == bad["box"] == "refuted"
    assert bad["nullity"] == "not applicable"
    # A nullity that misses; controls that are no controls.
    assert verdicts(zeros(6, 1, 9, -5), boxes(6, 0))["nullity"] == "refuted"
    assert verdicts(zeros(6, 0, 0, 0), boxes(6, 6))["nullity"] == "undecided"
    assert verdicts(zeros(6, 0, 9, 0), boxes(6, 6))["hessian"] == "undecided"
    assert verdicts(zeros(6, 0, 9, 0), boxes(6, 6))["box"] == "undecided"
    assert verdicts(zeros(3, 0, 9, -5), boxes(3, 0))["certified"] == "undecided"


@pytest.mark.parametrize("samples", [8, 30, 50])
def test_near_controls_are_next_to_the_count_of_equations(samples: int) -> None:
    given = {"samples": samples, "outputs": 3, "width": 16, "activation": "tanh", "seed": 0}
    sizes = {}
    for case in ("narrow", "below", "above", "network"):
        risk, _ = _regression(given | {"case": case})
        assert risk.problem.train[1].shape[1] == 3
        sizes[case] = risk.space.size, risk.problem.train[1].numel()
    (below, equations), (above, fewer) = sizes["below"], sizes["above"]
    assert below == above and fewer == samples * 3
    assert equations - 3 <= below < equations and above - 68 <= fewer < above


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = CONFIG | {"studies": ["degeneracy"], "degeneracy": SMALL}
    place: Path = tmp_path_factory.mktemp("degeneracy") / "run"
    found, summary = reproduce(config, place, engine=InProcess())
    assert summary["degeneracy"]["boxes"] == 6
    return found


def test_small_run_supports_every_claim(run: Run) -> None:
    told = {claim["name"]: claim for claim in run.claims}
    assert {claim["verdict"] for claim in told.values()} == {"supported"}
    controls = [control for claim in told.values() for control in claim["controls"]]
    assert {control["verdict"] for control in controls if not control["near"]} == {"refuted"}
    near = {control["verdict"] for control in controls if control["near"]}
    assert near and near <= {"refuted", "undecided"}
    reasons = run.result("degeneracy/zeros")
    mine = {
        str(c): str(r)
        for c, r in zip(reasons["case"].values, reasons["reason"].values, strict=True)
    }
    assert "less than M" in mine["narrow"] and "contradict" in mine["contradictory"]


def test_section_shows_proofs_and_pictures(run: Run) -> None:
    shown = section(run)
    assert shown is not None and not shown.missing
    tables = [part for part in shown.parts if isinstance(part, Table)]
    pictures = [part for part in shown.parts if isinstance(part, Picture)]
    assert [len(table.rows) for table in tables] == [6, 6, 5, 12]
    assert "Theorem" in tables[0].note and "(95 % interval" in tables[0].note
    for row in tables[0].rows:
        residual, low, lipschitz, radius, distance = map(float, row[3:8])
        slope = low - lipschitz * radius
        assert residual < slope * radius and distance == pytest.approx(residual / slope, rel=0.05)
    assert [picture.name for picture in pictures] == [
        "degeneracy-spectrum",
        "degeneracy-split",
        "degeneracy-boxes",
    ]
    # What was measured ends a caption; the verdict on it is said once, in the ledger.
    assert all(picture.caption.endswith(").") for picture in pictures)
    assert not any("supported" in picture.caption for picture in pictures)


def test_each_proof_of_the_page_can_be_verified(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = section(run)
    assert shown is not None
    table = next(p for p in shown.parts if isinstance(p, Table) and "check" in p.title)
    assert "Cholesky" in table.note
    monkeypatch.chdir(run.path)
    zeros = run.result("degeneracy/zeros")
    own = zeros.isel(network=np.flatnonzero(zeros["certificate"].values != ""))
    for (_, command), residual in zip(table.rows, own["residual"].values, strict=False):
        words = command.split()
        assert words[:3] == ["thalweg", "certify", "verify"]
        proved = verify(words[3])
        assert proved.verdict == "verified" and proved.certificate is not None
        assert float(residual) <= proved.certificate.residual < 1e-10


def test_section_of_another_run_is_absent(tmp_path: Path) -> None:
    from thalweg.run import create_run

    assert section(create_run(tmp_path / "run", {"studies": []})) is None


def test_pictures_draw_what_the_data_say() -> None:
    spectra = xr.Dataset(
        {
            "eigenvalue": (("network", "index"), [[4.0, 1.0, np.nan], [2.0, 1.0, 0.0]]),
            "threshold": ("network", [1e-9, 2e-9]),
        },
        coords={"case": ("network", ["network", "repeated"])},
    )
    axes = plot_eigenvalues(spectra, ax=Figure().add_subplot())
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [4, 1])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [2, 1, 1e-15])
    split = xr.Dataset(
        {"directions": (("network", "cause"), [[3, 0, 5]])},
        coords={
            "cause": ["rescaling", "dead units", "rest"],
            "case": ("network", ["network"]),
            "seed": ("network", [0]),
        },
    )
    axes = plot_split(split, ax=Figure().add_subplot())
    assert [(p.get_x(), p.get_width()) for p in axes.patches] == [(0, 3), (3, 5)]
    both = xr.Dataset(
        {"half_width": ("network", [1e-3, 0.0]), "attacked": ("network", [2e-3, 0.0])},
        coords={"seed": ("network", [4, 5])},
    )
    axes = plot_boxes(both, ax=Figure().add_subplot())
    np.testing.assert_allclose([line.get_xdata()[0] for line in axes.lines], [1e-3, 2e-3])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["network 4"]
