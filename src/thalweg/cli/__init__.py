"""The command line: it parses, calls and prints; no science lives here."""

from __future__ import annotations

import os
import signal

__all__ = ["main"]


def main() -> None:
    """Run the program, which Ctrl-C ends in one line from the first moment on."""
    # Libraries take seconds to load, and an interrupt among them would be a traceback.
    signal.signal(signal.SIGINT, _stop)
    from thalweg.cli.main import main as program

    program()


def _stop(*_: object) -> None:
    os.write(2, b"\nStopped.\n")
    os._exit(130)
