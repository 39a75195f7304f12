"""What instruments share that answer a few numbers, a status and reasons for each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.measurements.parts import Section, Table
from thalweg.measurements.record import cell
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr


def rows_dataset(answers: list[dict[str, Any]], numbers: Sequence[str]) -> xr.Dataset:
    """Label numbers, status and reasons by checkpoint: NaN where a number is refused."""
    import xarray as xr

    def column(name: str) -> list[float]:
        return [float("nan") if answer[name] is None else answer[name] for answer in answers]

    return xr.Dataset(
        {
            **{name: ("checkpoint", column(name)) for name in numbers},
            "status": ("checkpoint", [answer["status"] for answer in answers]),
            "reasons": ("checkpoint", [" ".join(answer["reasons"]) for answer in answers]),
        },
        coords={"checkpoint": [answer["checkpoint"]["file"] for answer in answers]},
        attrs=answers[0].get("described", {}),
    )


def rows_section(
    run: Run, result: str, numbers: Sequence[str], *, name: str, title: str, lead: str, note: str
) -> Section | None:
    """Give a table with a row for each checkpoint; None where the run holds nothing of it."""
    if not run.has_result(result):
        return None
    data = run.result(result)
    rows = [
        (
            str(file).rpartition("/")[2],
            str(data["status"].values[i]),
            *(_number(float(data[number].values[i])) for number in numbers),
        )
        for i, file in enumerate(data["checkpoint"].values)
    ]
    reasons = [
        f"{row[0]} is {row[1]}: {text}"
        for row, text in zip(rows, data["reasons"].values, strict=True)
        if text
    ]
    head = ("checkpoint", "status", *(number.replace("_", " ") for number in numbers))
    table = Table(title, head, rows, words=2, note=" ".join([note, *reasons]))
    return Section(name=name, title=title, lead=lead, facts=[], parts=[table])


def short_names(files: Iterable[Any]) -> list[str]:
    """Name checkpoints by their files, with the folder where these are the same."""
    paths = [Path(str(file)) for file in files]
    stems = [path.stem for path in paths]
    return [
        path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}"
        for path in paths
    ]


def first_lines(answer: dict[str, Any]) -> list[str]:
    """Write a checkpoint's name, status, notes and reasons."""
    about = answer["checkpoint"]
    return [
        f"{about['file']}: {answer['status']}",
        *(f"  - {note}" for note in about["notes"]),
        *(f"  {reason}" for reason in answer["reasons"]),
    ]


def _number(value: float) -> str:
    return "-" if value != value else cell(value)
