"""``thalweg surface``: the loss on a line, a plane or in a space through checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from thalweg.measurements.options import defaults, option
from thalweg.measurements.record import Job, Measurement
from thalweg.run import Run

if TYPE_CHECKING:
    from thalweg.measurements.parts import Section

POINTS = {1: 51, 2: 25, 3: 11}


def _extent(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"--extent {text!r}: expected a number, or LOW,HIGH: -1,2.")
    return numbers[0] if len(numbers) == 1 else numbers


@dataclass(frozen=True)
class Options:
    """Where a surface is measured, and how exactly."""

    directions: Literal["random", "principal", "points", "eigen", "moments"] | None = option(
        None,
        "By default points with several checkpoints, principal with a trajectory; moments are those"
        " of the optimizer, from a recorded checkpoint.",
        open=True,
    )
    normalize: Literal["filter", "layer", "none"] = option(
        "filter", "What random directions are scaled to."
    )
    dims: int | None = option(None, "Dimensions, by default 2.", least=1, most=3, open=True)
    extent: list[str] | None = option(
        None,
        "How far, in lengths of a direction; once, or for each axis.",
        metavar="R|LOW,HIGH",
        open=True,
        parse=_extent,
    )
    points: list[int] | None = option(
        None, "Grid points of an axis, by default 51, 25 or 11; once, or for each axis.", open=True
    )
    tolerance: float | None = option(
        None, "Error allowed to a cell, as a share of the range; by default none."
    )
    relative: bool = option(True, "Whether the tolerance is a share of the range.", hidden=True)
    also: list[str] | None = option(
        None,
        "Another training to project onto the same surface, RUN or RUN:TRAJECTORY; repeatable.",
        metavar="RUN",
        open=True,
    )
    test: bool = option(True, "Measure the test data too.")
    seed: int = option(0, "Seed of all that is random.", least=0)


def settle(given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
    """
    Complete the options: directions through several checkpoints, or of a trajectory, or random.

    Raises
    ------
    InvalidArgument
        If they do not fit together.
    """
    from thalweg.measurements.places import named_anywhere
    from thalweg.measurements.planes import check_plane

    guess = "points" if points > 1 else "principal" if trajectory else "random"
    chosen = {"dims": 2, "extent": None, **defaults(Options), "directions": guess, **given}
    if chosen["directions"] == "points" and "dims" not in given:
        chosen["dims"] = max(1, points - 1)
    chosen.setdefault("points", POINTS.get(chosen["dims"], 0))
    if isinstance(chosen["points"], list) and len(chosen["points"]) == 1:
        (chosen["points"],) = chosen["points"]
    check_plane(chosen, points, trajectory)
    if chosen.get("also"):
        chosen["also"] = [named_anywhere(text) for text in chosen["also"]]
    return chosen


def perform(job: Job) -> dict[str, Any]:
    """Measure block by block: blocks that are done are not measured again."""
    from thalweg.measurements.point import load_measured_point
    from thalweg.measurements.surface_picture import kept_plane, picture, save

    options = {"extent": None, **job.options}
    measured = load_measured_point({**job.spec, "also": options.get("also")}, progress=job.progress)
    plane = kept_plane(job.run, measured, options, job.progress)
    found = picture(
        measured,
        plane,
        options,
        run=job.run,
        engine=job.engine,
        task_timeout=job.task_timeout,
        progress=job.progress,
    )
    return save(job.run, found)


def answer(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Add the grid and the points: nested lists, null for what is no finite number."""
    grid, points = run.result("surface/surface"), run.result("surface/points")
    return found | {
        "grid": {str(name): _plain(data.values) for name, data in grid.variables.items()},
        "shown_points": {str(name): _plain(data.values) for name, data in points.variables.items()},
    }


def _plain(values: Any) -> Any:
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array.tolist()
    plain: Any = array.astype(object)
    plain[~np.isfinite(array)] = None
    return plain.tolist()


def lines(found: dict[str, Any]) -> list[str]:
    """Write extent, number of cells, and a row for each quantity."""
    rows = [f"directions: {found['directions']}"]
    for dim, (low, high) in found["extent"].items():
        rows.append(f"{dim}: {low:.6g} to {high:.6g} in {found['points'][dim]} points")
    rows.append(
        f"{found['cells']:,} cells, {found['not_finite']:,} of them not finite;"
        f" {found['evaluations']:,} training samples evaluated"
    )
    if found["trajectory_variance_share"] is not None:
        share = 100 * found["trajectory_variance_share"]
        rows.append(f"shown of the trajectory's variance: {share:.3g} %")
    one = [] if found["trajectory"] is None else [found["trajectory"]]
    for way in found.get("trajectories", one):
        rows.append(
            f"trajectory {way['name']}: {way['outside']} of {way['checkpoints']} checkpoints"
            f" outside the picture; up to {way['off_by']:.4g} weight units off it"
        )
    heads = " ".join(f"{head:>11}" for head in ("centre", "lowest", "highest", "std. error"))
    rows.append(f"\n{'':<12} {heads}  lowest at")
    for name, row in found["measured"].items():
        numbers = (row[key] for key in ("centre", "lowest", "highest", "stderr"))
        cells = " ".join(f"{'-' if value is None else f'{value:.5g}':>11}" for value in numbers)
        where = ", ".join(f"{place:.4g}" for place in row["lowest_at"] or [])
        rows.append(f"{name:<12} {cells}  {where}")
    return rows


def section(run: Run) -> Section | None:
    """Give the section of the report."""
    from thalweg.measurements.surface_section import section as drawn

    return drawn(run)


RECORD = Measurement(
    name="surface",
    question="Measure the loss on a line, a plane or in a space through checkpoints, and draw it.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=("surface/surface", "surface/points"),
    settle=settle,
    checkpoints=(1, None),
    # Several checkpoints whose principal directions are wanted are a trajectory.
    in_order=lambda options: options.get("directions") == "principal",
    kept=True,
    answer=answer,
)
