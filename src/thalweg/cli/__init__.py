"""The command line: it parses, calls and prints; no science lives here."""

from __future__ import annotations

import os
import signal
import sys
import time

__all__ = ["main"]

# By `time.perf_counter`, when the program was started; None where it is called from Python.
started: float | None = None


def main() -> None:
    """Run the program, which Ctrl-C ends in one line from the first moment on."""
    global started
    started = time.perf_counter()
    # Libraries take seconds to load, and an interrupt among them would be a traceback.
    signal.signal(signal.SIGINT, _stop)
    if sys.stdout is None:  # closed by whoever called: the first file opened would take its place
        os.write(2, _CLOSED)
        sys.exit(1)
    from thalweg.cli.main import main as program

    program()


_CLOSED = (
    b"Error: standard output is closed, so that no answer could be written. Give it a file, or"
    b" /dev/null.\n"
)


def _stop(*_: object) -> None:
    os.write(2, b"\nStopped.\n")
    os._exit(130)
