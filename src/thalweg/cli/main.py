"""The program ``thalweg``: its commands, and how errors and interrupts reach a person."""

from __future__ import annotations

import logging
import sys

import typer

from thalweg.cli import algebra, certify, flat, geometry, runs
from thalweg.cli.claims import claims
from thalweg.cli.line import barrier
from thalweg.errors import ThalwegError

app = typer.Typer(
    name="thalweg",
    help="See, measure and prove what the loss landscape looks like where training leads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(runs.reproduce)
app.command()(runs.resume)
app.command()(runs.report)
app.command()(claims)
app.command()(barrier)
app.command("runs")(runs.list_all)
app.command()(geometry.surface)
app.command()(geometry.spectrum)
app.command()(flat.margin)
app.command()(flat.degeneracy)
app.add_typer(algebra.app)
app.add_typer(certify.app)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"thalweg {version('thalweg')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_say_version, help="Say which version this is."
    ),
) -> None:
    """See, measure and prove what the loss landscape looks like where training leads."""


def main() -> None:
    """Run the program: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        app()
    except ThalwegError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
