"""Learning-rate schedules: functions of the share of training that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

from thalweg.errors import InvalidArgument

Schedule = Callable[[float], float]

# Points at which a schedule of the user's own is sampled to tell it from another.
_SAMPLES = 65


def constant(progress: float) -> float:
    """Keep the rate: the factor is 1."""
    return 1.0


def cosine(progress: float) -> float:
    """
    Let the rate fall to zero along half a cosine (Loshchilov and Hutter 2017, eq. 5, one cycle).

    Examples
    --------
    >>> cosine(0.0), cosine(0.5), cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return 0.5 + 0.5 * math.cos(math.pi * progress)


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine}


def resolve_schedule(schedule: str | Schedule) -> Schedule:
    """
    Give the function that a name stands for; a function as it is.

    Raises
    ------
    InvalidArgument
        If the name is unknown.
    """
    if callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        names = ", ".join(repr(name) for name in SCHEDULES)
        raise InvalidArgument(
            f"schedule={schedule!r}; write one of {names}, or a function of the share of training"
            " that is done (0 to 1) that returns the factor of the learning rate."
        )
    return SCHEDULES[schedule]


def describe_schedule(schedule: str | Schedule) -> str | list[float]:
    """Give a name as it is, and a function as its values on a grid: what JSON can hold."""
    if not callable(schedule):
        return schedule
    return [float(schedule(i / (_SAMPLES - 1))) for i in range(_SAMPLES)]
