"""A progress bar that tells the driver of a task how far it is."""

from __future__ import annotations

from typing import Self

from thalweg.run import Progress, Report

# Progress moves in tenths of an epoch of the whole training set; other work counts in these units.
UNITS_AN_EPOCH = 10


class Told:
    """
    A bar in a worker.

    Parameters
    ----------
    report : callable
        Of the task.
    units : float
        Units of the task for each unit of the bar.
    """

    def __init__(self, report: Report, units: float) -> None:
        self.report, self.units, self.done = report, units, 0.0

    def update(self, n: int = 1, /) -> None:
        """Count ``n`` more units as done."""
        self.add(n * self.units)

    def add(self, units: float) -> None:
        """Count units of the task."""
        self.done += units
        self.report(int(self.done))

    def part(self, units: float) -> Progress:
        """Make bars of any total that count for so many units of the task."""
        return lambda total, label: _Part(self, units / max(1, total))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Part(Told):
    """A bar whose units are counted by another."""

    def __init__(self, whole: Told, units: float) -> None:
        super().__init__(whole.report, units)
        self._whole = whole

    def add(self, units: float) -> None:
        """Count units of the task."""
        self._whole.add(units)
