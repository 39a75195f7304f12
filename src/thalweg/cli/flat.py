"""The commands ``thalweg margin`` and ``thalweg degeneracy``: flatness around a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.points import FORMS, Allow, FileEntry, Partial, about, opening
from thalweg.cli.runs import Json, parse_settings
from thalweg.run.progress import on_screen

if TYPE_CHECKING:
    from thalweg.problems import Point
    from thalweg.risk import EmpiricalRisk

Entry = Annotated[str, typer.Argument(help="Problem: digits, cifar10, teacher, path/file.py:make.")]
Checkpoint = Annotated[Path, typer.Option(help=f"The weights: {FORMS}.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
]


def margin(
    entry: Entry,
    checkpoint: Checkpoint,
    assign: Assign = None,
    scale: Annotated[
        str, typer.Option(help="absolute, or layer: in units of each layer's scale.")
    ] = "absolute",
    attack: Annotated[
        bool, typer.Option("--attack/--no-attack", help="Look for the smallest box that breaks.")
    ] = True,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Prove a box of weights on which no training sample is misclassified, and attack it."""
    import thalweg as tw

    how = opening(part, partial, allow)
    risk, point = _at(entry, checkpoint, assign, how, batchnorm="frozen")
    w = point.load_into(risk)
    found = tw.certify_margin(risk, w, scale=scale, attack=attack, progress=on_screen)  # type: ignore[arg-type]
    _say({**found.to_dict(), "checkpoint": about(point)}, as_json)
    if found.verdict != "certified":
        raise typer.Exit(1)


def degeneracy(
    entry: Entry,
    checkpoint: Checkpoint,
    assign: Assign = None,
    batchnorm: Annotated[
        str, typer.Option(help="batch (statistics of the whole set, differentiated) or frozen.")
    ] = "batch",
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Measure rank and nullity of the outputs' Jacobian, and what explains the nullity."""
    import thalweg as tw

    how = opening(part, partial, allow)
    risk, point = _at(entry, checkpoint, assign, how, batchnorm=batchnorm)
    found = tw.degeneracy(risk, point.load_into(risk), progress=on_screen)
    _say({**found.to_dict(), "checkpoint": about(point)}, as_json)


def _at(
    entry: str,
    checkpoint: Path,
    assign: list[str] | None,
    how: dict[str, Any],
    *,
    batchnorm: str,
) -> tuple[EmpiricalRisk, Point]:
    import thalweg as tw

    problem = tw.load_problem(entry, progress=on_screen, **parse_settings(assign or []))
    risk = tw.EmpiricalRisk(problem, batchnorm=batchnorm)
    return risk, tw.open_point(problem, checkpoint, **how)


def _say(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            typer.echo(f"{title}:")
            for key, part in value.items():
                head = f"  {key.replace('_', ' '):<28} "
                for line in part if isinstance(part, list) else [_cell(part)]:
                    typer.echo(head + line)
        elif isinstance(value, tuple):
            lines = [f"{title}:", *(f"  - {text}" for text in value)] if value else []
            typer.echo("\n".join(lines), nl=bool(lines))
        else:
            typer.echo(f"{title:<18} {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
