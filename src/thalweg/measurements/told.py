"""A progress bar that tells the driver of a task how far it is."""

from __future__ import annotations

from typing import Self

from thalweg.run import Report

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
        self.done += n * self.units
        self.report(int(self.done))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
