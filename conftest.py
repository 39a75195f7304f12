"""Set-up for all that pytest runs: tests, doctests, and the blocks of the Markdown files."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from unittest import mock

# Workers and commands started by tests inherit these. One thread: sums in the same order
# everywhere, and no crowding where tests start processes. Agg: nothing opens a window.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from _pytest.doctest import DoctestItem
from sybil import Sybil
from sybil.integration.pytest import SybilItem

from markdown_blocks import MarkdownBlockParser

torch.set_num_threads(1)

# Without examples, and importing Lightning takes each process four seconds; its tests import it.
collect_ignore = ["src/thalweg/integrations/lightning.py"]


@pytest.fixture(scope="module")
def document_directory(tmp_path_factory):
    """Make an empty directory the current one, and importable, while a document's blocks run."""
    directory = tmp_path_factory.mktemp("document")
    with contextlib.chdir(directory), mock.patch.object(sys, "path", [str(directory), *sys.path]):
        yield directory


pytest_collect_file = Sybil(
    parsers=[MarkdownBlockParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    fixtures=["document_directory"],
).pytest()


def pytest_collection_modifyitems(items):
    """Leave out a second copy of the doctests of functions that `thalweg.boundary` wraps.

    The package's own module shows those of them that something has asked for; they are tested
    where they are written.
    """
    package = Path(__file__).with_name("src") / "thalweg" / "__init__.py"
    items[:] = [
        item
        for item in items
        if not isinstance(item, DoctestItem) or item.path != package or item.name == "thalweg"
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item):
    """Keep Sybil (10.1) from ending the whole session on an error from outside a block.

    Its traceback filter takes the frame after its own, and there is none where a resource that a
    block left open is reported after the block.
    """
    if isinstance(item, SybilItem):
        item._traceback_filter = partial(frames_of_block, item._traceback_filter)


def frames_of_block(cut, excinfo):
    """Cut a traceback down to a block's own frames, if it has any."""
    try:
        return cut(excinfo)
    except IndexError:
        return excinfo.traceback
