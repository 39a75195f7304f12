"""The claims ledger: the first thing in a report, a row for each of the paper's claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from thalweg.measurements.formatting import estimate
from thalweg.report.about import command, shown, shown_path
from thalweg.report.interval_picture import draw_interval
from thalweg.report.paper import PAPER, PaperClaim
from thalweg.run import Run

# A sign beside the word: the verdict is not told by colour alone.
_MARKS = {"supported": "✓", "refuted": "✗", "undecided": "?", "not applicable": "–"}
# Readings that the paper does not make, and that its claims are often taken for.
_NAIVE = "(Naive reading) "


@dataclass(frozen=True)
class Row:
    """
    One claim of a study.

    Parameters
    ----------
    name, statement, verdict, mark : str
        What stands in the closed row.
    naive : bool
        Whether it is a reading that the paper does not make.
    interval : Markup
        Its statistic drawn against its rule; empty where there is none.
    facts : list of (str, str)
        What it opens onto.
    section, title : str
        Anchor and heading of the evidence; empty where the page has none.
    again : str
        The command that repeats the study.
    """

    name: str
    statement: str
    verdict: str
    mark: str
    naive: bool
    interval: Markup
    facts: list[tuple[str, str]]
    section: str
    title: str
    again: str


@dataclass(frozen=True)
class Group:
    """
    A claim of the paper, or what is claimed besides.

    Parameters
    ----------
    label, statement, remark : str
        Number or word, claim, and what is not judged of it.
    verdicts : list of (str, str, str)
        Of the rows that are no naive readings: word for the style, mark, and text, such as
        "5 supported"; one where all agree.
    rows : list of Row
        Naive readings last.
    picture : str
        Name of the picture that shows it; it may not be in the page.
    """

    label: str
    statement: str
    remark: str
    verdicts: list[tuple[str, str, str]]
    rows: list[Row]
    picture: str


def ledger(run: Run, sections: Mapping[str, str]) -> list[Group]:
    """
    Read the claims of a run.

    Parameters
    ----------
    run : Run
        With its claims.
    sections : mapping
        The page's headings by anchor.

    Returns
    -------
    list of Group
        The paper's seven claims, and then what else was judged; nothing for a run that judges
        nothing.
    """
    claims = run.claims
    if not claims:
        return []
    tested = {name for paper in PAPER for name in paper.tests}
    untested = [claim for claim in claims if claim["name"] not in tested]
    groups = [
        _group(paper, [_row(run, c, sections) for c in claims if c["name"] in paper.tests])
        for paper in PAPER
    ]
    return [*groups, *_besides([_row(run, claim, sections) for claim in untested])]


def _group(paper: PaperClaim, rows: list[Row]) -> Group:
    ordered = sorted(rows, key=lambda row: row.naive)
    return Group(
        label=str(paper.number),
        statement=paper.statement,
        remark=paper.remark,
        verdicts=_verdicts(ordered),
        rows=ordered,
        picture=paper.picture,
    )


def _besides(rows: list[Row]) -> Iterator[Group]:
    if rows:
        yield Group("+", "What was judged besides.", "", _verdicts(rows), rows, "")


def _verdicts(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    counts = Counter(row.verdict for row in rows if not row.naive)
    return [
        (verdict, mark, verdict if len(counts) == 1 else f"{counts[verdict]} {verdict}")
        for verdict, mark in _MARKS.items()
        if counts[verdict]
    ]


def _row(run: Run, claim: dict[str, Any], sections: Mapping[str, str]) -> Row:
    study, statement = claim["study"], claim["statement"]
    return Row(
        name=claim["name"],
        statement=statement.removeprefix(_NAIVE),
        verdict=claim["verdict"],
        mark=_MARKS[claim["verdict"]],
        naive=statement.startswith(_NAIVE),
        interval=_interval(claim),
        facts=list(_facts(claim)),
        section=claim["section"] if claim["section"] in sections else "",
        title=sections.get(claim["section"], ""),
        again=command(shown(run.config) | {"studies": [study]}, f"{shown_path(run)}-{study}"),
    )


def _interval(claim: dict[str, Any]) -> Markup:
    # Runs of before they said their thresholds have none to draw.
    if not claim["statistic"] or "threshold" not in claim:
        return Markup("")
    label = f"{estimate(claim['statistic'])}; asked for: {claim['rule']}"
    return draw_interval(claim["statistic"], claim["threshold"], label=label)


def _facts(claim: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if claim["statistic"]:
        yield "measured", estimate(claim["statistic"])
    yield "rule", f"supported if the whole interval is {claim['rule']}; refuted if none of it is"
    for control in claim["controls"]:
        measured = estimate(control["statistic"]) if control["statistic"] else "no such statistic"
        near = "near control" if control.get("near") else "control"
        yield f"{near}: {control['verdict']}", f"{control['description']} {measured}."
    if claim["why"]:
        yield "remark", claim["why"]
    yield "protocol", claim["protocol"]
    yield "claimed by", claim["source"]
