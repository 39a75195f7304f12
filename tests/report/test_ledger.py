"""The claims ledger: first in the page, each row with its evidence, controls and command."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg.report import write_report
from thalweg.run import Run, create_run
from thalweg.run.files import write_json
from thalweg.studies.claim import Claim, Control, Rule
from thalweg.studies.intervals import exact, share

CONFIG = {
    "preset": "demo",
    "seed": 7,
    "studies": ["trajectories"],
    "problem": {"entry": "digits", "settings": {}},
}


def made_claim(hits: int) -> dict:
    claim = Claim(
        "trajectories/returns",
        "Copies <return> to zero error.",
        "Liao and Poggio 2017, claim 5",
        "20 copies trained on.",
        share("copies at zero error", hits, 20),
        Rule(low=0.5),
        (Control("A network with too few weights.", exact("copies at zero error", 0)),),
        section="trajectories",
    )
    return {"study": "trajectories", **claim.to_dict()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create_run(tmp_path / "run", CONFIG)
    write_json(made.path / "claims.json", {"claims": [made_claim(20), made_claim(0)]})
    return made


def test_claims_come_first_and_open_onto_everything(run: Run) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    ledger = page[page.index('id="claims"') : page.index('id="run"')]
    assert "✓ supported" in ledger and "✗ refuted" in ledger
    assert "Copies &lt;return&gt; to zero error." in ledger
    assert "copies at zero error: 1 (95 % interval 0.8316 to 1; exact binomial" in ledger
    assert "supported if the whole interval is at least 0.5" in ledger
    assert "control: refuted" in ledger and "A network with too few weights." in ledger
    assert "--study trajectories --seed 7" in ledger


def test_evidence_is_linked_only_where_the_page_has_it(run: Run) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "<dt>evidence</dt>" not in page


def test_a_run_without_claims_has_no_ledger(tmp_path: Path) -> None:
    made = create_run(tmp_path / "run", CONFIG)
    assert made.claims == []
    assert 'id="claims"' not in write_report(made).read_text(encoding="utf-8")
