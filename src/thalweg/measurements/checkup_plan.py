"""How much of each part of a check-up fits into the time that is given."""

from __future__ import annotations

import time
from typing import Any

from thalweg.landscape.space import ParameterSpace
from thalweg.measurements.checkup_sizes import SHARES, Sizes, sizes_of, whole_of
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.checkup_timing import Planning
from thalweg.run.threads import torch_threads

# Of the time that is given; the rest is for what is not counted: reading, pictures, the page.
OF_ALL = 0.85
# The least that a part needs is found to one part in 2**12 of the time; what is left over is
# shared so many times among the parts that can use it.
_HALVINGS, _ROUNDS = 12, 4


def make_plan(subject: Subject, minutes: float) -> dict[str, Any]:
    """
    Time one value, gradient and product, and allot the time.

    All of this takes at most a tenth of the time, by what one gradient takes: where the self-check
    and what is timed would take longer, they are made on fewer samples, and then left out. Only
    opening the data and the first gradient of one sample are done whatever they cost: together
    about two hundred forward passes of one sample.

    Parameters
    ----------
    subject : Subject
        Problem and points.
    minutes : float
        That all parts may take together.

    Returns
    -------
    dict
        ``seconds`` a sample of a ``value``, ``gradient`` and ``product``; ``method`` of products;
        ``threads`` of torch, one where more gain nothing on the machine as it is;
        ``checked``, the self-check, False where there was no time for it; and the sizes of each
        part of `SHARES`, with the ``seconds`` that it is expected to take, None where it does not
        fit.
    """
    start = time.perf_counter()
    with torch_threads(1):
        parted = subject.parted  # evaluates some samples, alone and together
    planning = Planning(subject, 60 * minutes)
    with torch_threads(planning.threads):
        subject.check = planning.self_check()
        method, seconds = planning.timings()
    plan: dict[str, Any] = {
        "checked": subject.check and subject.check.to_dict(),
        "seconds": seconds,
        "method": method,
        "threads": planning.threads,
        "minutes": minutes,
        "points": len(subject.points),
        "pairs": len(subject.pairs),
        "weights": ParameterSpace.of(subject.problem.model).size,
        "train": len(subject.problem.samples("train")),
        "test": 0 if subject.problem.test is None else len(subject.problem.samples("test")),
        "parted": parted,
    }
    left = OF_ALL * 60 * minutes - (time.perf_counter() - start)
    return plan | allot(plan, list(SHARES), left)


def allot(plan: dict[str, Any], parts: list[str], left: float) -> dict[str, Sizes | None]:
    """
    Share the time among parts.

    In the order of their worth parts are let in with the least that they need, as long as there is
    time for it. What is left is shared among them; what a part cannot use goes to the others.

    Parameters
    ----------
    plan : dict
        Of `make_plan`, with the sizes of the parts that are decided.
    parts : list of str
        Of `SHARES`, in that order.
    left : float
        Seconds for all of them, on the machine as it was when it was timed.

    Returns
    -------
    dict
        Sizes by part, with the ``seconds`` that are expected; None where it does not fit, or there
        is nothing to be done.
    """
    known = {key: value for key, value in plan.items() if key not in parts}
    sizes: dict[str, Sizes | None] = {}
    for part in parts:
        sizes[part] = _least(known | sizes, part, left - _taken(sizes))
    for _ in range(_ROUNDS):
        room = left - _taken(sizes)
        wanting = [part for part in parts if _can_grow(known | sizes, part)]
        shares = sum(SHARES[part] for part in wanting)
        for part in wanting:
            _grow(known, sizes, part, room * SHARES[part] / shares)
    for part in parts:
        _grow(known, sizes, part, left - _taken(sizes))
    return sizes


def _taken(sizes: dict[str, Sizes | None]) -> float:
    return float(sum(chosen["seconds"] for chosen in sizes.values() if chosen))


def _least(plan: dict[str, Any], part: str, most: float) -> Sizes | None:
    """Find the smallest sizes that a part may have, by bisection of its time."""
    low, high = 0.0, max(most, 0.0)
    chosen = sizes_of(plan, part, high)
    for _ in range(_HALVINGS if chosen else 0):
        middle = (low + high) / 2
        smaller = sizes_of(plan, part, middle)
        low, high, chosen = (low, middle, smaller) if smaller else (middle, high, chosen)
    return chosen


def _can_grow(plan: dict[str, Any], part: str) -> bool:
    whole = whole_of(plan, part)
    return bool(plan[part] and whole and whole["seconds"] > plan[part]["seconds"])


def _grow(plan: dict[str, Any], sizes: dict[str, Sizes | None], part: str, seconds: float) -> None:
    """Let a part take so many seconds more, where it is let in and can use them."""
    now = sizes[part]
    if now and seconds > 0:
        most = now["seconds"] + seconds
        larger = sizes_of(plan | sizes, part, most)
        if larger and now["seconds"] < larger["seconds"] <= most:
            sizes[part] = larger
