"""The command ``thalweg barrier``: loss and error on the line between two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.outputs import check_output
from thalweg.cli.runs import Json, parse_settings
from thalweg.run.progress import on_screen

if TYPE_CHECKING:
    import xarray as xr

_COMPARED = ("barrier", "crossfit", "mean_excess", "mean_over_best")


def barrier(
    entry: Annotated[
        str, typer.Argument(help="Problem: digits, cifar10, teacher, path/file.py:make.")
    ],
    checkpoint: Annotated[
        list[Path], typer.Option(help="A checkpoint of either end of the line; give two.")
    ],
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
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
    as_json: Json = False,
) -> None:
    """Measure loss and error on the line between two checkpoints, and the barrier on it."""
    import thalweg as tw
    from thalweg.problems import fit_weights, load_weights

    if len(checkpoint) != 2:
        raise typer.BadParameter(
            f"{len(checkpoint)} checkpoints; a line has two ends: --checkpoint A --checkpoint B."
        )
    if picture is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        check_output("--picture", picture, FigureCanvasBase.get_supported_filetypes())
    problem = tw.load_problem(entry, progress=on_screen, **parse_settings(assign or []))
    risk = tw.EmpiricalRisk(problem, batchnorm=batchnorm)
    ends = [
        risk.space.pack(fit_weights(problem.model, load_weights(path)[0])) for path in checkpoint
    ]
    found = tw.barrier(risk, *ends, points=points, test=test, progress=on_screen)
    typer.echo(json.dumps(_answer(found)) if as_json else "\n".join(_lines(found)))
    if picture is not None:
        _draw(found, picture)


def _answer(found: xr.Dataset) -> dict[str, Any]:
    quantities = [str(name) for name in found["quantity"].values]
    along = {name: found[name].values.tolist() for name in quantities}
    errors = {f"{name}_stderr": found[f"{name}_stderr"].values.tolist() for name in quantities}
    keys = [key for part in _COMPARED for key in (part, f"{part}_stderr")]
    compared = {
        name: {key: float(found[key].sel(quantity=name)) for key in (*keys, "barrier_at")}
        for name in quantities
    }
    line = {"t": found["t"].values.tolist(), **along, **errors}
    return {"line": line, **compared, "about": dict(found.attrs)}


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
            value, error = float(here[key]), float(here[f"{key}_stderr"])
            rows.append(f"  {head:<36} {value:>10.4g} ± {error:.2g} (standard error)")
    return [*rows, f"\n{found.attrs['batchnorm']}; {found.attrs['stderr']}."]


def _draw(found: xr.Dataset, path: Path) -> None:
    from matplotlib.figure import Figure

    from thalweg.plots import plot_line

    figure = Figure(figsize=(10, 4), layout="constrained")
    for ax, variable in zip(figure.subplots(1, 2), ("loss", "error"), strict=True):
        plot_line(found, variable=variable, ax=ax)
    figure.savefig(path, dpi=160)
