"""The command ``thalweg claims``: the ledger of a run."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from thalweg.cli.runs import Json, RunPath
from thalweg.measurements.formatting import estimate
from thalweg.report.stated_rules import told_rules
from thalweg.run import open_run


def claims(
    run: RunPath,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table of comma-separated values: a row a claim.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the claims that a run tested: verdicts, statistics, rules and controls."""
    opened = open_run(run)
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json: write one of them.")
    if as_csv:
        _write_csv(opened.claims.rows())
        return
    if as_json:
        answer = {"run": str(opened.path), "claims": opened.claims, "rules": opened.judged_by}
        typer.echo(json.dumps(answer))
        return
    for claim in opened.claims:
        typer.echo("\n".join(_lines(claim)))
    if opened.claims:
        sentence, changed = told_rules(opened)
        typer.echo("\n".join([sentence, *(f"    {change}" for change in changed)]))
    if not opened.claims:
        typer.echo(f"No claims are judged in {run}. {_why_none(opened.config)}")


def _write_csv(rows: list[dict[str, Any]]) -> None:
    """Print a head and the rows; nothing where there are none."""
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _lines(claim: dict[str, Any]) -> Iterator[str]:
    yield f"{claim['verdict'].upper():<15} {claim['name']}"
    yield f"    {claim['statement']} ({claim['source']})"
    if claim["statistic"]:
        yield f"    {estimate(claim['statistic'])}"
    yield f"    supported if {claim['rule']}"
    for control in claim["controls"]:
        measured = f": {estimate(control['statistic'])}" if control["statistic"] else ""
        near = ", which nearly passes" if control.get("near") else ""
        yield f"    control{near}, {control['verdict']}: {control['description']}{measured}"
    if claim["why"]:
        yield f"    {claim['why']}"


def _why_none(config: dict[str, Any]) -> str:
    studies = ", ".join(config.get("studies", [])) or "none"
    return f"Its studies: {studies}. An unfinished run judges them at its end: thalweg resume RUN."
