"""``thalweg inspect``: the check-up of one or several checkpoints in a given time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from thalweg.measurements.options import defaults, option
from thalweg.measurements.record import Job, Measurement
from thalweg.run import Report, Run, Task
from thalweg.run.files import read_json, write_json

if TYPE_CHECKING:
    from thalweg.measurements.checkup_clock import Clock
    from thalweg.measurements.checkup_subject import Subject
    from thalweg.measurements.parts import Section

# Writing the page takes at most one part in so many of the time.
_PAUSE = 15
_FILE, _SIZES = "checkup.json", "sizes.json"


@dataclass(frozen=True)
class Options:
    """How long a check-up may take."""

    minutes: float = option(2.0, "Minutes that it may take; they decide the sizes of all parts.")
    seed: int = option(0, "Seed of all that is random.", least=0)


def settle(given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
    """Complete the options, and check them."""
    from thalweg.measurements.checkup import check_minutes

    chosen = {**defaults(Options), **given}
    check_minutes(chosen["minutes"])
    return chosen


def perform(job: Job) -> dict[str, Any]:
    """Plan, then do part after part; the page is written whenever one is done."""
    from thalweg.measurements.checkup import CheckUp, collect
    from thalweg.measurements.checkup_verdicts import verdicts
    from thalweg.measurements.checkup_words import told_plan
    from thalweg.measurements.places import each_point

    names = [name for name, _ in each_point(job.spec)]

    def do(part: str, places: tuple[int, ...], sizes: Any) -> dict[str, Any]:
        wanted = {"part": part, "places": list(places), "sizes": sizes, "options": job.options}
        label = " ".join([part, *(names[i] for i in places)])
        task = Task("thalweg.measurements.inspect:do_part", {**job.spec, **wanted}, label=label)
        return job.perform([task], label)[0]

    page = _Page(job.finished)

    def finished(parts: dict[str, Any]) -> None:
        found = CheckUp(tuple(verdicts(parts, names)), clock.done, parts).to_dict()
        write_json(job.run.inside(_FILE), found)
        _save(job.run, parts, found["verdicts"])
        page.write()
        clock.reserve = page.took

    started = job.started or time.perf_counter()
    plan = do("plan", (), None)
    job.announce("\n".join(told_plan(plan)))
    clock = _clock(job, plan, time.perf_counter() - started)
    parts = collect(names, clock, do, finished)
    return CheckUp(tuple(verdicts(parts, names)), clock.done, parts).to_dict()


def _clock(job: Job, plan: dict[str, Any], spent: float) -> Clock:
    """Go on with the time that was spent before, and the sizes that were decided."""
    from thalweg.measurements.checkup_clock import Clock

    path = job.run.inside(_SIZES)
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    keep = partial(write_json, path)
    before = known.get("spent", 0.0)
    return Clock(plan, before + spent, known.get("decided"), known.get("again"), keep)


def do_part(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Do one part, in a worker."""
    from thalweg.measurements.checkup import do
    from thalweg.measurements.checkup_plan import make_plan

    subject = _subject(run, arguments)
    if arguments["part"] == "plan":
        return make_plan(subject, arguments["options"]["minutes"])
    return do(subject, arguments["part"], tuple(arguments["places"]), arguments["sizes"])


class _Page:
    """The page, which is written again only where that takes little of the time spent so far."""

    def __init__(self, write: Callable[[], object]) -> None:
        self._write, self._next = write, 0.0
        self.took = 0.0

    def write(self) -> None:
        start = time.perf_counter()
        if start >= self._next:
            self._write()
            end = time.perf_counter()
            self.took = end - start
            self._next = end + _PAUSE * self.took


_KEPT: dict[str, Subject] = {}


def _subject(run: Run, arguments: dict[str, Any]) -> Subject:
    """Make the problem, its risk and the points once for all parts that a process does."""
    import json

    names = ("problem", "at", "risk", "evaluation_batch")
    key = json.dumps([str(run.path), *(arguments[name] for name in names)])
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = _made(run, arguments)
    return _KEPT[key]


def _made(run: Run, arguments: dict[str, Any]) -> Subject:
    from thalweg.measurements.checkup_subject import Subject
    from thalweg.measurements.places import each_point
    from thalweg.measurements.point import DTYPES, open_states, open_way

    problem, opened = open_states(arguments, run)
    names = [name for name, _ in each_point(arguments)]
    points = [replace(point, name=name) for point, name in zip(opened, names, strict=True)]
    dtype, seed = DTYPES[arguments["risk"]["dtype"]], arguments["options"]["seed"]
    along = open_way(problem, arguments["at"])
    batch = arguments["evaluation_batch"]
    return Subject(problem, points, names, dtype, seed, batch, along)


def _save(run: Run, parts: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    """Save the answers, and what has a section of its own where that looks for it."""
    import xarray as xr

    from thalweg.measurements import barrier, surface_picture

    words = ("question", "about", "verdict", "answer", "trust")
    table = {name: ("row", [one[name] for one in answers]) for name in words}
    run.save_result("inspect/verdicts", xr.Dataset(table))
    lines = [*parts.get("line", {}).values()]
    if len(lines) == 1 and isinstance(lines[0], xr.Dataset):
        run.save_result(barrier.RESULT, lines[0])
    if "refused" not in parts.get("surface", {"refused": ""}):
        surface_picture.save(run, parts["surface"])


def lines(found: dict[str, Any]) -> list[str]:
    """Write the sizes, and an answer for each question."""
    from thalweg.measurements.checkup import told

    return told(found)


def section(run: Run) -> Section | None:
    """Give the answers as far as there are any."""
    from thalweg.measurements.checkup_section import section_of

    path = run.inside(_FILE)
    return section_of(read_json(path)) if path.exists() else None


RECORD = Measurement(
    name="inspect",
    question="Check up on checkpoints: how good, how flat, one basin, worth averaging?",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=("inspect/verdicts",),
    settle=settle,
    checkpoints=(1, None),
    kept=True,
    opening={"check": False},  # the plan makes the self-check, as large as the time allows
)
