"""The time that a check-up has left, and the sizes of its parts, decided just before each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self

from thalweg.errors import ThalwegError
from thalweg.measurements.checkup_plan import OF_ALL, allot
from thalweg.measurements.checkup_sizes import SHARES, Sizes, sizes_of
from thalweg.run.progress import Bar, Progress

# A part is ended that takes so many times as long as it was given.
_TOO_LONG = 2.0
# Predictions of less say little of how fast the machine is; what is loaded first takes seconds.
_TELLING, _LOADING = 1.0, 5.0
# What no part may use, for the page and what is not counted: seconds and a share, or a larger
# share of a short time.
_KEPT_BACK, _SHARE_KEPT, _MOST_KEPT = 8.0, 0.03, 0.2
# A part is done again where time for so many times as much of it is left; of that time it is given
# this share, so that it ends in time where it takes somewhat longer than it took.
_WORTHWHILE, _SURELY = 1.5, 0.9
# A part that took less than was expected is trusted to do so again, down to this.
_FASTEST = 0.5


class Clock:
    """
    What is left of the time, and how fast the machine has turned out to be.

    Just before a part begins, what is left is shared again among it and those after it. When all
    are done, time that is left goes to parts that did not fit or were cut.

    Parameters
    ----------
    plan : dict
        Of `thalweg.measurements.checkup_plan.make_plan`.
    spent : float
        Seconds that were spent before.
    decided : dict
        Sizes of parts that were begun before, by part: these stay.
    again : list of dict
        Sizes of parts that were begun again before.
    keep : callable
        Called with what is to be known when the check-up is taken up again.
    """

    def __init__(
        self,
        plan: dict[str, Any],
        spent: float = 0.0,
        decided: dict[str, Sizes | None] | None = None,
        again: list[dict[str, Sizes]] | None = None,
        keep: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self.plan, self.keep = plan, keep
        self.decided: dict[str, Sizes | None] = dict(decided or {})
        self.again: list[dict[str, Sizes]] = list(again or [])
        self.slow = 1.0
        self.reserve = 0.0  # seconds that the last page will take
        self._pace: dict[str, float] = {}  # seconds that parts took, over those when timed
        self._held: dict[str, Sizes] = {}  # what of the sizes there are answers for
        self._spent, self._begun = spent, time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds that were spent so far, the times before included."""
        return self._spent + time.perf_counter() - self._begun

    @property
    def done(self) -> dict[str, Any]:
        """The plan with the sizes that were decided, the largest of which there are answers."""
        return {**self.plan, **self.decided, **self._held}

    def sizes(self, part: str) -> Sizes | None:
        """Decide the sizes of a part; what was decided stays."""
        if part not in self.decided:
            left = self._left(OF_ALL * 60 * self.plan["minutes"])
            later = [name for name in SHARES if name not in self.decided]
            chosen = allot({**self.plan, **self.decided}, later, left / self.slow)[part]
            self.decided[part] = chosen and self._begun_at(chosen, self.slow)
            self._keep()
        return self.decided[part]

    def more(self, times: int, failed: Collection[str] = ()) -> dict[str, Sizes]:
        """
        Decide what is done again in the time that is left; what was decided stays.

        Parameters
        ----------
        times : int
            How often that was decided before.
        failed : collection of str
            Parts that have no answer for other reasons than the time.

        Returns
        -------
        dict
            Sizes by part, in the order of their worth: first what has no answer yet.
        """
        if times == len(self.again):
            self.again.append(self._worthwhile(failed))
            self._keep()
        return self.again[times]

    def _worthwhile(self, failed: Collection[str]) -> dict[str, Sizes]:
        chosen: dict[str, Sizes] = {}
        done, left = self.done, self._left(self._most)
        for part in sorted(set(SHARES).difference(failed), key=self._turn):
            now, pace = self._held.get(part), self._pace.get(part, self.slow)
            larger = sizes_of(done | chosen, part, _SURELY * left / pace)
            worth = 0.0 if now is None else _WORTHWHILE * now["seconds"] / now["slow"]
            if larger is not None and larger["seconds"] >= worth:
                chosen[part] = self._begun_at(larger, pace)
                left -= chosen[part]["seconds"]
        return {part: chosen[part] for part in SHARES if part in chosen}

    def _turn(self, part: str) -> tuple[bool, int]:
        """Say when a part's turn is: first what has no answer, then what is worth more."""
        return part in self._held, list(SHARES).index(part)

    def _begun_at(self, sizes: Sizes, slow: float) -> Sizes:
        """Set how slow it is expected to be, and the seconds after which it is ended."""
        seconds, left = sizes["seconds"] * slow, max(self._left(self._most), _LOADING)
        most = min(max(_TOO_LONG * seconds, _LOADING), left)
        return sizes | {"seconds": seconds, "slow": slow, "most": most}

    def _left(self, of: float) -> float:
        return max(of - self.spent - self.reserve, 0.0)

    @property
    def _most(self) -> float:
        whole = 60 * float(self.plan["minutes"])
        return whole - min(_KEPT_BACK + _SHARE_KEPT * whole, _MOST_KEPT * whole)

    def answered(self, part: str, sizes: Sizes) -> None:
        """Know that there are answers of a part of these sizes."""
        self._held[part] = sizes

    @contextmanager
    def timed(self, part: str, sizes: Sizes, share: float) -> Iterator[None]:
        """Compare the time that a share of a part takes with what was expected."""
        start = time.perf_counter()
        yield
        expected = share * sizes["seconds"]
        taken = time.perf_counter() - start
        if expected > _TELLING and taken > _TELLING:  # what was done before takes no time
            pace = sizes["slow"] * taken / expected
            self._pace[part], self.slow = max(_FASTEST, pace), max(1.0, pace)
        self._keep()

    def _keep(self) -> None:
        self.keep({"spent": self.spent, "decided": self.decided, "again": self.again})


class OutOfTime(ThalwegError):
    """A part of a check-up has taken much longer than its share of the time."""

    @property
    def answer(self) -> dict[str, Any]:
        """What the part answers: why there is nothing, and that more time would help."""
        return {"refused": str(self), "late": True}


def ending(seconds: float) -> Progress:
    """
    Make bars that end the work, by `OutOfTime`, once it has taken longer than it may.

    Parameters
    ----------
    seconds : float
        That it may take.
    """
    last = time.perf_counter() + seconds
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
