"""The commands of all measurements, made of their records."""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

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
    opening,
    problem_of,
)
from thalweg.cli.runs import Json, TaskTimeout, Trust
from thalweg.measurements.options import About, about_options
from thalweg.measurements.record import Measurement, Output, Written
from thalweg.run import Run, on_screen

Checkpoints = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", help=f"A checkpoint: {FORMS}; may be repeated."),
]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes; by default this one, with all its threads, or one where tasks are timed.",
    ),
]
# Whatever is measured: a name, a type with help, a default.
_PLACES: list[tuple[str, Any, Any]] = [
    ("entry", Entry, None),
    ("checkpoint", Checkpoints, None),
    ("assign", Assign, None),
    ("run", RunOption, None),
    ("trajectory", Trajectory, None),
    ("trust", Trust, False),
    ("part", FileEntry, None),
    ("partial", Partial, False),
    ("allow", Allow, None),
]
_RISK = {
    "split": (Literal["train", "test"], "The data that are measured."),
    "batchnorm": (
        Literal["recalibrate", "frozen", "held", "batch"],
        "Batch-norm statistics: of the training set at each point, as saved, or...",
    ),
    "dtype": (
        Literal["own", "float32", "float64"],
        "Numbers to compute in: the model's own, or...",
    ),
}


def command(record: Measurement) -> Callable[..., None]:
    """
    Make the command of a measurement.

    Parameters
    ----------
    record : Measurement
        Its question is the help, its options are the command's.

    Returns
    -------
    callable
        For `typer.Typer.command`.
    """

    def measure_and_say(**given: Any) -> None:
        _measure(record, given)

    parameters = [*_PLACES, *_own(record), *_risk(record), *_files(record)]
    parameters += [("workers", Workers, None), ("task_timeout", TaskTimeout, None)]
    parameters += [("out", _out(record), None), ("as_json", Json, False)]
    named = inspect.Parameter.KEYWORD_ONLY
    measure_and_say.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, named, default=default, annotation=kind)
            for name, kind, default in parameters
        ]
    )
    measure_and_say.__annotations__ = {name: kind for name, kind, _ in parameters}
    measure_and_say.__name__ = record.name
    measure_and_say.__doc__ = record.question
    return measure_and_say


def _own(record: Measurement) -> Iterator[tuple[str, Any, Any]]:
    types = get_type_hints(record.options)
    defaults = {name: field.default for name, field in record.options.__dataclass_fields__.items()}
    for name, about in about_options(record.options).items():
        if not about.hidden:
            yield name, Annotated[types[name], _typer_option(about)], defaults[name]


def _typer_option(about: About) -> Any:
    names = (about.flag,) if about.flag else ()
    more: dict[str, Any] = {"metavar": about.metavar} if about.metavar else {}
    more |= {"min": about.least, "max": about.most, "show_default": not about.open}
    return typer.Option(*names, help=about.help, **more)


def _risk(record: Measurement) -> Iterator[tuple[str, Any, Any]]:
    own = {"split": "train", "batchnorm": record.batchnorm, "dtype": record.dtype}
    for name, (kind, help) in _RISK.items():
        yield name, Annotated[kind, typer.Option(help=help)], own[name]


def _files(record: Measurement) -> Iterator[tuple[str, Any, Any]]:
    for output in record.outputs:
        kind = Annotated[Path | None, typer.Option(output.flag, help=output.help)]
        yield _name(output), kind, None


def _name(output: Output) -> str:
    return output.flag.strip("-")


def _out(record: Measurement) -> Any:
    kept = "" if record.kept else " By default none is made."
    text = "Run directory for the result; the same command again goes on with it."
    return Annotated[Path | None, typer.Option(help=text + kept)]


def _measure(record: Measurement, given: dict[str, Any]) -> None:
    from thalweg.measurements.driver import configure

    files = {output: given[_name(output)] for output in record.outputs}
    out = _without_files(given["out"], files)
    options = {
        name: _value(about, given[name])
        for name, about in about_options(record.options).items()
        if given.get(name) is not None
    }
    for output, path in files.items():
        if path is not None:
            check_output(output.flag, path, output.endings())
    at = _place(record, given, options)
    _check_number(files, at)
    problem = problem_of(given["entry"], given["assign"], given["run"], given["trust"])
    config = configure(record, problem, at, {name: given[name] for name in _RISK}, options)
    with _run_in(record, config, out) as (run, shown):
        found = _perform(run, given["workers"], given["task_timeout"], shown)
        written = Written()
        try:
            written = _write(run, files)
        finally:  # the answer is said even if a file cannot be written
            _say(record, run, found, shown, written, given["as_json"])
    if record.failed(found | written.fields):
        raise typer.Exit(1)


def _write(run: Run, files: dict[Output, Path | None]) -> Written:
    from thalweg.measurements.driver import prepare

    written = [output.write(prepare(run)[0], path) for output, path in files.items() if path]
    lines = [line for each in written for line in each.lines]
    return Written(lines, {name: v for each in written for name, v in each.fields.items()})


def _without_files(out: Path | None, files: dict[Output, Path | None]) -> Path | None:
    """Take a file that ``--out`` names as the output that it is."""
    for output in files:
        if output.is_out and out is not None and out.suffix:
            check_output("--out", out, output.endings())
            files[output] = out
            return None
    return out


def _check_number(files: dict[Output, Path | None], at: dict[str, Any]) -> None:
    from thalweg.measurements.places import count_points

    for output, path in files.items():
        if path is None or output.limit is None:
            continue
        most, does = output.limit
        if (number := count_points(at)) > most:
            raise typer.BadParameter(f"{output.flag} {does}, and these are {number}.")


def _place(record: Measurement, given: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    from thalweg.measurements.places import place

    checkpoints, run, trajectory = (given[name] for name in ("checkpoint", "run", "trajectory"))
    number = len(checkpoints or [])
    if not number and run is None and record.from_start(options):
        return {"start": True}
    if trajectory is not None and run is None and Path(trajectory).exists():
        run, trajectory = Path(trajectory), None
    if trajectory is not None and run is None:
        raise typer.BadParameter(f"--trajectory {trajectory}: in which run? Write --run RUN too.")
    if record.checkpoints[0] > 1 and checkpoints and run is not None:
        raise typer.BadParameter("--checkpoint and --run: give either files or a trajectory.")
    if number < record.checkpoints[0] and run is None and record.too_few:
        raise typer.BadParameter(f"{number} checkpoints; {record.too_few}.")
    how = opening(given["part"], given["partial"], given["allow"])
    in_order = record.in_order(options) and run is None and number > 1
    return place(checkpoints or [], run, trajectory, in_order=in_order, **how)


def _value(about: About, given: Any) -> Any:
    if about.parse is None:
        return given
    try:
        return [about.parse(text) for text in given]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _run_in(
    record: Measurement, config: dict[str, Any], out: Path | None
) -> Iterator[tuple[Run, Path | None]]:
    """Make the run where it was asked for; else one that is gone afterwards."""
    from thalweg.run import begun_run, create_run

    if out is None and not record.kept:
        with tempfile.TemporaryDirectory() as folder:
            yield create_run(Path(folder) / record.name, config), None
    else:
        place = out or Path("runs") / _default_name(config)
        with begun_run(place, config) as run:
            yield run, place


def _perform(
    run: Run, workers: int | None, task_timeout: float | None, shown: Path | None
) -> dict[str, Any]:
    from thalweg import cli
    from thalweg.measurements.driver import measure
    from thalweg.run import LocalProcesses

    # Only a process of its own can be ended.
    here = workers is None and task_timeout is None
    engine = None if here else LocalProcesses(workers or 1)
    try:
        _, summary = measure(
            run,
            engine=engine,
            task_timeout=task_timeout,
            progress=on_screen,
            announce=lambda text: typer.echo(text, err=True),
            finished=lambda: _page(run, shown),
            started=cli.started,
        )
    except KeyboardInterrupt:
        if shown is None:
            raise
        typer.echo(f"\nStopped. Nothing done is lost; go on with: thalweg resume {shown}", err=True)
        raise typer.Exit(130) from None
    found: dict[str, Any]
    (found,) = summary.values()
    return found


def _page(run: Run, shown: Path | None) -> Path | None:
    from thalweg.report import write_report

    return None if shown is None else write_report(run)


def _say(
    record: Measurement,
    run: Run,
    found: dict[str, Any],
    shown: Path | None,
    written: Written,
    as_json: bool,
) -> None:
    page = _page(run, shown)
    answer = dict(record.answer(run, found)) | written.fields
    places = {} if page is None else {"run": str(run.path), "report": str(page)}
    if as_json:
        answer = {**places, record.name: answer} if record.kept else answer | places
        typer.echo(json.dumps(answer))
        return
    typer.echo("\n".join([*record.lines(found), *written.lines]))
    if record.kept and found["notes"]:
        typer.echo("\n".join(["\nnotes:", *(f"  - {note}" for note in found["notes"])]))
    if shown is not None:
        typer.echo(f"\nResults: {shown / 'results.zarr'}, under {record.folder}/")
        typer.echo(f"Report:  {page}")


def _default_name(config: dict[str, Any]) -> str:
    """Name a run after what it measures; other options make another run."""
    kind, entry = config["measurement"], config["problem"]["entry"]
    text = json.dumps(config, sort_keys=True).encode()
    stem = Path(entry.partition(":")[0]).stem
    return f"{kind}-{stem}-{hashlib.sha256(text).hexdigest()[:8]}"
