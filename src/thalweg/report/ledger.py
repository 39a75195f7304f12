"""The claims ledger: the first thing in a report, one row a claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.measurements.formatting import estimate
from thalweg.report.about import command, shown, shown_path
from thalweg.run import Run

# A sign beside the word: the verdict is not told by colour alone.
_MARKS = {"supported": "✓", "refuted": "✗", "undecided": "?", "not applicable": "–"}


@dataclass(frozen=True)
class Row:
    """
    One claim as the page shows it.

    Parameters
    ----------
    name, statement, verdict, mark : str
        What stands in the closed row.
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
    facts: list[tuple[str, str]]
    section: str
    title: str
    again: str


def ledger(run: Run, sections: Mapping[str, str]) -> list[Row]:
    """Read the claims of a run; ``sections`` are the page's headings by anchor."""
    return [_row(run, claim, sections) for claim in run.claims]


def _row(run: Run, claim: dict[str, Any], sections: Mapping[str, str]) -> Row:
    study = claim["study"]
    return Row(
        name=claim["name"],
        statement=claim["statement"],
        verdict=claim["verdict"],
        mark=_MARKS[claim["verdict"]],
        facts=list(_facts(claim)),
        section=claim["section"] if claim["section"] in sections else "",
        title=sections.get(claim["section"], ""),
        again=command(shown(run.config) | {"studies": [study]}, f"{shown_path(run)}-{study}"),
    )


def _facts(claim: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "claimed by", claim["source"]
    yield "protocol", claim["protocol"]
    if claim["statistic"]:
        yield "measured", estimate(claim["statistic"])
    yield "rule", f"supported if the whole interval is {claim['rule']}; refuted if none of it is"
    for control in claim["controls"]:
        measured = estimate(control["statistic"]) if control["statistic"] else "no such statistic"
        near = "near control" if control.get("near") else "control"
        yield f"{near}: {control['verdict']}", f"{control['description']} {measured}."
    if claim["why"]:
        yield "remark", claim["why"]
