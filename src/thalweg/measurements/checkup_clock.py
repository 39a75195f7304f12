"""The time that a check-up has left, and the sizes of its parts, decided just before each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from thalweg.errors import ThalwegError
from thalweg.measurements.checkup_plan import OF_ALL, Sizes, allot, smaller
from thalweg.run.progress import Bar, Progress

# A part is ended that takes so many times as long as it was given.
_TOO_LONG = 2.0
# Predictions of less say little of how fast the machine is; what is loaded first takes seconds.
_TELLING, _LOADING = 1.0, 5.0


class Clock:
    """
    What is left of the time, and how fast the machine has turned out to be.

    Sizes are those of the plan, or smaller ones where less time is left than was planned.

    Parameters
    ----------
    plan : dict
        Of `thalweg.measurements.checkup_plan.make_plan`.
    spent : float
        Seconds that were spent before.
    decided : dict
        Sizes of parts that were begun before, by part: these stay.
    keep : callable
        Called with what is to be known when the check-up is taken up again.
    """

    def __init__(
        self,
        plan: dict[str, Any],
        spent: float = 0.0,
        decided: dict[str, Sizes | None] | None = None,
        keep: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self.plan, self.keep = plan, keep
        self.decided: dict[str, Sizes | None] = dict(decided or {})
        self.slow = 1.0
        self.reserve = 0.0  # seconds that the last page will take
        self._spent, self._begun = spent, time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds that were spent so far, the times before included."""
        return self._spent + time.perf_counter() - self._begun

    @property
    def done(self) -> dict[str, Any]:
        """The plan with the sizes that were decided."""
        return {**self.plan, **self.decided}

    def sizes(self, part: str) -> Sizes | None:
        """Decide the sizes of a part; what was decided stays."""
        if part not in self.decided:
            left = OF_ALL * 60 * self.plan["minutes"] - self.spent - self.reserve
            allowed = allot({**self.plan, **self.decided}, part, max(left, 0.0), self.slow)
            self.decided[part] = smaller(self._planned(part), allowed)
            self._keep()
        return self.decided[part]

    def _planned(self, part: str) -> Sizes | None:
        """Give what was planned, and what it would take now."""
        planned: Sizes | None = self.plan[part]
        return planned and planned | {"seconds": planned["seconds"] * self.slow}

    @contextmanager
    def timed(self, sizes: Sizes | None, share: float) -> Iterator[None]:
        """Compare the time that a share of a part takes with what was expected."""
        start = time.perf_counter()
        yield
        expected = share * (sizes or {}).get("seconds", 0.0)
        taken = time.perf_counter() - start
        if expected > _TELLING and taken > _TELLING:  # what was done before takes no time
            self.slow = max(1.0, self.slow * taken / expected)
        self._keep()

    def _keep(self) -> None:
        self.keep({"spent": self.spent, "decided": self.decided})


class OutOfTime(ThalwegError):
    """A part of a check-up has taken much longer than its share of the time."""


def ending(seconds: float) -> Progress:
    """
    Make bars that end the work, by `OutOfTime`, once it has taken much longer than expected.

    Parameters
    ----------
    seconds : float
        That it was expected to take.
    """
    last = time.perf_counter() + _TOO_LONG * max(seconds, _LOADING)
    return lambda total, label: _Ending(last, label)


class _Ending(Bar):
    def __init__(self, last: float, label: str) -> None:
        self.last, self.label = last, label

    def update(self, n: int = 1, /) -> None:
        """Look at the clock."""
        if time.perf_counter() > self.last:
            raise OutOfTime(f"it took much longer than its share of the time ({self.label})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
