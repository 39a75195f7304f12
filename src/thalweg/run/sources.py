"""The files that define an entry string, found and hashed without running anything of them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

# Of what is installed only the module named and the packages above it are a source: it is not what
# a user edits, and torch has thousands of files.
_INSTALLED = {"site-packages", "dist-packages"}
_REST = "other statements"


def is_code(entry: str) -> bool:
    """Say whether an entry names a function to call, and not a built-in problem or a data set."""
    return ":" in entry


def whole_entry(entry: str) -> str:
    """Write out the path in an entry string."""
    place, _, attribute = entry.rpartition(":")
    if not place.endswith(".py"):
        return entry
    return f"{Path(place).expanduser().resolve()}:{attribute}"


def source_files(entry: str) -> dict[str, Path]:
    """
    Find the files that define an entry, and what they import from the folders beside them.

    Nothing is imported: the statements ``import`` are read. What is imported by other means, and
    what an installed package imports, are not found.

    Parameters
    ----------
    entry : str
        ``"path/file.py:make"`` or ``"package.module:make"``.

    Returns
    -------
    dict of str to Path
        By their names relative to the folder that they are imported from; the first is the one
        that was named. Empty if there is none.
    """
    place = entry.rpartition(":")[0]
    sources: dict[str, Path] = {}
    waiting, roots = _file(place) if place.endswith(".py") else _module(place)
    while waiting:
        path = waiting.pop(0)
        root = next(root for root in roots if path.is_relative_to(root))
        name = path.relative_to(root).as_posix()
        if name not in sources:
            sources[name] = path
            waiting += [] if _INSTALLED & set(root.parts) else _imported(path, roots)
    return sources


def digest_entry(entry: str) -> str:
    """Hash the function's name and all files that define it; empty if there is no file."""
    files = {name: _sha256(path.read_bytes()) for name, path in source_files(entry).items()}
    text = json.dumps([entry.rpartition(":")[2], files], sort_keys=True)
    return _sha256(text.encode()) if files else ""


def digest_definitions(entry: str) -> dict[str, dict[str, str]]:
    """Hash each definition in each file of an entry, to say later what was edited."""
    return {name: _definitions(path.read_bytes()) for name, path in source_files(entry).items()}


def plain_definitions(value: Any) -> dict[str, dict[str, str]]:
    """Read definitions as a file holds them; nothing where they are of another form."""
    if not isinstance(value, dict) or not all(
        isinstance(definitions, dict) for definitions in value.values()
    ):
        return {}
    return value


def describe_edits(
    then: dict[str, dict[str, str]], now: dict[str, dict[str, str]]
) -> Iterator[str]:
    """Say in words how the definitions of an entry differ, one phrase a file."""
    for file in {**then, **now}:
        before, after = then.get(file), now.get(file)
        if before is None or after is None:
            yield f"{file} {'is new' if before is None else 'is gone'}"
        elif before != after:
            names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            yield f"{file} ({', '.join(_edit(name, before, after) for name in names)})"


def _edit(name: str, before: dict[str, str], after: dict[str, str]) -> str:
    return f"{name} {'added' if name not in before else 'gone' if name not in after else 'changed'}"


def _file(place: str) -> tuple[list[Path], list[Path]]:
    path = Path(place).expanduser().resolve()
    # A file's own folder is importable, and so is the working directory.
    return [path] * path.is_file(), list(dict.fromkeys([path.parent, Path.cwd()]))


def _module(name: str) -> tuple[list[Path], list[Path]]:
    first, *further = name.split(".")
    spec = _spec(first)
    for depth in range(len(further)):
        folders = list((spec and spec.submodule_search_locations) or [])
        spec = PathFinder.find_spec(".".join([first, *further[: depth + 1]]), folders)
    origin = (spec and spec.origin) or ""
    if not origin.endswith(".py") or not Path(origin).is_file():
        return [], []
    main = Path(origin).resolve()
    root = main.parents[len(further) + (main.name == "__init__.py")]
    return [main, *_files_of(root, [first, *further])], [root]


def _spec(name: str) -> ModuleSpec | None:
    """Find a top-level module, which imports nothing, as commands find it: here first."""
    if name in sys.stdlib_module_names:
        return None
    try:
        return PathFinder.find_spec(name, [str(Path.cwd())]) or importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _imported(path: Path, roots: list[Path]) -> list[Path]:
    """List the files under the roots that the statements of a file import."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    imported = []
    for folder, dotted in _imports(tree, path):
        for root in roots if folder is None else [folder]:
            files = _files_of(root, dotted)
            imported += [file for file in files if any(map(file.is_relative_to, roots))]
            if files:
                break
    return imported


def _imports(tree: ast.AST, path: Path) -> Iterator[tuple[Path | None, list[str]]]:
    """Give the folder of each relative import (None for others) and its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # path.parents[0] is the package of the file itself.
            folder = path.parents[min(node.level, len(path.parents)) - 1] if node.level else None
            base = node.module.split(".") if node.module else []
            yield from ((folder, [*base, alias.name]) for alias in node.names)


def _files_of(root: Path, dotted: list[str]) -> list[Path]:
    """List the files that an import of a dotted name runs: the packages above it, and itself."""
    files = []
    for depth in range(1, len(dotted) + 1):
        place = root.joinpath(*dotted[:depth])
        candidates = [place / "__init__.py", place.with_name(f"{place.name}.py")]
        files += [file.resolve() for file in candidates if file.is_file()][:1]
    return files


def _definitions(source: bytes) -> dict[str, str]:
    """Hash the text of each function and class of a file, and of all other statements together."""
    try:
        text = source.decode()
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return {_REST: _sha256(source)[:16]}
    lines = text.splitlines()
    parts: dict[str, list[str]] = {}
    for statement in statements:
        name = getattr(statement, "name", _REST)
        decorators = getattr(statement, "decorator_list", [])
        first = min(node.lineno for node in (statement, *decorators))
        parts.setdefault(name, []).extend(lines[first - 1 : statement.end_lineno])
    return {name: _sha256("\n".join(text).encode())[:16] for name, text in parts.items()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
