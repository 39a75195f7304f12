"""The command ``thalweg barrier``: loss and error on the line between two checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.outputs import check_output
from thalweg.cli.points import (
    FORMS,
    Allow,
    Entry,
    FileEntry,
    Partial,
    RunOption,
    Trajectory,
    open_all,
    opening,
    problem_of,
)
from thalweg.cli.runs import Json, Trust
from thalweg.run.progress import on_screen

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from thalweg.connectivity import OneBasin

_COMPARED = ("barrier", "crossfit", "mean_excess", "mean_over_best")


def barrier(
    entry: Entry = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"A checkpoint: {FORMS}; two are the ends of a line, more are joined in order."
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
    run: RunOption = None,
    trajectory: Trajectory = None,
    trust: Trust = False,
    points: Annotated[
        int, typer.Option(min=3, help="Points of the line, both ends included; odd.")
    ] = 21,
    batchnorm: Annotated[
        str, typer.Option(help="recalibrate (statistics re-estimated at every point) or batch.")
    ] = "recalibrate",
    test: Annotated[bool, typer.Option("--test/--no-test", help="Evaluate test data too.")] = True,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the line into this file, e.g. line.png.")
    ] = None,
    allowed: Annotated[
        float | None,
        typer.Option(
            help="Largest barrier of one basin: of the error, by default 0.02, or of the loss,"
            " where no error is counted.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the mean of both models into this file, .safetensors or .pt, batch-norm"
            " statistics re-estimated."
        ),
    ] = None,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """
    Measure loss and error on the line between two checkpoints, and the barrier on it.

    Of more checkpoints, or of a trajectory (--run), each is joined to the next.
    """
    import thalweg as tw

    files = _files(checkpoint or [], run, trajectory)
    if picture is not None and len(files) > 2:
        raise typer.BadParameter(f"--picture draws one line, and {len(files)} files make more.")
    if picture is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        check_output("--picture", picture, FigureCanvasBase.get_supported_filetypes())
    if out is not None and len(files) > 2:
        raise typer.BadParameter(
            f"--out writes the mean of two models, and these are {len(files)}."
        )
    if out is not None:
        check_output("--out", out, ("safetensors", "pt"))
    made = problem_of(entry, assign, run, trust)
    problem = tw.load_problem(made["entry"], progress=on_screen, **made["settings"])
    risk = tw.EmpiricalRisk(problem, batchnorm=batchnorm)
    path = open_all(problem, files, opening(part, partial, allow))
    options: Any = {"points": points, "test": test, "progress": on_screen}
    if len(path) > 2:
        _say_neighbours(tw.neighbour_barriers(risk, path, **options), files, as_json)
        return
    found = tw.barrier(risk, *path, **options)
    judged = _judged(found, allowed)
    answer = _answer(found) | {"one_basin": None if judged is None else asdict(judged)}
    lines = [*_lines(found), *([] if judged is None else ["", str(judged)])]
    typer.echo(json.dumps(answer) if as_json else "\n".join(lines))
    if picture is not None:
        _draw(found, picture)
    if out is not None:
        _write(tw.mean_state(risk, *path), out)
        typer.echo(f"mean of both models: {out}", err=as_json)


def _judged(found: xr.Dataset, allowed: float | None) -> OneBasin | None:
    """Judge the line, where there is an error or what is allowed of the loss is said."""
    from thalweg.connectivity import one_basin

    if allowed is None and "error" not in found["quantity"].values:
        return None
    return one_basin(found, allowed=allowed)


def _write(state: dict[str, Tensor], path: Path) -> None:
    from thalweg.run.files import write_atomic

    if path.suffix == ".pt":
        import torch

        write_atomic(path, lambda temporary: torch.save(state, temporary))
    else:
        from safetensors.torch import save_file

        write_atomic(path, lambda temporary: save_file(state, temporary))


def _files(checkpoints: list[Path], run: Path | None, trajectory: str | None) -> list[Path]:
    """List the ends of lines, in order."""
    from thalweg.studies.point import trajectory_in

    if checkpoints and run is not None:
        raise typer.BadParameter("--checkpoint and --run: give either files or a trajectory.")
    if run is not None:
        checkpoints = list(trajectory_in(run, trajectory).files)
    if len(checkpoints) < 2:
        raise typer.BadParameter(
            f"{len(checkpoints)} checkpoints; a line has two ends: --checkpoint A --checkpoint B."
        )
    return checkpoints


def _say_neighbours(found: xr.Dataset, files: list[Path], as_json: bool) -> None:
    lines = [found.isel(pair=i) for i in range(found.sizes["pair"])]
    names = [str(path) for path in files]
    if as_json:
        answers = [
            {"from": names[i], "to": names[i + 1], **_answer(line)} for i, line in enumerate(lines)
        ]
        typer.echo(json.dumps({"lines": answers}))
        return
    wide = max(map(len, names))
    for name in map(str, found["quantity"].values):
        typer.echo(f"{name.replace('_', ' ')}: highest above the chord, ± standard error")
        for i, line in enumerate(lines):
            here = line.sel(quantity=name)
            value, error = float(here["barrier"]), float(here["barrier_stderr"])
            at = float(here["barrier_at"])
            typer.echo(
                f"  {names[i]:<{wide}} to {names[i + 1]:<{wide}} {value:>11.4g} ± {error:<8.2g} at"
                f" t = {at:.3f}"
            )
        typer.echo("")
    typer.echo("\n".join(_told(found)))


def _answer(found: xr.Dataset) -> dict[str, Any]:
    quantities = [str(name) for name in found["quantity"].values]
    along = {name: found[name].values.tolist() for name in quantities}
    errors = {f"{name}_stderr": found[f"{name}_stderr"].values.tolist() for name in quantities}
    keys = [part + end for part in _COMPARED for end in ("", "_stderr", "_low", "_high")]
    compared = {
        name: {key: float(found[key].sel(quantity=name)) for key in (*keys, "barrier_at")}
        for name in quantities
    }
    line = {"t": found["t"].values.tolist(), **along, **errors}
    of_pair = {name: found[name].item() for name in ("length", "between") if name in found}
    return {"line": line, **compared, "about": {**found.attrs, **of_pair}}


def _lines(found: xr.Dataset) -> list[str]:
    quantities = [str(name) for name in found["quantity"].values]
    rows = [f"{'t':>6}" + "".join(f"{name.replace('_', ' '):>14}" for name in quantities)]
    for i, t in enumerate(found["t"].values):
        cells = "".join(f"{float(found[name][i]):>14.5g}" for name in quantities)
        rows.append(f"{t:>6.3f}{cells}")
    heads = {
        "barrier": "barrier: highest above the chord",
        "crossfit": "the same, chosen on other samples",
        "mean_excess": "mean of both minus mean of the ends",
        "mean_over_best": "mean of both minus the better end",
    }
    for name in quantities:
        here = found.sel(quantity=name)
        rows.append(f"\n{name.replace('_', ' ')} (at t = {float(here['barrier_at']):.3f})")
        for key, head in heads.items():
            value, error, low, high = (
                float(here[key + end]) for end in ("", "_stderr", "_low", "_high")
            )
            ends = f"95% {low:.3g} to {high:.3g}"
            rows.append(f"  {head:<36} {value:>10.4g} ± {error:.2g} (standard error), {ends}")
    return [*rows, "", *_told(found)]


def _told(found: xr.Dataset) -> list[str]:
    """Say how it was measured, and what files lacked or held besides."""
    between = found.attrs.get("between") or ""
    if "between" in found:
        between = next((str(text) for text in found["between"].values if text), "")
    notes = [*found.attrs.get("notes", []), *([between] if between else [])]
    head = ["notes:"] if notes else []
    method = f"{found.attrs['batchnorm']}; {found.attrs['stderr']}."
    return [method, *head, *(f"  - {note}" for note in notes)]


def _draw(found: xr.Dataset, path: Path) -> None:
    from matplotlib.figure import Figure

    from thalweg.plots import plot_line

    figure = Figure(figsize=(10, 4), layout="constrained")
    for ax, variable in zip(figure.subplots(1, 2), ("loss", "error"), strict=True):
        plot_line(found, variable=variable, ax=ax)
    figure.savefig(path, dpi=160)
