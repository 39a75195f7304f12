"""The command line: it parses, calls and prints; no science lives here."""

from thalweg.cli.main import main

__all__ = ["main"]
