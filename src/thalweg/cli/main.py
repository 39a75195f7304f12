"""The program ``thalweg``: its commands, and how errors and interrupts reach a person."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from thalweg.cli import algebra, certify, output_of_runs, runs
from thalweg.cli.claims import claims
from thalweg.cli.measure import command
from thalweg.cli.users_code import said_by_users_code
from thalweg.errors import ThalwegError
from thalweg.measurements.registry import MEASUREMENTS

_LONGEST_PATH = 200


class _Program(TyperGroup):
    """The commands; Ctrl-C in any of them is one line, and not a shell's answer of failure."""

    def invoke(self, ctx: Any) -> Any:
        """Call a command, and leave with 130 if it is interrupted."""
        # A command knows what an interrupt is; before and after it `thalweg.cli` ends at once.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\nStopped.", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError as error:
            if _reader_has_gone():
                _end_by_the_pipe()
            typer.echo(f"Error: {_of_the_system(error)}", err=True)
            raise typer.Exit(1) from None
        finally:
            signal.signal(signal.SIGINT, before)


app = typer.Typer(
    name="thalweg",
    cls=_Program,
    help="See, measure and prove what the loss landscape looks like where training leads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(runs.reproduce)
app.command()(runs.resume)
app.command()(runs.report)
app.command()(runs.verify)
app.command()(claims)
app.command("runs")(runs.list_all)
app.command()(output_of_runs.diff)
app.command()(output_of_runs.figures)
app.command()(output_of_runs.export)
for record in MEASUREMENTS.values():
    if record.name == certify.app.info.name:  # a command of its group
        continue
    app.command(record.name)(command(record))
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
    except OSError as error:
        typer.echo(f"Error: {_of_the_system(error)}", err=True)
        sys.exit(1)
    except MemoryError:
        typer.echo(f"Error: {_NO_MEMORY}", err=True)
        sys.exit(1)
    except Exception as error:
        # torch has no class of its own for it.
        no_memory = any(sign in str(error) for sign in _TORCH_SIGNS)
        said = _NO_MEMORY if no_memory else said_by_users_code(error)
        if said is None:
            raise
        typer.echo(f"Error: {said}", err=True)
        sys.exit(1)


_NO_MEMORY = "there is not enough memory. Measure less, or in parts."
_TORCH_SIGNS = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")


def _reader_has_gone() -> bool:
    """Say whether nobody reads standard output any more."""
    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in look.poll(0))


def _end_by_the_pipe() -> NoReturn:
    """End as other programs do whose output nobody reads, such as `cat FILE | head -1`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    raise SystemExit(1)


def _of_the_system(error: OSError) -> str:
    """Say in one line what the system refused, and of which file."""
    said = (error.strerror or str(error)).splitlines() or [type(error).__name__]
    path = str(error.filename or "")
    shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    return f"{said[0]}{': ' * bool(shown)}{shown}. What was done before is kept."
