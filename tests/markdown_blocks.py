"""Run every fenced block of a Markdown document, or have the document say why not."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from sybil import Document, Example, Region
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from thalweg.cli.main import main

INFO_LINE = re.compile(r"[ \t]*(?P<language>[\w+-]*)[^\n]*\n")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S[^\n]*?) -->[ \t]*\n[ \t]*\Z")
FILE = re.compile(r"<!-- file: (?P<name>[\w.]+) -->[ \t]*\n[ \t]*\Z")
PROGRAMS = ("thalweg", "python")
TIMEOUT = 600  # seconds


class MarkdownBlockParser:
    """Sybil parser: Python and bash run or are files, `text` is output, others give a reason."""

    def __init__(self) -> None:
        self.lexer = RawFencedCodeBlockLexer(INFO_LINE)
        self.python = PythonEvaluator()
        self.doctests = DocTestStringParser(DocTestEvaluator())

    def __call__(self, document: Document) -> Iterable[Region]:
        for region in self.lexer(document):
            region.parsed = region.lexemes["source"]
            language = region.lexemes["language"]
            if NOT_RUN.search(document.text[: region.start]):
                region.evaluator = skip
            elif language == "python" and FILE.search(document.text[: region.start]):
                region.evaluator = write
            elif language == "python" and region.parsed.startswith(">>>"):
                for doctest in self.doctests(region.parsed, document.path):
                    doctest.adjust(region, region.parsed)
                    yield doctest
                continue
            elif language == "python":
                region.evaluator = self.python
            elif language == "bash":
                region.evaluator = run_commands
            elif language == "text":
                continue
            else:
                region.evaluator = refuse
            yield region


def skip(example: Example) -> None:
    """Skip a block, with the reason its document gives."""
    pytest.skip(NOT_RUN.search(example.document.text[: example.start])["reason"])


def write(example: Example) -> None:
    """Write a block to the file that its document names, where later blocks may import it."""
    name = FILE.search(example.document.text[: example.start])["name"]
    Path(name).write_text(example.parsed, encoding="utf-8")
    compile(example.parsed, name, "exec")


def refuse(example: Example) -> str:
    """Report a block that is neither run nor explained."""
    language = example.region.lexemes["language"] or "no language"
    return (
        f"A block of {language}: only python and bash blocks are run. Mark output as `text`, "
        "or write <!-- not run: the reason --> on the line before the block."
    )


def run_here(call: list[str]) -> str | None:
    """Run a command in this process: loading the libraries takes longer than what it does."""
    said = io.StringIO()
    try:
        with (
            mock.patch.object(sys, "argv", call),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            main()
    except SystemExit as ended:
        return f"Exit code {ended.code}:\n{said.getvalue()[-4000:]}" if ended.code else None
    return None


def run_commands(example: Example) -> str | None:
    """Run a block of commands in the current directory, with this interpreter's programs."""
    commands = example.parsed.replace("\\\n", " ").splitlines()
    for command in (line.strip() for line in commands):
        if command and not command.startswith("#") and command.split()[0] not in PROGRAMS:
            return f"`{command}`: blocks run only {' and '.join(PROGRAMS)}; or say why not run."
    calls = [shlex.split(command, comments=True) for command in commands]
    if Path(example.path).name != "README.md" and all(
        call[:1] in ([], ["thalweg"]) for call in calls
    ):
        return next(filter(None, (run_here(call) for call in calls if call)), None)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    if done.returncode:
        return f"Exit code {done.returncode}:\n{done.stdout[-4000:]}"
    return None
