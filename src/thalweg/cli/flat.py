"""The commands ``thalweg margin`` and ``thalweg degeneracy``: flatness around a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.runs import Json, parse_settings
from thalweg.run.progress import on_screen

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.risk import EmpiricalRisk

Entry = Annotated[str, typer.Argument(help="Problem: digits, cifar10, teacher, path/file.py:make.")]
Checkpoint = Annotated[Path, typer.Option(help="The weights (.safetensors, .pt).")]
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
    as_json: Json = False,
) -> None:
    """Prove a box of weights on which no training sample is misclassified, and attack it."""
    import thalweg as tw

    risk, w = _point(entry, checkpoint, assign, batchnorm="frozen")
    found = tw.certify_margin(risk, w, scale=scale, attack=attack, progress=on_screen)  # type: ignore[arg-type]
    _say(found.to_dict(), as_json)
    if found.verdict != "certified":
        raise typer.Exit(1)


def degeneracy(
    entry: Entry,
    checkpoint: Checkpoint,
    assign: Assign = None,
    batchnorm: Annotated[
        str, typer.Option(help="batch (statistics of the whole set, differentiated) or frozen.")
    ] = "batch",
    as_json: Json = False,
) -> None:
    """Measure rank and nullity of the outputs' Jacobian, and what explains the nullity."""
    import thalweg as tw

    risk, w = _point(entry, checkpoint, assign, batchnorm=batchnorm)
    _say(tw.degeneracy(risk, w, progress=on_screen).to_dict(), as_json)


def _point(
    entry: str, checkpoint: Path, assign: list[str] | None, *, batchnorm: str
) -> tuple[EmpiricalRisk, Tensor]:
    import thalweg as tw
    from thalweg.problems import fit_weights, load_weights

    problem = tw.load_problem(entry, progress=on_screen, **parse_settings(assign or []))
    tensors = fit_weights(problem.model, load_weights(checkpoint)[0])
    risk = tw.EmpiricalRisk(problem, batchnorm=batchnorm)
    own = risk.buffers()
    risk.set_buffers({name: tensors[name] for name in own.keys() & tensors.keys()})
    return risk, risk.space.pack(tensors)


def _say(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            typer.echo(f"{title}:")
            for key, part in value.items():
                typer.echo(f"  {key.replace('_', ' '):<28} {_cell(part)}")
        elif isinstance(value, tuple):
            lines = [f"{title}:", *(f"  - {text}" for text in value)] if value else []
            typer.echo("\n".join(lines), nl=bool(lines))
        else:
            typer.echo(f"{title:<18} {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
