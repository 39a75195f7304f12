"""The commands ``thalweg margin``, ``degeneracy`` and ``flatness``: around a checkpoint."""

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
    seconds: Annotated[
        float, typer.Option(help="Time after which the widest box proved so far is the answer.")
    ] = 3600.0,
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
    options: Any = {"scale": scale, "attack": attack, "seconds": seconds, "progress": on_screen}
    found = tw.certify_margin(risk, w, **options)
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


def flatness(
    entry: Entry,
    checkpoint: Annotated[list[Path], typer.Option(help=f"The weights: {FORMS}; may be repeated.")],
    assign: Assign = None,
    noise: Annotated[float, typer.Option(help="Size of noise, relative to the weights.")] = 0.05,
    radius: Annotated[
        float, typer.Option(help="Distance of the worst direction, relative to the weights.")
    ] = 0.01,
    rise: Annotated[float, typer.Option(help="Rise of the loss that noise may bring.")] = 0.1,
    error_rise: Annotated[
        float, typer.Option(help="Rise of the error, as a share of samples.")
    ] = 0.01,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of noise in a mean.")] = 20,
    copies: Annotated[int, typer.Option(min=6, help="Noisy copies of a level.")] = 20,
    batchnorm: Annotated[
        str, typer.Option(help="recalibrate (statistics re-estimated at each point), ...")
    ] = "recalibrate",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is random.")] = 0,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Measure how flat the loss is around checkpoints, in plain and in relative units."""
    import thalweg as tw

    answers = []
    for path in checkpoint:
        how = opening(part, partial, allow)
        risk, point = _at(entry, path, assign, how, batchnorm=batchnorm)
        answer = tw.flatness(
            risk,
            point.load_into(risk),
            noise=noise,
            radius=radius,
            rise=rise,
            error_rise=error_rise,
            pairs=pairs,
            copies=copies,
            seed=seed,
            progress=on_screen,
        )
        answers.append({**answer.to_dict(), "checkpoint": about(point)})
        if not as_json:
            _say_flatness(answers[-1])
    if as_json:
        typer.echo(json.dumps({"checkpoints": answers}))


def _say_flatness(answer: dict[str, Any]) -> None:
    typer.echo(f"{answer['checkpoint']['file']}: loss {answer['value']:.5g}")
    for note in answer["checkpoint"]["notes"]:
        typer.echo(f"  - {note}")
    heads = f"{'measure':<12} {'units':<9} {'value':>10} {'from':>10} {'to':>10}"
    typer.echo(f"{heads}  {'flatter is':<10} {'status':<13} invariant under")
    for measure in answer["measures"]:
        numbers = " ".join(f"{_cell(measure[key]):>10}" for key in ("value", "low", "high"))
        typer.echo(
            f"{measure['name']:<12} {measure['form']:<9} {numbers}  {measure['flatter']:<10}"
            f" {measure['status']:<13} {', '.join(measure['invariant'])}"
        )


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
