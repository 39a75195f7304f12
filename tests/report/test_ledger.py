"""The claims ledger: first in the page, each row with its evidence, controls and command."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from thalweg.report import write_report
from thalweg.report.interval_picture import draw_interval
from thalweg.report.ledger import ledger
from thalweg.report.paper import PAPER
from thalweg.run import Run, create_run
from thalweg.run.files import write_json
from thalweg.studies.claim import Claim, Control, Rule
from thalweg.studies.intervals import exact, share
from thalweg.studies.presets import configure
from thalweg.studies.registry import RULES

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
    assert "✓ 1 supported" in ledger and "✗ 1 refuted" in ledger  # of what was judged besides
    assert ledger.count("not looked at") == len(PAPER)
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


def claimed(name: str, statement: str, hits: int) -> dict:
    return made_claim(hits) | {"name": name, "statement": statement, "study": name.split("/")[0]}


def test_the_papers_claims_are_seven_rows_with_naive_readings_last(tmp_path: Path) -> None:
    made = create_run(tmp_path / "run", CONFIG)
    claims = [
        claimed("bezout/bound-is-count", "(Naive reading) As many as the bound.", 0),
        claimed("bezout/many", "There are many.", 20),
        claimed("bezout/rank", "Up to the rank.", 20),
        claimed("perturb_and_return/flat", "It is flat.", 20),
        claimed("degeneracy/box", "There is a box.", 10),
    ]
    write_json(made.path / "claims.json", {"claims": claims})
    rows = {group.label: group for group in ledger(made, {})}
    assert list(rows) == [str(paper.number) for paper in PAPER]
    # A naive reading is no test of the paper: it is told, and not counted.
    assert [row.naive for row in rows["2"].rows] == [False, False, True]
    assert rows["2"].verdicts == [("supported", "✓", "supported")]
    assert [text for *_, text in rows["5"].verdicts] == ["1 supported", "1 undecided"]
    assert rows["1"].rows == [] and rows["1"].verdicts == []


def test_every_claim_of_the_studies_belongs_to_one_claim_of_the_paper() -> None:
    config = configure("demo")
    made = {f"{study}/{claim}" for study in RULES for claim in RULES[study](config)}
    tested = Counter(name for paper in PAPER for name in paper.tests)
    assert set(tested) == made
    assert set(tested.values()) == {1}


def _places(picture: str) -> tuple[float, float, float, tuple[float, float]]:
    """Ends of the line, of the dot, and of the shaded range."""
    line = re.search(r'class="range" x1="([\d.]+)".*?x2="([\d.]+)"', picture)
    dot = re.search(r'<circle class="value" cx="([\d.]+)"', picture)
    asked = re.search(r'class="asked" x="([\d.]+)" y="2" width="([\d.]+)"', picture)
    assert line and dot and asked
    left, width = map(float, asked.groups())
    return float(line[1]), float(dot[1]), float(line[2]), (left, left + width)


@pytest.mark.parametrize(
    ("value", "low", "high", "threshold", "inside"),
    [
        (0.9, 0.7, 1.0, (0.5, None), True),
        (0.9, 0.4, 1.0, (0.5, None), False),
        (0.1, 0.0, 0.2, (0.5, None), False),
        (0.99, 0.0, 1249.0, (0.5, None), False),
        (0.01, -0.02, None, (None, 0.03), False),
        (3.0, 3.0, 3.0, (1.0, None), True),
        (0.0, 0.0, 0.0, (0.0, 0.0), True),
        (1.0, 1.0, 1.0, (0.0, 0.0), False),
        (1e-9, -1e-9, 3e-9, (-0.5, 0.5), True),
    ],
)
def test_an_interval_is_drawn_inside_of_the_range_just_where_it_lies_in_it(
    value: float, low: float, high: float | None, threshold: tuple, inside: bool
) -> None:
    told = {"value": value, "low": low, "high": high}
    picture = str(draw_interval(told, list(threshold), label="x < y"))
    first, dot, last, (left, right) = _places(picture)
    assert first <= dot <= last
    assert (left - 0.2 <= first and last <= right + 0.2) == inside
    assert "x &lt; y" in picture


def test_an_interval_that_leaves_the_picture_has_no_bar_there() -> None:
    told = {"value": 0.99, "low": 0.0, "high": 1249.0}
    assert str(draw_interval(told, [0.5, None], label="")).count('class="end"') == 1
    told["high"] = 1.2
    assert str(draw_interval(told, [0.5, None], label="")).count('class="end"') == 2
