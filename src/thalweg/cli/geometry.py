"""Commands on the geometry around checkpoints: surface, spectrum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from thalweg.cli.points import (
    FORMS,
    Allow,
    Entry,
    FileEntry,
    Partial,
    RunOption,
    Trajectory,
    opening,
    problem_of,
)
from thalweg.cli.runs import Trust
from thalweg.run import Run, on_screen


class Directions(StrEnum):
    """Rules by which directions are found."""

    RANDOM = "random"
    PRINCIPAL = "principal"
    POINTS = "points"
    EIGEN = "eigen"


class Normalize(StrEnum):
    """What random directions are scaled to."""

    FILTER = "filter"
    LAYER = "layer"
    NONE = "none"


class Split(StrEnum):
    """Which data are measured."""

    TRAIN = "train"
    TEST = "test"


class BatchNorm(StrEnum):
    """Whose statistics batch normalization uses."""

    RECALIBRATE = "recalibrate"
    FROZEN = "frozen"
    HELD = "held"
    BATCH = "batch"


class Precision(StrEnum):
    """In which numbers is computed."""

    OWN = "own"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Which(StrEnum):
    """Which end of the spectrum."""

    LARGEST = "largest"
    SMALLEST = "smallest"
    BOTH = "both"


class Operator(StrEnum):
    """Whose spectrum."""

    HESSIAN = "hessian"
    GAUSS_NEWTON = "gauss-newton"


Checkpoints = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", help=f"A checkpoint: {FORMS}; may be repeated."),
]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
]
SplitOption = Annotated[Split, typer.Option(help="The data that are measured.")]
BatchNormOption = Annotated[
    BatchNorm,
    typer.Option(help="Batch-norm statistics: of the training set at each point, as saved, or..."),
]
Dtype = Annotated[Precision, typer.Option(help="Numbers to compute in: the model's own, or...")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is random.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; by default this one, with all its threads.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run directory for the result; the same command again goes on with it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def surface(
    entry: Entry = None,
    checkpoint: Checkpoints = None,
    assign: Assign = None,
    run: RunOption = None,
    trajectory: Trajectory = None,
    trust: Trust = False,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    directions: Annotated[
        Directions | None,
        typer.Option(
            help="By default points with several checkpoints, principal with a trajectory.",
            show_default=False,
        ),
    ] = None,
    normalize: Annotated[
        Normalize, typer.Option(help="What random directions are scaled to.")
    ] = Normalize.FILTER,
    dims: Annotated[
        int | None, typer.Option(min=1, max=3, help="Dimensions, by default 2.", show_default=False)
    ] = None,
    extent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="R|LOW,HIGH", help="How far, in lengths of a direction; once, or for each axis."
        ),
    ] = None,
    points: Annotated[
        list[int] | None,
        typer.Option(
            help="Grid points of an axis, by default 51, 25 or 11; once, or for each axis."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Error allowed to a cell, as a share of the range; by default none."),
    ] = None,
    test: Annotated[bool, typer.Option(help="Measure the test data too.")] = True,
    split: SplitOption = Split.TRAIN,
    batchnorm: BatchNormOption = BatchNorm.RECALIBRATE,
    dtype: Dtype = Precision.OWN,
    seed: Seed = 0,
    workers: Workers = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure the loss on a line, a plane or in a space through checkpoints, and draw it."""
    from thalweg.studies.measurement import configure_surface

    options = {
        "directions": directions and directions.value,
        "normalize": normalize.value,
        "dims": dims,
        "extent": [_extent(text) for text in extent] if extent else None,
        "points": points and (points[0] if len(points) == 1 else points),
        "tolerance": tolerance,
        "test": test,
        "seed": seed,
    }
    # Several checkpoints whose principal directions are wanted are a trajectory, in their order.
    in_order = directions is Directions.PRINCIPAL and run is None and len(checkpoint or []) > 1
    config = configure_surface(
        problem_of(entry, assign, run, trust),
        _place(checkpoint, run, trajectory, opening(part, partial, allow), in_order),
        {"split": split.value, "batchnorm": batchnorm.value, "dtype": dtype.value},
        {name: value for name, value in options.items() if value is not None},
    )
    _measure(config, out, workers, as_json, _surface_values, _say_surface)


def spectrum(
    entry: Entry = None,
    checkpoint: Checkpoints = None,
    assign: Assign = None,
    run: RunOption = None,
    trajectory: Trajectory = None,
    trust: Trust = False,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    k: Annotated[int, typer.Option("-k", min=0, help="How many eigenvalues.")] = 5,
    which: Annotated[Which, typer.Option(help="Which of them.")] = Which.LARGEST,
    rtol: Annotated[float, typer.Option(help="Relative error allowed to an eigenvalue.")] = 1e-3,
    density: Annotated[
        bool, typer.Option(help="Estimate the density, and the number of eigenvalues near zero.")
    ] = False,
    probes: Annotated[int, typer.Option(min=2, help="Random vectors of the density.")] = 10,
    steps: Annotated[int, typer.Option(min=2, help="Products with each of them.")] = 50,
    near_zero: Annotated[
        float, typer.Option(help="What counts as near zero, as a share of the largest magnitude.")
    ] = 1e-3,
    trace: Annotated[bool, typer.Option(help="Estimate the trace.")] = False,
    trace_rtol: Annotated[
        float, typer.Option(help="Standard error allowed to the trace, relative.")
    ] = 0.05,
    operator: Annotated[Operator, typer.Option(help="Whose spectrum.")] = Operator.HESSIAN,
    split: SplitOption = Split.TRAIN,
    batchnorm: BatchNormOption = BatchNorm.RECALIBRATE,
    dtype: Dtype = Precision.OWN,
    seed: Seed = 0,
    workers: Workers = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure the spectrum of the Hessian at a checkpoint, and draw it."""
    from thalweg.studies.measurement import configure_spectrum

    options = {
        "k": k,
        "which": which.value,
        "rtol": rtol,
        "density": density,
        "probes": probes,
        "steps": steps,
        "near_zero": near_zero,
        "trace": trace,
        "trace_rtol": trace_rtol,
        "operator": operator.value,
        "seed": seed,
    }
    config = configure_spectrum(
        problem_of(entry, assign, run, trust),
        _place(checkpoint, run, trajectory, opening(part, partial, allow)),
        {"split": split.value, "batchnorm": batchnorm.value, "dtype": dtype.value},
        options,
    )
    _measure(config, out, workers, as_json, lambda _: {}, _say_spectrum)


def _place(
    checkpoints: list[Path] | None,
    run: Path | None,
    trajectory: str | None,
    how: dict[str, Any],
    in_order: bool = False,
) -> dict[str, Any]:
    from thalweg.studies.point import place

    if trajectory is not None and run is None:
        raise typer.BadParameter(f"--trajectory {trajectory}: in which run? Write --run RUN too.")
    return place(checkpoints or [], run, trajectory, in_order=in_order, **how)


def _extent(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise typer.BadParameter(f"--extent {text!r}: expected a number, or LOW,HIGH: -1,2.")
    return numbers[0] if len(numbers) == 1 else numbers


def _measure(
    config: dict[str, Any],
    out: Path | None,
    workers: int | None,
    as_json: bool,
    values: Callable[[Run], dict[str, Any]],
    say: Callable[[dict[str, Any]], None],
) -> None:
    from thalweg.report import write_report
    from thalweg.run import LocalProcesses, create_run
    from thalweg.studies.measurement import measure

    place = out or Path("runs") / _default_name(config)
    run = create_run(place, config)
    engine = None if workers is None else LocalProcesses(workers)
    try:
        _, summary = measure(run, engine=engine, progress=on_screen)
        page = write_report(run)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. Nothing done is lost; go on with: thalweg resume {place}", err=True)
        raise typer.Exit(130) from None
    (kind, found), *_ = summary.items()
    if as_json:
        answer = {"run": str(run.path), "report": str(page), kind: found | values(run)}
        typer.echo(json.dumps(answer))
        return
    say(found)
    if found["notes"]:
        typer.echo("\nnotes:")
    for note in found["notes"]:
        typer.echo(f"  - {note}")
    typer.echo(f"\nResults: {place / 'results.zarr'}, under {kind}/\nReport:  {page}")


def _default_name(config: dict[str, Any]) -> str:
    """Name a run after what it measures; other options make another run."""
    kind, entry = config["measurement"], config["problem"]["entry"]
    text = json.dumps(config, sort_keys=True).encode()
    stem = Path(entry.partition(":")[0]).stem
    return f"{kind}-{stem}-{hashlib.sha256(text).hexdigest()[:8]}"


def _surface_values(run: Run) -> dict[str, Any]:
    """Give the grid and the points as JSON: nested lists, null for what is no finite number."""
    grid, points = run.result("surface/surface"), run.result("surface/points")
    return {
        "grid": {str(name): _plain(data.values) for name, data in grid.variables.items()},
        "shown_points": {str(name): _plain(data.values) for name, data in points.variables.items()},
    }


def _plain(values: Any) -> Any:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array.tolist()
    plain: Any = array.astype(object)
    plain[~np.isfinite(array)] = None
    return plain.tolist()


def _say_surface(found: dict[str, Any]) -> None:
    typer.echo(f"directions: {found['directions']}")
    for dim, (low, high) in found["extent"].items():
        typer.echo(f"{dim}: {low:.6g} to {high:.6g} in {found['points'][dim]} points")
    typer.echo(
        f"{found['cells']:,} cells, {found['not_finite']:,} of them not finite;"
        f" {found['evaluations']:,} training samples evaluated"
    )
    if found["trajectory_variance_share"] is not None:
        share = 100 * found["trajectory_variance_share"]
        typer.echo(f"shown of the trajectory's variance: {share:.3g} %")
    if (way := found["trajectory"]) is not None:
        typer.echo(
            f"trajectory {way['name']}: {way['outside']} of {way['checkpoints']} checkpoints"
            f" outside the picture; up to {way['off_by']:.4g} weight units off it"
        )
    heads = " ".join(f"{head:>11}" for head in ("centre", "lowest", "highest", "std. error"))
    typer.echo(f"\n{'':<12} {heads}  lowest at")
    for name, row in found["measured"].items():
        numbers = (row[key] for key in ("centre", "lowest", "highest", "stderr"))
        cells = " ".join(f"{'-' if value is None else f'{value:.5g}':>11}" for value in numbers)
        where = ", ".join(f"{place:.4g}" for place in row["lowest_at"] or [])
        typer.echo(f"{name:<12} {cells}  {where}")


def _say_spectrum(found: dict[str, Any]) -> None:
    typer.echo(f"{found['operator']} of {found['size']:,} weights; {found['products']:,} products")
    if "eigenvalues" in found:
        typer.echo(f"\neigenvalues ({found['status']})")
        typer.echo(f"{'value':>13} {'residual':>11} {'error':>11}")
        for row in found["eigenvalues"]:
            typer.echo(f"{row['value']:>13.7g} {row['residual']:>11.2g} {row['error']:>11.2g}")
    if "density" in found:
        near, about = found["near_zero"], found["density"]
        typer.echo(
            f"\ndensity: {about['probes']} probes of {about['steps']} steps\n"
            f"eigenvalues within {near['threshold']:.3g} of zero: {near['count']:,.0f}"
            f" ({100 * near['share']:.3g} %)\n"
            f"  95% interval: {near['low']:,.0f} to {near['high']:,.0f}. The moments that the steps"
            f" know leave {near['least']:,.0f} to {near['most']:,.0f} open (more --steps), the rest"
            f" is the scatter of the random vectors (standard error {near['stderr']:.2g}; more"
            " --probes)"
        )
    if "trace" in found:
        trace = found["trace"]
        typer.echo(
            f"\ntrace: {trace['value']:.6g} ± {trace['stderr']:.2g} (standard error), 95% within"
            f" {trace['error']:.2g} ({trace['status']})"
        )
