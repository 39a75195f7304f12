"""Options that say how checkpoints are opened, and what is said of those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.runs import parse_settings
from thalweg.run import is_run, open_run

FORMS = (
    "a file of torch.save, .safetensors, an index of shards, .npz, or a folder with"
    " model.safetensors"
)
Entry = Annotated[
    str | None,
    typer.Argument(
        help="Problem: digits, cifar10, teacher, a hub name, a folder of images,"
        " package.module:make or path/file.py:make. With --run, by default the run's own."
    ),
]
FileEntry = Annotated[
    str | None,
    typer.Option(
        "--entry", metavar="NAME", help="Entry of the file, where several fit: model, ema, ..."
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--partial", help="Take what fits of the file, and the rest from the problem."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="package.Class",
        help="A class whose values beside the weights are passed over; no code of it is run.",
    ),
]

RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="A trajectory: a run directory, or a folder or pattern of checkpoints"
        " ('ckpt/epoch_*.pt'), ordered by the step in their names.",
    ),
]
Trajectory = Annotated[
    str | None,
    typer.Option(help="A trajectory of the run; its last checkpoint where none is named."),
]


def problem_of(
    entry: str | None, assign: list[str] | None, run: Path | None, trust: bool
) -> dict[str, Any]:
    """Name the problem: the one that is written, or that of a run directory, if it is trusted."""
    from thalweg.problems.trajectory_files import holds_files

    settings = parse_settings(assign or [])
    if entry is not None:
        return {"entry": entry, "settings": settings}
    plain = run is None or (not is_run(run) and holds_files(run))
    opened = None if plain or run is None else open_run(run)
    own = None if opened is None else opened.config.get("problem")
    if opened is None or own is None:
        raise typer.BadParameter(
            "no problem is named; write one first: thalweg surface digits --checkpoint FILE. Only a"
            " run of a problem (--run) knows its own."
        )
    if trust:
        opened.trust_source()
    opened.require_source()
    return {"entry": own["entry"], "settings": own.get("settings", {}) | settings}


def opening(entry: str | None, partial: bool, allow: list[str] | None) -> dict[str, Any]:
    """Collect how files are opened: what `thalweg.open_point` takes."""
    asked = {"entry": entry, "partial": partial, "allow": allow}
    return {name: value for name, value in asked.items() if value}
