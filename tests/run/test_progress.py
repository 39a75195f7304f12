"""Progress: nothing for libraries, a bar on standard error for people."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
import tqdm

from thalweg.run.progress import on_screen, silent


def work(progress):
    with progress(10, "checkpoints") as bar:
        for _ in range(8):
            bar.update()
        bar.update(2)


def test_silent_says_nothing(capsys):
    work(silent)
    assert capsys.readouterr() == ("", "")


def test_short_work_shows_no_bar(capsys):
    work(on_screen)
    assert capsys.readouterr() == ("", "")


def test_long_work_shows_label_and_share_on_standard_error(capsys, monkeypatch):
    class Eager(tqdm.tqdm):
        __init__ = functools.partialmethod(tqdm.tqdm.__init__)

    def eager(**options):
        return Eager(**{**options, "delay": 0.0})

    monkeypatch.setattr(tqdm, "tqdm", eager)
    work(on_screen)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "checkpoints" in errors
    assert "100%" in errors and "left" in errors


def test_time_left_leaves_out_what_was_done_before(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with on_screen(100, "studies") as bar:
        bar.bar._time, bar.bar.start_t = lambda: now[0], 0.0
        bar.update(50)  # of an earlier session
        for now[0] in (10.0, 20.0, 30.0, 40.0):
            bar.update(1)
        # A unit takes ten seconds, and 46 are left.
        assert "studies:  54%" in str(bar.bar) and "00:40 done, 07:40 left" in str(bar.bar)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of its own kind")
@pytest.mark.parametrize("size", [(0, 0), (24, 90)])
def test_a_terminal_that_does_not_say_how_wide_it_is_shows_a_bar(size):
    import fcntl
    import pty
    import struct
    import termios

    program = (
        "import tqdm\n"
        "whole = tqdm.tqdm\n"
        "tqdm.tqdm = lambda **options: whole(**{**options, 'delay': 0.0})\n"
        "from thalweg.run.progress import on_screen\n"
        "with on_screen(4, 'checkpoints') as bar:\n"
        "    bar.update(4)\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux says that a terminal is closed
        pass
    os.close(ours)
    assert "checkpoints: 100%" in shown.decode() and "left" in shown.decode()
