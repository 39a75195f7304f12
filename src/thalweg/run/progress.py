"""Progress behind a two-method protocol: a no-op for libraries, tqdm for people."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

_AT_ONCE = 0.5  # seconds
_UNKNOWN_SIZE = {"ncols": 79, "nrows": 24}


class Bar(Protocol):
    """One piece of work under way."""

    def update(self, n: int = 1, /) -> object:
        """Count ``n`` more units as done."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> object: ...


class Progress(Protocol):
    """A factory of bars: ``progress(total, label)`` opens one."""

    def __call__(self, total: int, label: str, /) -> Bar:
        """Open a bar of ``total`` units named ``label``."""


class _Silence:
    def update(self, n: int = 1, /) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def silent(total: int, label: str, /) -> Bar:
    """Show nothing: the default everywhere outside the CLI."""
    return _Silence()


def within(bar: Bar) -> Progress:
    """Make bars that are parts of another: their units count in it, and they do not close it."""
    return lambda total, label: _Within(bar)


class _Within:
    def __init__(self, bar: Bar) -> None:
        self.update = bar.update

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def on_screen(total: int, label: str, /) -> Bar:
    """Show a tqdm bar with time left on standard error, once two seconds have passed."""
    from tqdm import tqdm

    # A log file gets a line now and then, a terminal a bar that moves.
    pause = 0.1 if sys.stderr.isatty() else 15.0
    bar = tqdm(
        total=total,
        desc=label,
        file=sys.stderr,
        delay=2.0,
        mininterval=pause,
        maxinterval=max(10.0, pause),
        miniters=1,
        # The speed since the start: work comes in lumps, as training and measuring take turns.
        smoothing=0.0,
        # A terminal that does not say how wide it is has 0 columns, in which nothing is shown.
        **({"dynamic_ncols": True} if _columns() != 0 else _UNKNOWN_SIZE),
        # What the units are differs from work to work; how much of it is done does not.
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left",
    )
    return _OnScreen(bar)


def _columns() -> int | None:
    """Ask the terminal how wide it is; None where there is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return None


class _OnScreen:
    """A tqdm bar that leaves out of the speed what it is told at once: it was done before."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.begun = bar, time.monotonic()

    def update(self, n: int = 1, /) -> None:
        """Count ``n`` more units as done."""
        if time.monotonic() - self.begun < _AT_ONCE:
            self.bar.initial += n
        self.bar.update(n)

    def __enter__(self) -> Self:
        self.bar.__enter__()
        return self

    def __exit__(self, *why: Any) -> None:
        self.bar.__exit__(*why)
