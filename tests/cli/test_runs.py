"""The commands of runs as a person types them: in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from run.killing import PATIENCE, alive, wait_for
from thalweg.cli.main import main
from thalweg.dynamics import record
from thalweg.run import create_run

# The preset with the fewest parents, on data that take no time.
SMALL = [
    "--preset",
    "paper",
    "--data",
    "digits",
    "--train-size",
    "201",
    "--set",
    "widths=[8]",
    "--set",
    "test_size=20",
]
SMALL += ["--study", "trajectories", "--study", "interpolation", "--workers", "1"]


def thalweg(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("thalweg")
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)


class Here:
    """The same command in this process: loading the libraries takes longer than all the rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._captured = monkeypatch, capsys

    def __call__(self, *arguments: object, cwd: Path) -> str:
        self._patch.chdir(cwd)
        self._patch.setattr(sys, "argv", ["thalweg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._captured.readouterr()
        assert ended.value.code == 0, said.err
        return said.out


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def reproduced(folder: Path) -> dict:
    done = thalweg("reproduce", *SMALL, "--out", "runs/small", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_reproduce_answers_one_object_and_writes_a_report(reproduced: dict, folder: Path) -> None:
    assert set(reproduced) == {"run", "report", "studies", "claims"}
    page = (folder / reproduced["report"]).read_text()
    assert "<html" in page and "seed0" in page
    found = reproduced["studies"]["trajectories"]
    assert len(found["trajectories"]) == 3 + 6
    names = {claim["name"] for claim in reproduced["claims"]}
    assert {name.partition("/")[0] for name in names} == {"interpolation"}
    assert found["stress"].keys() >= {"network"}


def test_the_same_command_again_opens_the_finished_run(
    reproduced: dict, folder: Path, here: Here
) -> None:
    again = here("reproduce", *SMALL, "--out", "runs/small", "--json", cwd=folder)
    assert json.loads(again) == reproduced


def test_claims_lists_what_reproduce_judged(reproduced: dict, folder: Path, here: Here) -> None:
    listed = json.loads(here("claims", "runs/small", "--json", cwd=folder))
    assert {key: listed[key] for key in ("run", "claims")} == {
        key: reproduced[key] for key in ("run", "claims")
    }
    assert [judged["changed"] for judged in listed["rules"]["judged"]] == [[]]
    told = here("claims", "runs/small", cwd=folder)
    assert "hashed into run.toml before the first task" in told


def test_claims_of_an_unfinished_run_say_how_to_get_them(tmp_path: Path) -> None:
    create_run(tmp_path / "begun", {"studies": ["trajectories"]})
    said = thalweg("claims", "begun", cwd=tmp_path).stdout
    assert "trajectories" in said and "thalweg resume" in said


def test_report_and_runs(reproduced: dict, folder: Path, here: Here) -> None:
    written = here("report", "runs/small", "--json", cwd=folder)
    assert json.loads(written) == {k: reproduced[k] for k in ("run", "report")}
    listed = json.loads(here("runs", "--json", cwd=folder))["runs"]
    assert [row["state"] for row in listed] == ["complete"]
    assert "runs/small" in here("runs", cwd=folder)


def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("thalweg")
    command = [program, "reproduce", "--study", "trajectories", "--train-size", "600"]
    command += ["--out", "runs/stopped", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    run = tmp_path / "runs" / "stopped"
    wait_for(lambda: list(run.glob("checkpoints/*/*.safetensors")))
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "thalweg resume runs/stopped" in said and "Traceback" not in said
    assert not alive({process.pid})
    assert "unfinished" in thalweg("runs", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["resume", "nowhere"], 1, "nowhere"),
        (["reproduce", "--preset", "tiny"], 1, "demo, laptop, paper"),
        (["reproduce", "--set", "width"], 2, "NAME=VALUE"),
        (["reproduce", "--data", "missing.py:make"], 1, "missing.py"),
        (["reproduce", "--speed"], 2, "--speed"),
    ],
)
def test_wrong_use_is_answered_without_a_traceback(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In this process: loading the libraries takes longer than all the rest.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["thalweg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == code, said
    assert words in said and "Traceback" not in said


def test_version_is_told_by_the_program_and_by_the_module(tmp_path: Path) -> None:
    said = thalweg("--version", cwd=tmp_path)
    assert said.returncode == 0 and said.stdout == f"thalweg {version('thalweg')}\n"
    module = [sys.executable, "-m", "thalweg", "--version"]
    assert subprocess.run(module, capture_output=True, text=True).stdout == said.stdout


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    create_run(tmp_path / "taken", {"preset": "other"})
    done = thalweg("reproduce", "--out", "taken", cwd=tmp_path)
    assert done.returncode == 1 and "preset" in done.stderr


def test_a_recording_is_called_one_and_not_resumed(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, optimizer, run=tmp_path / "runs" / "mine", every=1):
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    (line,) = thalweg("runs", cwd=tmp_path).stdout.splitlines()
    assert "recorded: 3 checkpoints" in line
    refused = thalweg("resume", "runs/mine", cwd=tmp_path)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "run the program that made it again" in refused.stderr
