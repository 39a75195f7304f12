"""The check-up from Python: what is there, how good, how flat, one basin or several."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument, ThalwegError, first_line
from thalweg.measurements import checkup_parts as measure
from thalweg.measurements.checkup_aligned import aligned
from thalweg.measurements.checkup_clock import Clock, OutOfTime
from thalweg.measurements.checkup_flatness import curvature, noise
from thalweg.measurements.checkup_layers import inside
from thalweg.measurements.checkup_plan import make_plan
from thalweg.measurements.checkup_sizes import SHARES, Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.checkup_verdicts import verdicts
from thalweg.measurements.checkup_words import told_plan
from thalweg.measurements.dataset_codec import unpack
from thalweg.measurements.verdict import Verdict
from thalweg.problems import Problem
from thalweg.problems.checkpoints import Point, open_point
from thalweg.result import Result
from thalweg.run.freed_memory import give_back
from thalweg.run.progress import Progress, silent
from thalweg.run.threads import torch_threads

# Does a part, or gives what was found before: name, places of points, sizes.
Do = Callable[[str, tuple[int, ...], Any], dict[str, Any]]


@dataclass(frozen=True)
class CheckUp(Result):
    """
    What a check-up found.

    Attributes
    ----------
    verdicts : tuple of Verdict
        One for each question and point, or pair of points.
    plan : dict
        The sizes that the time allowed.
    parts : dict
        What was measured, by part and point.
    """

    verdicts: tuple[Verdict, ...]
    plan: dict[str, Any]
    parts: dict[str, Any]

    def __getitem__(self, question: str) -> list[Verdict]:
        """Give the verdicts on a question, by the beginning of its words."""
        found = [v for v in self.verdicts if v.question.startswith(question)]
        if not found:
            known = sorted({v.question for v in self.verdicts})
            raise KeyError(f"{question!r}; there are {', '.join(known)}")
        return found

    def __str__(self) -> str:
        return "\n".join(self.told())

    def told(self) -> list[str]:
        """Give question after question in lines."""
        return told(self.to_dict())

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:left">{html.escape(text)}</td>'
                for text in (v.question, v.about, v.answer, v.trust)
            )
            + "</tr>"
            for v in self.verdicts
        )
        head = "".join(f"<th>{text}</th>" for text in ("question", "of", "answer", "trust"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def to_dict(self) -> dict[str, Any]:
        """Give verdicts and sizes as JSON values."""
        return {"plan": self.plan, "verdicts": [v.to_dict() for v in self.verdicts]}


def told(found: Mapping[str, Any]) -> list[str]:
    """Write a check-up in lines."""
    rows = told_plan(found["plan"])
    question = ""
    for verdict in found["verdicts"]:
        if verdict["question"] != question:
            question = verdict["question"]
            rows.append(f"\n{question}")
        rows += [f"  {verdict['about']}: {verdict['answer']}", f"    ({verdict['trust']})"]
    return rows


def inspect(
    problem: Problem,
    points: Mapping[str, Any] | Sequence[Any],
    *,
    minutes: float = 2.0,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> CheckUp:
    """
    Look at points of a problem: how good, how flat, in one basin, worth averaging.

    Parameters
    ----------
    problem : Problem
        Model, loss and data.
    points : sequence or mapping by name
        Whole states (`thalweg.open_point`), paths of checkpoints, state dicts, or flat vectors.
    minutes : float
        That it may take: one value, gradient and product are timed, and the sizes of all parts
        chosen. Where the machine becomes slower, the parts that are left become smaller.
    dtype : torch.dtype, optional
        To compute in; by default the model's own.
    seed : int
        Of the choice of samples and of all noise.
    progress : Progress
        Shows the parts.

    Returns
    -------
    CheckUp
        ``checkup["Which is flatter?"][0].answer``; a notebook shows it as a table.

    Raises
    ------
    InvalidArgument
        If there are no points, or ``minutes`` is not positive.

    Examples
    --------
    >>> import thalweg as tw
    >>> problem = tw.load_problem("digits", network="mlp", width=4, train_size=40, test_size=20)
    >>> start = problem.model.state_dict()
    >>> found = inspect(problem, {"a": start, "b": start}, minutes=0.1)
    >>> found["Do they compute the same?"][0].verdict
    'same predictions'
    """
    start = time.perf_counter()
    check_minutes(minutes)
    named = dict(points) if isinstance(points, Mapping) else _named(points)
    if not named:
        raise InvalidArgument("no point is given; write tw.inspect(problem, [state]).")
    opened = [_opened(problem, name, point) for name, point in named.items()]
    subject = Subject(problem, opened, list(named), dtype, seed)
    with progress(1, "check-up") as bar:
        clock = Clock(make_plan(subject, minutes), time.perf_counter() - start)
        parts = collect(list(named), clock, partial(do, subject))
        bar.update()
    return CheckUp(tuple(verdicts(parts, list(named))), clock.done, parts)


def check_minutes(minutes: float) -> None:
    """Refuse times that are none."""
    if not minutes > 0:
        raise InvalidArgument(f"minutes={minutes}; write a positive number, such as 2.")


def _named(points: Sequence[Any]) -> dict[str, Any]:
    return {
        str(point) if isinstance(point, str | os.PathLike) else chr(ord("a") + i): point
        for i, point in enumerate(points)
    }


def _opened(problem: Problem, name: str, point: Any) -> Point:
    if isinstance(point, Tensor):
        from thalweg.risk import EmpiricalRisk

        risk = EmpiricalRisk(problem, check=False)
        point = {**risk.fixed(), **risk.space.unpack(point)}
    found = point if isinstance(point, Point) else open_point(problem, point)
    return replace(found, name=name)


def do(subject: Subject, part: str, places: tuple[int, ...], sizes: Any) -> dict[str, Any]:
    """
    Measure one part of a check-up, on as much of the data as the sizes say.

    ``refused`` says why a part could not be measured: the others are. Without what is there and
    the fit there is no check-up.
    """
    subject.take_check(sizes.get("checked"))
    with torch_threads(sizes.get("threads")):
        answer = _answered(subject, part, places, sizes)
    give_back()  # parts need the most at different places
    return answer


def _answered(subject: Subject, part: str, places: tuple[int, ...], sizes: Any) -> dict[str, Any]:
    """Measure a part; what a refused one held is free once this has returned."""
    try:
        return _measured(subject.limited(*sizes["of"]), part, places, sizes)
    except OutOfTime as error:
        return error.answer
    except ThalwegError as error:
        if part in ("there", "fit"):
            raise
        return {"refused": first_line(error)}


def _measured(less: Subject, part: str, places: tuple[int, ...], sizes: Any) -> dict[str, Any]:
    if part == "there":
        return measure.there(less)
    if part == "surface":
        return measure.surface(less, sizes)
    if part in _OF_PAIRS:
        return _OF_PAIRS[part](less, places[0], places[1], sizes)
    if part == "fit":
        return measure.fit(less, places[0])
    return _OF_A_POINT[part](less, places[0], sizes)


_OF_PAIRS = {"line": measure.line, "aligned": aligned}
_OF_A_POINT = {
    "noise": noise,
    "curvature": curvature,
    "inside": inside,
    "kernel": measure.kernel,
}
# What is done of sizes: the part, of each point, each pair, or of all.
_STEPS = {
    "fit": ("fit", "points"),
    "lines": ("line", "pairs"),
    "noise": ("noise", "points"),
    "curvature": ("curvature", "points"),
    "inside": ("inside", "points"),
    "degeneracy": ("kernel", "points"),
    "surface": ("surface", "all"),
    "aligned": ("aligned", "pairs"),
}
# How often time that is left over may be given to parts that can use it.
_AGAIN = 3


def collect(
    names: list[str],
    clock: Clock,
    do: Do,
    finished: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """
    Do all parts that there is time for, and gather them.

    Parameters
    ----------
    names : list of str
        Of the points.
    clock : Clock
        Decides the sizes of each part.
    do : callable
        Does one part: name, places, sizes.
    finished : callable
        Told of all parts so far whenever one is done.
    """
    collected = _Collected(names, clock, do, finished)
    collected.begin()
    for sized in SHARES:
        sizes = clock.sizes(sized)
        if sizes is not None:
            collected.take(sized, sizes)
    for times in range(_AGAIN):
        for sized, sizes in clock.more(times, collected.failed).items():
            collected.take(sized, sizes)
    return collected.parts


class _Collected:
    """The parts of a check-up so far."""

    def __init__(
        self,
        names: list[str],
        clock: Clock,
        do: Do,
        finished: Callable[[dict[str, Any]], object],
    ) -> None:
        self.clock, self.do, self.finished = clock, do, finished
        pairs = Subject.pairs_of(len(names))
        self.of: dict[str, list[tuple[int, ...]]] = {
            "points": [(i,) for i in range(len(names))],
            "pairs": [*pairs],
            "all": [()],
        }
        self.parts: dict[str, Any] = {"pairs": pairs}
        self.failed: set[str] = set()  # parts that cannot be, whatever the time

    def begin(self) -> None:
        """Look at what is there."""
        self.clock.sizes("fit")
        self.parts["there"] = self.do("there", (), self._limits)

    @property
    def _limits(self) -> dict[str, Any]:
        """The samples that a part may look at, the self-check that was made, and threads."""
        done = self.clock.done
        whole = done["fit"] or done
        known = {name: done.get(name) for name in ("checked", "threads")}
        return {"of": [whole["train"], whole["test"]], **known}

    def take(self, sized: str, sizes: Sizes) -> None:
        """Do a part, for all its places; a later one takes the place of an earlier, if it ends."""
        part, each = _STEPS[sized]
        limits = self._limits | ({"of": [sizes["train"], sizes["test"]]} if part == "fit" else {})
        answers: dict[tuple[int, ...], dict[str, Any]] = {}
        for places in self.of[each]:
            with self.clock.timed(sized, sizes, 1 / len(self.of[each])):
                answers[places] = self.do(part, places, {**sizes, **limits})
            if answers[places].get("late"):
                break  # the others would take as long
        late = any(answer.get("late") for answer in answers.values())
        if not late and all("refused" in answer for answer in answers.values()):
            self.failed.add(sized)
        elif not late:
            self.clock.answered(sized, sizes)
        if not late or part not in self.parts:
            self.parts[part] = self._unpacked(part, each, answers)
            self.finished(self.parts)

    @staticmethod
    def _unpacked(part: str, each: str, answers: dict[tuple[int, ...], dict[str, Any]]) -> Any:
        if each == "all":
            return _whole(answers[()])
        if each == "pairs":
            return {places: _of_a_pair(answer) for places, answer in answers.items()}
        return {places[0]: answer for places, answer in answers.items()}


def _of_a_pair(found: dict[str, Any]) -> Any:
    """Give a line; or why there is none."""
    return found if "refused" in found else unpack(found)["line"]


def _whole(found: dict[str, Any]) -> Any:
    return found if "refused" in found else unpack(found)
