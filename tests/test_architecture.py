"""The page on architecture says what the import contract and the protocols say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from thalweg.landscape import protocols

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCE = ROOT / "src" / "thalweg"


def rows(heading):
    """Give the cells of the first table under a heading."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_floors_are_those_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    built = [
        {room for room in re.findall(r"\w+", layer) if (SOURCE / room).exists()}
        | {room for room in re.findall(r"\w+", layer) if (SOURCE / f"{room}.py").exists()}
        for layer in layers
    ]
    written = {int(floor): set(re.findall(r"`(\w+)`", rooms)) for floor, rooms, _ in rows("Floors")}
    wanted = [rooms for rooms in built if rooms]
    assert written == dict(zip(reversed(range(len(wanted))), wanted, strict=True))


def test_every_protocol_of_landscapes_is_in_the_table():
    known = {
        name
        for name, protocol in vars(protocols).items()
        if getattr(protocol, "_is_runtime_protocol", False) and name != "LinearOperator"
    }
    table = {
        name: set(re.findall(r"`(\w+)(?:\(.*?\))?`", members))
        for names, members, _ in rows("What instruments ask of a landscape")
        for name in re.findall(r"`(\w+)`", names)
    }
    assert known == set(table)
    for name, members in table.items():
        own = set(protocols.members(getattr(protocols, name)))
        assert members & own, name
        assert all(member in PAGE for member in own), name
