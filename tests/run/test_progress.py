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
