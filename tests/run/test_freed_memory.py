"""Freed memory is given back to the system."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from thalweg.run import freed_memory
from thalweg.run.freed_memory import give_back


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pieces_between_others_are_given_back():
    # Of 4 MB: from 32 MB on the C library gives back by itself, and the first that is freed.
    torch.ones(1 << 20)
    pieces = [torch.ones(1 << 20) for _ in range(100)]
    last = pieces[-1]
    del pieces
    before = _resident()
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    give_back()
    assert _resident() < before - 200 * 2**20
    assert bool((last == 1).all())


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    give_back()
