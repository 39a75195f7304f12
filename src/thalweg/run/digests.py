"""Checksums of what a run holds: written into each file, and checked by whoever reads it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import google_crc32c
import tomli_w

from thalweg.errors import DamagedFile

# Files of this form carry a checksum; those of before carry none. One flipped bit can hide either
# the form or the checksum and never both: what has one of them must have both.
FORMAT = 2
_PIECE = 1 << 20
_KEY, _FORM = "crc32c", "format"
_END = re.compile(rb',\s*"crc32c": "([0-9a-f]{8})"\s*}\s*\Z')
_FIRST = re.compile(rb'crc32c = "([0-9a-f]{8})"\n')


def checksum(data: Any, start: int = 0) -> int:
    """
    Give the CRC-32C of bytes, which every flipped bit changes, and every burst of up to 32.

    It is computed by the processor at about the speed of memory.

    Parameters
    ----------
    data : bytes or a read-only buffer
        What is hashed.
    start : int
        The checksum of what stands before.

    Examples
    --------
    >>> f"{checksum(b'123456789'):08x}"
    'e3069283'
    """
    return int(google_crc32c.extend(start, data))


def hex_checksum(data: bytes) -> str:
    """Give `checksum` in hexadecimal digits."""
    return f"{checksum(data):08x}"


def sealed_json(value: dict[str, Any], *, indent: int | None = None) -> str:
    """Write a dict of JSON values as text that ends in its checksum."""
    text = json.dumps(value | {_FORM: FORMAT}, indent=indent, sort_keys=indent is not None)
    head = text[:-1].rstrip()
    space = "\n" + " " * indent if indent is not None else " "
    last = "\n" if indent is not None else ""
    return f'{head},{space}"{_KEY}": "{hex_checksum(head.encode())}"{last}}}'


def opened_json(data: bytes, where: str) -> dict[str, Any]:
    """
    Read what `sealed_json` wrote, or a dict of JSON values without a checksum, as older ones are.

    Raises
    ------
    DamagedFile
        If it is not what was written.
    """
    end = _END.search(data)
    if end and hex_checksum(data[: end.start()]).encode() != end[1]:
        raise DamagedFile(f"{where} is damaged: its checksum is another.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedFile(f"{where} is damaged: it is no JSON.") from None
    if not isinstance(value, dict):
        raise DamagedFile(f"{where} is damaged: it holds a {type(value).__name__}, not an object.")
    if not end and (_KEY in value or _FORM in value):
        raise DamagedFile(f"{where} is damaged: its checksum is gone.")
    return {name: entry for name, entry in value.items() if name not in (_KEY, _FORM)}


def is_sealed_json(data: bytes) -> bool:
    """Say whether JSON text, known to be whole, carries a checksum."""
    return _END.search(data) is not None


def sealed_toml(value: dict[str, Any]) -> str:
    """Write a dict of TOML values as text that begins with its checksum."""
    text = tomli_w.dumps({_FORM: FORMAT} | value)
    return f'{_KEY} = "{hex_checksum(text.encode())}"\n{text}'


def opened_toml(data: bytes, where: str) -> dict[str, Any]:
    """
    Read what `sealed_toml` wrote, or TOML without a checksum.

    Raises
    ------
    DamagedFile
        If it is not what was written.
    """
    first = _FIRST.match(data)
    if first and hex_checksum(data[first.end() :]).encode() != first[1]:
        raise DamagedFile(
            f"{where} is damaged, or was edited: its checksum is another. To change a"
            " configuration, make another run."
        )
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{where} is no TOML file: {error}.") from None
    if not first and (_KEY in value or _FORM in value):
        raise DamagedFile(f"{where} is damaged: its checksum is gone.")
    return {name: entry for name, entry in value.items() if name not in (_KEY, _FORM)}


def is_sealed_toml(data: bytes) -> bool:
    """Say whether TOML text, known to be whole, carries a checksum."""
    return _FIRST.match(data) is not None


def file_checksum(path: Path) -> str:
    """Give the checksum of a whole file, in hexadecimal digits."""
    total = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            total = checksum(piece, total)
    return f"{total:08x}"
