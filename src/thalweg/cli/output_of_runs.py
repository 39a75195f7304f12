"""The commands that compare runs and write their results anew: diff, figures, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.runs import Json, RunPath
from thalweg.run import open_run


def diff(
    first: Annotated[Path, typer.Argument(help="A run directory.")],
    last: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """
    Say what differs between two runs: verdicts, statistics, settings, versions.

    The exit code is 0 whether something differs or not.
    """
    from thalweg.report.difference import compare_runs

    found = compare_runs(open_run(first), open_run(last))
    answer = {"first": str(first), "last": str(last), **found.to_dict()}
    typer.echo(json.dumps(answer) if as_json else "\n".join(found.told()))


def figures(
    run: RunPath,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A figure, as its file is called; repeatable. By default all."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="pdf, svg, png, or another that matplotlib writes.")
    ] = "pdf",
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default RUN-figures beside the run.")
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(help="Draw the trajectory on its way over the surface into this .gif, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the figures of a finished run again, as PDF or SVG; nothing is measured."""
    from thalweg.report.redraw import animate_path, redraw_figures

    opened = open_run(run)
    # A run holds what its report writes; drawings for other purposes lie beside it.
    folder = out or opened.path.with_name(f"{opened.path.name}-figures")
    written = [] if animate is None else [animate_path(opened, animate)]
    if animate is None or name or out:
        written += redraw_figures(opened, folder, format=format, names=name or ())
    if as_json:
        typer.echo(json.dumps({"run": str(run), "files": [str(path) for path in written]}))
    else:
        typer.echo("\n".join(map(str, written)))


def export(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default RUN-netcdf beside the run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the results of a run as netCDF files, one a result."""
    from thalweg.run.netcdf import export_netcdf

    opened = open_run(run)
    folder = out or opened.path.with_name(f"{opened.path.name}-netcdf")
    written = export_netcdf(opened, folder)
    if as_json:
        typer.echo(json.dumps({"run": str(run), "files": [str(path) for path in written]}))
    else:
        typer.echo("\n".join(map(str, written)))
