"""How much of each part of a check-up fits into the time that is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from thalweg.curvature.vector_products import Method
from thalweg.errors import ThalwegError
from thalweg.measurements.checkup_sizes import SHARES, Sizes, sizes_of, whole_of
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk

# Timed on so many samples, fewer where these are slow; on the second number where they are quick.
_TIMED, _TIMED_FIRST, _TIMED_AGAIN = 32, 4, 256
_QUICK, _SLOW, _TIMES = 0.05, 1.0, 3
# Of the time that is given; the rest is for what is not counted: reading, pictures, the page.
OF_ALL = 0.85
# Share of the time for the self-check; gradients that it costs a sample, most in float64; the
# samples whose derivatives it compares, the fewest that it may, and no bound.
_FOR_CHECK, _CHECK_GRADIENTS, _CHECKED, _LEAST_CHECKED, _ALL_OF_CHECK = 0.03, 80, 8, 2, 10**9
# The least that a part needs is found to one part in 2**12 of the time; what is left over is
# shared so many times among the parts that can use it.
_HALVINGS, _ROUNDS = 12, 4


def make_plan(subject: Subject, minutes: float) -> dict[str, Any]:
    """
    Time one value, gradient and product, and allot the time.

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
        ``checked``, the self-check; and the sizes of each part of `SHARES`, with the ``seconds``
        that it is expected to take, None where it does not fit.
    """
    start = time.perf_counter()
    subject.check = subject.checked_on(_samples_of_check(subject, 60 * minutes))
    few = subject.limited(_TIMED_AGAIN, _TIMED_AGAIN)  # statistics of all would take too long
    method = _method(few)
    plan: dict[str, Any] = {
        "checked": subject.check.to_dict(),
        "seconds": _seconds(few, method),
        "method": method,
        "minutes": minutes,
        "points": len(subject.points),
        "pairs": len(subject.pairs),
        "weights": few.risk.space.size,
        "train": len(subject.problem.samples("train")),
        "test": 0 if subject.problem.test is None else len(subject.problem.samples("test")),
        "parted": subject.parted,
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
        larger = sizes_of(plan | sizes, part, now["seconds"] + seconds)
        if larger and larger["seconds"] > now["seconds"]:
            sizes[part] = larger


def _samples_of_check(subject: Subject, seconds: float) -> int:
    """Choose on how many samples the self-check is made: all of its own where these are quick."""
    problem = subject.sampled(_TIMED_FIRST)
    try:
        risk = EmpiricalRisk(problem, batchnorm="frozen", dtype=subject.dtype, check=False)
        w = risk.space.pack(problem.model).to(risk.dtype)
        risk.gradient(w)  # the first call loads what it needs
        each = _timed(lambda: risk.gradient(w)) / risk.samples
    except (RuntimeError, TypeError, ThalwegError):  # the check says what is wrong
        return _ALL_OF_CHECK
    affordable = int(_FOR_CHECK * seconds / (_CHECK_GRADIENTS * each))
    return _ALL_OF_CHECK if affordable >= _CHECKED else max(_LEAST_CHECKED, affordable)


def _seconds(subject: Subject, method: Method | None) -> dict[str, float]:
    """Give seconds a sample of a value, a gradient and a product with the Hessian."""
    _seconds_on(subject, _TIMED_FIRST, method)  # the first calls load what they need
    first = _seconds_on(subject, _TIMED_FIRST, method)
    if first["product"] * _TIMED_FIRST > _SLOW:
        return _seconds_on(subject, 2 * _TIMED_FIRST, method)
    found = _seconds_on(subject, _TIMED, method)
    again = found["product"] * _TIMED < _QUICK
    return _seconds_on(subject, _TIMED_AGAIN, method) if again else found


def _seconds_on(subject: Subject, samples: int, method: Method | None) -> dict[str, float]:
    risk, w = subject.few(0, samples)
    v = torch.ones_like(w)
    hessian = risk.hessian(w, method=method)
    hessian @ v  # prepares the others
    work: dict[str, Callable[[], object]] = {
        "value": lambda: risk.value(w),
        "gradient": lambda: risk.gradient(w),
        "product": lambda: hessian @ v,
    }
    return {name: _timed(call) / risk.samples for name, call in work.items()}


def _method(subject: Subject) -> Method | None:
    """Choose how products are taken: tracing, which few of them do not repay, only where needed."""
    risk, w = subject.few(0, _TIMED_FIRST)
    try:
        risk.hessian(w, method="graph") @ torch.ones_like(w)
    except (RuntimeError, TypeError, ThalwegError):  # some models refuse, each in its own way
        return None
    return "graph"


def _timed(call: Callable[[], object]) -> float:
    """Time a call; a quick one several times, as others may have the machine for a moment."""
    least = math.inf
    for _ in range(_TIMES):
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
        if least > _QUICK:
            break
    return least
