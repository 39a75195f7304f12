"""Progress: nothing for libraries, a bar on standard error for people."""

from __future__ import annotations

import functools

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
