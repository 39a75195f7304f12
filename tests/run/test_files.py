"""Atomic files, by killing their writers."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from run.killing import PATIENCE, kill_at_random_moments, script
from thalweg.run.files import (
    read_json,
    remove_leftovers,
    write_atomic,
    write_json,
    write_text,
)

WRITER = """
from pathlib import Path
from thalweg.run.files import write_text
texts = [str([turn] * 1_000_000) for turn in (1, 2)]
def work():
    for turn in range(10**9):
        write_text(Path(sys.argv[1]), texts[turn % 2])
        yield
"""


def test_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, "é"], "a": {}}
    write_json(tmp_path / "new" / "folder" / "file.json", value)
    assert read_json(tmp_path / "new" / "folder" / "file.json") == value


def test_others_may_read_what_they_may_read_of_any_file(tmp_path):
    def write(temporary):
        save_file({"w": np.zeros(3)}, temporary)

    write_atomic(tmp_path / "weights.safetensors", write)
    (tmp_path / "plain").touch()
    modes = [path.stat().st_mode for path in sorted(tmp_path.iterdir())]
    assert len(modes) == 2 and modes[0] == modes[1]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def half(temporary):
        temporary.write_text("ne")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomic(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file.json"
    write_text(path, str([0] * 1_000_000))
    caught_writing = 0
    for _ in kill_at_random_moments(WRITER, 20, path):
        value = json.loads(path.read_text())
        assert value == [value[0]] * 1_000_000
        caught_writing += any(tmp_path.glob(".*.tmp"))
    assert caught_writing, "no kill fell into a write: the test has shown nothing"


def test_what_killed_writers_left_is_removed(tmp_path):
    with script("print('ready', flush=True)") as process:
        process.wait(timeout=PATIENCE)
    left = tmp_path / "a" / f".0.safetensors.{process.pid}.tmp"
    mine = tmp_path / f".b.json.{os.getpid()}.tmp"
    others = [tmp_path / name for name in (".hidden", "c.tmp", ".d.x.tmp", "e.json")]
    left.parent.mkdir()
    for path in (left, mine, *others):
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert not left.exists() and mine.exists() and all(path.exists() for path in others)
