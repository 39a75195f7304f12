"""What a person sees when the system refuses, an output cannot be written, or Ctrl-C is pressed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import thalweg
from thalweg.cli.main import app, main
from thalweg.errors import TaskFailed
from thalweg.problems import load_problem
from thalweg.run import create_run


def called(monkeypatch, capsys, *words):
    """Call the program; give its exit code and its lines of errors."""
    monkeypatch.setattr(sys, "argv", ["thalweg", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ["reproduce", "--study", "trajectories", "--out", "file/run"],
        ["reproduce", "--study", "trajectories", "--out", "/proc/run"],
        ["reproduce", "--study", "trajectories", "--out", "x" * 300],
        ["claims", "x" * 5000],
        ["runs", "x" * 5000],
    ],
)
def test_the_system_refuses_in_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    code, lines = called(monkeypatch, capsys, *words)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("Error: ")
    assert len(lines[0]) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_that_is_a_folder(tmp_path, monkeypatch, capsys):
    run = create_run(tmp_path / "run", {"studies": [], "training": {}})
    (run.path / "measured.json").write_text('{"evaluation_batch": 1, "seconds_an_epoch": 1}')
    (run.path / ".lock").mkdir()
    code, lines = called(monkeypatch, capsys, "resume", str(run.path))
    assert code == 1 and len(lines) == 1 and "directory" in lines[0]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device", "a.json")])
def test_no_space_and_no_memory(tmp_path, monkeypatch, capsys, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr("thalweg.cli.runs.list_runs", refuse)
    code, lines = called(monkeypatch, capsys, "runs")
    assert code == 1 and len(lines) == 1 and ("memory" in lines[0] or "No space" in lines[0])


@pytest.mark.parametrize("out", ["proof.txt", "folder.json", "nowhere/proof.json"])
def test_an_output_is_checked_before_the_work(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr("thalweg.load_problem", lambda *_, **__: pytest.fail("the work began"))
    proof = CliRunner().invoke(app, ["certify", "digits", "--train", "--out", out])
    assert proof.exit_code == 2 and "--out" in proof.output
    picture = out.replace(".json", ".exe" if "/" not in out else ".png")
    ends = ["--checkpoint", "a.pt", "--checkpoint", "b.pt"]
    line = CliRunner().invoke(app, ["barrier", "digits", *ends, "--picture", picture])
    assert line.exit_code == 2 and "--picture" in line.output


@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_an_interrupt_while_libraries_load(tmp_path, seconds):
    words = [sys.executable, "-m", "thalweg", "reproduce", "--study", "trajectories"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in said and "Stopped." in said


def test_an_interrupt_of_a_command(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("thalweg.cli.runs.list_runs", interrupt)
    answer = CliRunner().invoke(app, ["runs"])
    assert answer.exit_code == 130 and "Stopped." in answer.output


def test_verify_names_what_is_damaged(tmp_path):
    run = create_run(tmp_path / "run", {"kind": "recording"})
    run.log(trajectory="main")({"loss": 0.5}, 0)
    whole = CliRunner().invoke(app, ["verify", str(run.path)])
    assert whole.exit_code == 0 and "as written" in whole.output
    path = run.path / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.7"))
    damaged = CliRunner().invoke(app, ["verify", str(run.path)])
    assert damaged.exit_code == 1 and "events.jsonl: damaged" in damaged.output
    answer = json.loads(CliRunner().invoke(app, ["verify", str(run.path), "--json"]).output)
    assert not answer["whole"]
    assert {file["file"] for file in answer["files"] if file["state"] == "damaged"} == {path.name}


def test_one_bad_run_does_not_hide_the_others(tmp_path):
    for name, text in (("bad", "x = "), ("odd", "[config]\nproblem = 1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.toml").write_text(text)
    create_run(tmp_path / "good", {"preset": "demo"})
    answer = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert answer.exit_code == 0 and len(answer.output.splitlines()) == 3
    assert "unreadable" in answer.output and "demo" in answer.output


def test_a_closed_output_is_said_before_the_work(tmp_path):
    words = f"{sys.executable} -m thalweg reproduce --study trajectories --json >&-"
    done = subprocess.run(words, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr.startswith("Error: standard output is closed")
    assert len(done.stderr.splitlines()) == 1


def test_an_output_that_nobody_reads_ends_the_program_as_others(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "thalweg", "runs", str(tmp_path)]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == -signal.SIGPIPE and done.stderr == ""


def test_an_output_without_space_is_said(tmp_path):
    words = [sys.executable, "-m", "thalweg", "runs", str(tmp_path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_pipe_to_a_worker_that_breaks_is_an_error(monkeypatch):
    def refuse(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("thalweg.cli.runs.list_runs", refuse)
    monkeypatch.setattr("thalweg.cli.main._reader_has_gone", lambda: False)
    answer = CliRunner().invoke(app, ["runs"])
    assert answer.exit_code == 1 and "Error: Broken pipe" in answer.output


@pytest.mark.parametrize(
    ("command", "where"), [("surface", "geometry.blocks"), ("spectrum", "measurements.record")]
)
def test_tasks_of_a_measurement_are_timed(tmp_path, monkeypatch, command, where):
    monkeypatch.chdir(tmp_path)
    model = load_problem("digits", widths=[2], train_size=20, test_size=10).model
    torch.save(model.state_dict(), "w.pt")

    def refuse(*_, engine, task_timeout, **__):
        raise TaskFailed(f"{engine.workers} {task_timeout}")

    monkeypatch.setattr(f"thalweg.{where}.run_tasks", refuse)
    words = [command, "digits", "--checkpoint", "w.pt", "--task-timeout", "7", "--set"]
    answer = CliRunner().invoke(app, [*words, "widths=[2]", "--set", "train_size=20"])
    assert isinstance(answer.exception, TaskFailed) and str(answer.exception) == "1 7.0"


OWN = """
import torch, thalweg as tw
from torch import nn

class Sulky(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 2)

    def forward(self, x):
        assert self.training, "only in training mode"
        return self.line(x)

def make():
    data = torch.randn(20, 4), torch.randint(0, 2, (20,))
    return tw.Problem(Sulky(), nn.CrossEntropyLoss(), data)
"""


def test_an_error_of_the_users_own_code_is_one_line_with_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")
    state = {f"line.{name}": t for name, t in torch.load(tmp_path / "w.pt").items()}
    torch.save(state, tmp_path / "w.pt")
    words = ["spectrum", "own.py:make", "--checkpoint", "w.pt", "--out", "run"]
    code, lines = called(monkeypatch, capsys, *words)
    assert code == 1 and "Traceback" not in "".join(lines)
    assert "own.py:11, in forward: AssertionError: only in training mode" in lines[-1]
    monkeypatch.setenv("THALWEG_TRACEBACK", "1")
    with pytest.raises(AssertionError, match="only in training mode"):
        called(monkeypatch, capsys, *words)


@pytest.mark.parametrize("through_the_users", [False, True])
def test_an_error_of_ours_keeps_its_traceback(monkeypatch, capsys, through_the_users):
    """A mistake in the package is to be reported, with the calls that led there."""
    within: dict[str, Any] = {}
    ours = compile("def stumble(*_, **__): raise ZeroDivisionError", thalweg.__file__, "exec")
    exec(ours, within)
    stumble = within["stumble"]
    monkeypatch.setattr(
        "thalweg.cli.runs.list_runs", (lambda *_: stumble()) if through_the_users else stumble
    )
    with pytest.raises(ZeroDivisionError):
        called(monkeypatch, capsys, "runs")
