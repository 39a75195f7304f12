"""
Whose code may run: a file names a problem, and only the user makes its function be called.

An entry string is code. It is called where the user named it in this process, or where they have
trusted its source once: that is remembered by the digest of the files that define it, in the
user's own state folder, never in a run. A task driver hands what its user named on to its workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from thalweg.errors import EntryNotFound, NotTrusted, RunConflict
from thalweg.run.files import read_json, write_json
from thalweg.run.sources import (
    describe_edits,
    digest_definitions,
    digest_entry,
    is_code,
    plain_definitions,
    source_files,
    whole_entry,
)

# Entries that may be called in this process, with the digest of what was named or trusted.
_granted: dict[str, str] = {}


def name_entry(entry: str) -> None:
    """Note that the user named an entry in this process: it may be called from now on."""
    if is_code(entry):
        _granted[whole_entry(entry)] = digest_entry(entry)


def trust_entry(entry: str) -> None:
    """
    Trust an entry from now on, in later processes too, for as long as its source stays the same.

    Raises
    ------
    EntryNotFound
        If no source file defines it.
    OSError
        If the state folder cannot be written.
    """
    if not is_code(entry):
        return
    _remember(entry, _found_digest(entry))
    name_entry(entry)


def require_trust(entry: str) -> None:
    """
    Refuse to go on unless the user named the entry, or trusted its source.

    Raises
    ------
    NotTrusted
        Saying what would run, and how to allow it.
    RunConflict
        If its source is no longer what was named when this command began.
    EntryNotFound
        If no source file defines it.
    """
    if not is_code(entry):
        return
    digest, granted = _found_digest(entry), _granted.get(whole_entry(entry))
    if granted is not None and granted != digest:
        raise RunConflict(
            f"the source of {entry} was edited while this command ran; start it again."
        )
    if granted is None and digest not in _remembered():
        file = next(iter(source_files(entry).values()))
        raise NotTrusted(
            f"{entry} is named by a file, and would run code: {file}. Read it first; to allow it,"
            f" write --trust (in Python: thalweg.problems.trust_entry({entry!r})), which is"
            " remembered until the source changes."
        )


def granted_entries() -> dict[str, str]:
    """Give what may be called in this process, to be handed on to its workers."""
    return dict(_granted)


@contextmanager
def handed_on(entries: Mapping[str, str]) -> Iterator[None]:
    """Work for a driver whose user named or trusted these entries."""
    before = dict(_granted)
    _granted.update(entries)
    try:
        yield
    finally:
        _granted.clear()
        _granted.update(before)


def describe_source(entry: str) -> dict[str, Any]:
    """
    Give the digests that a run keeps of an entry's source, and remember it where it may be called.

    A run that its user made can so be resumed by them in another process.
    """
    if not is_code(entry):
        return {}
    if whole_entry(entry) in _granted and (digest := digest_entry(entry)):
        with suppress(OSError):
            _remember(entry, digest)
    return digest_definitions(entry)


def check_source(entry: str, recorded: Any, where: str) -> None:
    """
    Refuse an entry whose source is not what it was.

    Parameters
    ----------
    entry : str
        Of the problem.
    recorded : mapping
        As `describe_source` gave it; nothing is checked where there is none.
    where : str
        What the message calls the run.

    Raises
    ------
    RunConflict
        Naming the definitions that changed.
    """
    then = plain_definitions(recorded)
    edits = list(describe_edits(then, digest_definitions(entry))) if then else []
    if edits:
        raise RunConflict(
            f"{entry} was edited since {where} began: {'; '.join(edits)}. What is done belongs to"
            " the old source; undo the edit, or start another run of the new one."
        )


def _found_digest(entry: str) -> str:
    place = entry.rpartition(":")[0]
    if place.partition(".")[0] in sys.stdlib_module_names:
        raise NotTrusted(
            f"{entry} is of Python's own library, which makes no problems; give a function of your"
            " own, 'module:function'."
        )
    digest = digest_entry(entry)
    if not digest:
        raise EntryNotFound(
            f"the problem is {entry}, and no Python file defines it, seen from the working"
            f" directory {Path.cwd()}; put it there, or name your own problem."
        )
    return digest


def _state_file() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "thalweg" / "trusted.json"


def _remembered() -> dict[str, str]:
    try:
        trusted = read_json(_state_file())
    except (OSError, ValueError):
        return {}
    return trusted if isinstance(trusted, dict) else {}


def _remember(entry: str, digest: str) -> None:
    trusted = _remembered()
    if digest not in trusted:
        write_json(_state_file(), trusted | {digest: whole_entry(entry)})
