"""What a search may take, in computing time or evaluations, and the bar that is told of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from thalweg.run.progress import Bar


class Used:
    """
    What searches have used, in whole seconds or evaluations, on a bar.

    Parameters
    ----------
    bar : Bar
        Told of it.
    total : int
        Of the bar.
    """

    def __init__(self, bar: Bar, total: int) -> None:
        self._bar, self._total, self._told = bar, total, 0

    def up_to(self, total: int) -> None:
        """Have the bar stand there, if it is not beyond it."""
        total = min(total, self._total)
        if total > self._told:
            self._bar.update(total - self._told)
            self._told = total

    def add(self, units: int) -> None:
        """Count further units."""
        self.up_to(self._told + units)


@dataclass(eq=False)
class Clock:
    """
    What a search may take.

    Attributes
    ----------
    seconds : float
        Of this process's computing time.
    steps : int or None
        Evaluations, whatever time they take.
    taken : int
        Evaluations so far.
    used : Used or None
        Told at each look at the clock.
    """

    seconds: float
    steps: int | None
    taken: int = 0
    used: Used | None = None
    _told: int = 0
    _start: float = field(default_factory=time.process_time)

    @property
    def limit(self) -> int:
        """All of it, in whole seconds or evaluations."""
        return math.ceil(self.seconds) if self.steps is None else self.steps

    def started(self, share: float = 1.0) -> Clock:
        """Give another with as much, or a share of it, from now on."""
        steps = None if self.steps is None else int(share * self.steps)
        return Clock(share * self.seconds, steps, used=self.used)

    def add(self, part: Clock) -> None:
        """Count what a part of the search has taken, which the bar was told of."""
        self.taken += part.taken
        self._told += part._told

    def over(self) -> bool:
        """Look at it: whether nothing is left."""
        seconds = time.process_time() - self._start
        whole = int(seconds) if self.steps is None else self.taken
        if self.used is not None and whole > self._told:
            self.used.add(whole - self._told)
            self._told = whole
        return seconds >= self.seconds if self.steps is None else self.taken >= self.steps
