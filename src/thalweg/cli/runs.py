"""Commands on run directories: reproduce, resume, report, runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.errors import ThalwegError
from thalweg.measurements.formatting import count, duration
from thalweg.run import Run, list_runs, on_screen, open_run

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
_WORTH_SAYING = 20.0  # seconds
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Allow the run's own function of a problem to be called, now and until its source"
        " changes. Read it first: it is code.",
    ),
]
TaskTimeout = Annotated[
    float | None,
    typer.Option(
        min=1e-3,
        metavar="SECONDS",
        help="End an attempt at a task (a training, a probe) that takes longer, and try it again;"
        " the third is the last. A worker without a sign of life for 20 s is ended in any case.",
    ),
]
RunPath = Annotated[Path, typer.Argument(help="A run directory.")]


def reproduce(
    preset: Annotated[
        str, typer.Option(help="Size: demo (minutes), laptop (an hour), paper.")
    ] = "demo",
    data: Annotated[
        str | None,
        typer.Option(
            help="Data: digits, cifar10 (from the hub), a hub name, a folder in the hub's layout,"
            " or an entry string path/file.py:make. By default the preset's."
        ),
    ] = None,
    study: Annotated[
        list[str] | None, typer.Option(help="A study to run; may be repeated. By default all.")
    ] = None,
    train_size: Annotated[
        int | None, typer.Option(min=1, help="Number of training samples.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STUDY.NAME=VALUE",
            help="Another size of a study than the preset's, e.g. perturb_and_return.copies=5;"
            " repeatable. Of networks that several studies share it changes in all of them.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Added to every seed: another one repeats all independently.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; by default runs/<preset>-<data>.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    task_timeout: TaskTimeout = None,
    as_json: Json = False,
) -> None:
    """Repeat the paper's studies, judge its claims, and write a report."""
    from thalweg.studies import configure
    from thalweg.studies import reproduce as perform

    settings = parse_settings(assign or []) | (
        {} if train_size is None else {"train_size": train_size}
    )
    sizes = parse_settings(size or [], option="--size", example="interpolation.points=9")
    config = configure(preset, data=data, studies=study, settings=settings, sizes=sizes, seed=seed)
    place = out or Path("runs") / _default_name(preset, config["problem"])
    _run(place, lambda: perform(config, place, **_ways(workers, task_timeout)), as_json)


def resume(
    run: RunPath,
    trust: Trust = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    task_timeout: TaskTimeout = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed; what is done is not done again."""
    from thalweg.studies import resume as perform

    if trust:
        open_run(run).trust_source()
    _run(run, lambda: perform(run, **_ways(workers, task_timeout)), as_json)


def report(run: RunPath, as_json: Json = False) -> None:
    """Write the report of a run anew from its results."""
    from thalweg.report import write_report

    opened = open_run(run)
    page = write_report(opened)
    answer = {"run": str(opened.path), "report": str(page)}
    typer.echo(json.dumps(answer) if as_json else str(page))


def verify(run: RunPath, as_json: Json = False) -> None:
    """
    Check every file of a run against its checksum: exit code 1 if one is not what was written.

    What is not whole has a line, with what is to be done or what is lost.
    """
    from thalweg.run.verify import verify as check

    opened = open_run(run)
    findings = check(opened)
    lost = [finding for finding in findings if finding.lost]
    if as_json:
        answer = {"run": str(run), "whole": not lost, "files": [f.to_dict() for f in findings]}
        typer.echo(json.dumps(answer))
    else:
        for finding in lost:
            typer.echo(f"{finding.file}: {finding.state}: {finding.why}; {finding.remedy}")
        for state, what in _STATES.items():
            number = sum(finding.state == state for finding in findings)
            if number:
                typer.echo(f"{what}: {count(number, 'file')}")
    if lost:
        raise typer.Exit(1)


_STATES = {
    "whole": "as written (a result counts as one)",
    "damaged": "damaged",
    "gone": "gone",
    "uncovered": "without a checksum, so that nothing says whether they are whole",
    "no data": "of which nothing is read as data (locks, marks of progress)",
}


def list_all(
    folder: Annotated[Path, typer.Argument(help="Where the runs lie.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder and how far each has come."""
    rows = [_row(run) for run in list_runs(folder)]
    if as_json:
        typer.echo(json.dumps({"runs": rows}))
        return
    if not rows:
        typer.echo(f"No runs in {folder}. Start one with: thalweg reproduce --preset demo")
    for row in rows:
        typer.echo(f"{row['run']:<32} {row['preset']:<8} {row['problem']:<24} {row['state']}")


def _run(place: Path, perform: Callable[[], tuple[Run, dict[str, Any]]], as_json: bool) -> None:
    from thalweg.report import write_report

    try:
        run, summary = perform()
        # First the answer: it is there even if the page cannot be written.
        _answer(run, summary, as_json)
        page = write_report(run)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. Nothing done is lost; go on with: thalweg resume {place}", err=True)
        raise typer.Exit(130) from None
    if not as_json:
        typer.echo(f"Report: {page}")


def _answer(run: Run, summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        page = str(run.path / "report.html")
        answer = {"run": str(run.path), "report": page, "studies": summary}
        typer.echo(json.dumps(answer | {"claims": run.claims}))
        return
    for name, found in summary.items():
        _say(name, found)
    for claim in run.claims:
        typer.echo(f"{claim['verdict']:<14} {claim['name']}: {claim['statement']}")


def _say(name: str, found: dict[str, Any]) -> None:
    typer.echo(name)
    for trajectory, final in found.get("trajectories", {}).items():
        figures = ", ".join(
            f"{key.replace('_', ' ')} {final[key]:.4g}"
            for key in ("error", "test_error", "loss")
            if key in final
        )
        typer.echo(f"  {trajectory:<20} {final['status']:<12} {final['steps']:>7} steps  {figures}")


def _row(run: Run) -> dict[str, str]:
    try:
        return _read_row(run)
    except (ThalwegError, OSError, ValueError, TypeError, AttributeError) as error:
        # One bad run does not hide the others.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return {"run": str(run.path), "preset": "-", "problem": "-", "state": f"unreadable: {why}"}


def _read_row(run: Run) -> dict[str, str]:
    config = run.config
    state = f"unfinished: thalweg resume {run.path}"
    if run.inside("summary.json").exists():
        state = "complete"
    elif run.recorded:
        state = f"recorded: {count(len(run.checkpoints()), 'checkpoint')}"
    return {
        "run": str(run.path),
        "preset": str(config.get("preset") or config.get("measurement", "-")),
        "problem": str(config.get("problem", {}).get("entry", "-")),
        "state": state,
    }


def _ways(workers: int | None, task_timeout: float | None) -> dict[str, Any]:
    """How the work is done and shown."""
    from thalweg.run import LocalProcesses

    engine = LocalProcesses(workers)
    return {
        "engine": engine,
        "task_timeout": task_timeout,
        "progress": on_screen,
        "announce": lambda seconds: _announce(seconds, engine.workers),
    }


def _announce(seconds: float, workers: int) -> None:
    if seconds / workers > _WORTH_SAYING:
        time = duration(seconds / workers)
        typer.echo(
            f"Expected time: about {time} with {count(workers, 'process', 'processes')}.", err=True
        )


def parse_settings(
    assignments: list[str], *, option: str = "--set", example: str = "width=64"
) -> dict[str, Any]:
    """Read settings written as NAME=VALUE, where values are JSON or else text."""
    pairs = [text.partition("=") for text in assignments]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise typer.BadParameter(
                f"{option} {name!r}: expected NAME=VALUE, e.g. {option} {example}."
            )
    return {name.replace("-", "_"): _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _default_name(preset: str, problem: dict[str, Any]) -> str:
    return f"{preset}-{Path(problem['entry'].partition(':')[0]).stem}"
