"""The commands ``thalweg certify``: prove a zero next to a checkpoint, verify a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from thalweg.cli.measure import command
from thalweg.cli.runs import Json, parse_settings
from thalweg.measurements.record import cell
from thalweg.measurements.registry import MEASUREMENTS
from thalweg.run.progress import on_screen


class _WithDefault(TyperGroup):
    """A group whose first word may be left out: ``certify ENTRY`` is ``certify zero ENTRY``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what names none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["zero", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = typer.Typer(
    name="certify",
    cls=_WithDefault,
    help="Prove an exact zero of the training error next to a checkpoint: certify ENTRY"
    " [OPTIONS], as certify zero ENTRY. Or verify a proof.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("zero")(command(MEASUREMENTS["certify"]))


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate (.json).")],
    problem: Annotated[
        str | None,
        typer.Option(
            help="Your own problem, to compare network and data with; what the file names is never"
            " loaded."
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Your own checkpoint of --problem: the digest of its whole state is compared."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Trust no library's matrix products or factorization: ten to a hundred times"
            " slower.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove a stored certificate anew from its stored weights and data; exit code 1 if refused."""
    from thalweg.certificates.store import verify as perform

    own = None if problem is None else (problem, parse_settings(assign or []))
    if checkpoint is not None and own is None:
        raise typer.BadParameter("--checkpoint is opened with your problem: give --problem, too.")
    state = None if own is None or checkpoint is None else _state(own, checkpoint)
    found = perform(certificate, problem=own, state=state, strict=strict, progress=on_screen)
    answer = found.to_dict()
    proved = answer["certificate"]
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        typer.echo(found.verdict)
        for reason in found.reasons:
            typer.echo(f"  {reason}")
        if proved is not None:
            typer.echo("\n".join(f"{k.replace('_', ' '):<15} {cell(v)}" for k, v in proved.items()))
        typer.echo("\n".join(["assumptions:", *(f"  - {text}" for text in found.assumptions)]))
    if found.verdict != "verified":
        raise typer.Exit(1)


def _state(own: tuple[str, dict[str, Any]], checkpoint: Path) -> str:
    """Digest the whole state of a checkpoint."""
    import thalweg as tw

    return tw.open_point(tw.load_problem(own[0], **own[1]), checkpoint).sha256
