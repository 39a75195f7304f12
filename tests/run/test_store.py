"""The run directory: made once, found again, never mistaken."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run.killing import script
from thalweg.errors import DamagedFile, InvalidArgument, RunConflict, RunNotFound
from thalweg.run.checkpoints import checkpoint_path
from thalweg.run.store import Run, create_run, list_runs, open_run

CONFIG = {"data": {"name": "digits", "size": 100}, "seeds": [0, 1], "rate": 0.1}

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
leaves = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)
configs = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner)),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(config=configs)
def test_a_configuration_comes_back(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("runs") / "run"
    create_run(folder, config)
    assert open_run(folder).config == config
    assert create_run(folder, config).config == config


def test_values_of_python_become_values_of_toml(tmp_path):
    config = {
        "none": None,
        "nested": {"none": None, "tuple": (1, 2)},
        "path": Path("a") / "b",
        "number": np.float64(0.5),
        "count": np.int64(3),
        "empty": {},
    }
    plain = {"nested": {"tuple": [1, 2]}, "path": "a/b", "number": 0.5, "count": 3, "empty": {}}
    assert create_run(tmp_path / "run", config).config == plain
    assert create_run(tmp_path / "run", config).config == plain


@pytest.mark.parametrize("value", [{1, 2}, object(), [None], np.zeros(2), 1j])
def test_what_toml_cannot_hold_is_refused_by_name(tmp_path, value):
    with pytest.raises(InvalidArgument, match=r"data\.bad"):
        create_run(tmp_path / "run", {"data": {"bad": value}})
    assert not (tmp_path / "run").exists()


def test_run_toml_says_how_the_run_was_made(tmp_path):
    import torch

    create_run(tmp_path / "run", CONFIG)
    about = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert about["config"] == CONFIG
    assert about["versions"].keys() == {"thalweg", "torch", "numpy", "python"}
    assert about["versions"]["torch"] == torch.__version__
    assert about["created"].tzinfo is not None


def test_not_a_number_equals_itself(tmp_path):
    create_run(tmp_path / "run", {"limit": math.nan, "limits": [math.nan]})
    create_run(tmp_path / "run", {"limit": math.nan, "limits": [math.nan]})


def test_the_same_configuration_keeps_the_run(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    before = (tmp_path / "run" / "run.toml").read_bytes()
    create_run(tmp_path / "run", {**CONFIG, "extra": None})
    assert (tmp_path / "run" / "run.toml").read_bytes() == before


def test_another_configuration_is_a_conflict_that_names_the_keys(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    other = {"data": {"name": "cifar10", "size": 100}, "seeds": [0, 1], "momentum": 0.9}
    with pytest.raises(RunConflict) as caught:
        create_run(tmp_path / "run", other)
    message = str(caught.value)
    assert "data.name: got 'cifar10', expected 'digits'" in message
    assert "rate: got nothing, expected 0.1" in message
    assert "momentum: got 0.9, expected nothing" in message
    assert "size" not in message and "seeds" not in message
    assert "Choose another folder" in message


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(RunConflict, match=r"holds thesis\.tex and no run\.toml"):
        create_run(tmp_path, CONFIG)
    with pytest.raises(RunConflict, match="it is a file"):
        create_run(tmp_path / "thesis.tex", CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_killed_creation_is_not_a_run_and_can_be_made_again(tmp_path):
    killed = """
import os, signal, sys
from thalweg.run import files, store
files._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
store.create_run(sys.argv[1], {"a": 1})
"""
    with script(killed, tmp_path / "run") as process:
        process.wait()
    assert list((tmp_path / "run").iterdir()), "the kill came too early to show anything"
    assert list_runs(tmp_path) == []
    with pytest.raises(RunNotFound):
        open_run(tmp_path / "run")
    assert create_run(tmp_path / "run", CONFIG).config == CONFIG


def test_a_missing_run_says_what_is_there_and_what_is_near(tmp_path):
    for name in ("digits", "cifar10"):
        create_run(tmp_path / name, CONFIG)
    with pytest.raises(RunNotFound, match=r"does not exist.*Runs nearby: \S*digits, \S*cifar10"):
        open_run(tmp_path / "digts")
    with pytest.raises(RunNotFound, match="holds cifar10, digits and no run"):
        open_run(tmp_path)
    (tmp_path / "lonely" / "folder").mkdir(parents=True)
    with pytest.raises(RunNotFound, match=r"it is empty. There are no runs nearby"):
        open_run(tmp_path / "lonely" / "folder")


@pytest.mark.parametrize(
    ("text", "message"), [("a = ", "no TOML file"), ("a = 1", "not written by Thalweg")]
)
def test_a_strange_run_toml_is_no_run(tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises((RunNotFound, DamagedFile), match=message):
        open_run(tmp_path)


def test_runs_are_listed_by_name(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    for name in ("b", "a"):
        create_run(tmp_path / name, CONFIG)
    (tmp_path / "c").mkdir()
    assert [run.path.name for run in list_runs(tmp_path)] == ["a", "b"]


def test_events_go_through_the_run(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    run.log(trajectory="seed0")({"loss": 1.0}, 0)
    assert run.events() == [{"trajectory": "seed0", "step": 0, "loss": 1.0}]


def test_checkpoints_are_found_by_trajectory_and_step(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    assert run.checkpoints() == run.trajectories() == run.checkpoints("seed0") == []
    for trajectory, step in [("seed1", 10), ("seed0", 200), ("seed1", 9), ("seed0/late.1", 3)]:
        path = checkpoint_path(run.path / "checkpoints", trajectory, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (run.path / "checkpoints" / "seed1" / ".000000011.safetensors.9.tmp").touch()
    assert run.trajectories() == ["seed0", "seed0/late.1", "seed1"]
    found = [(p.parent.name, int(p.stem)) for p in run.checkpoints()]
    assert found == [("seed0", 200), ("late.1", 3), ("seed1", 9), ("seed1", 10)]
    assert [int(p.stem) for p in run.checkpoints("seed1")] == [9, 10]
    assert [int(p.stem) for p in run.checkpoints("seed0")] == [200]


def test_a_held_run_is_refused_to_another_process(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    holder = """
import sys, time
from pathlib import Path
from thalweg.run.store import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(600)
"""
    with script(holder, run.path) as process:
        process.stdout.readline()
        with pytest.raises(RunConflict, match=f"Process {process.pid} is at work"), run.lock():
            pass
    with run.lock(), Run(run.path).lock():  # killed, it holds nothing; within, no conflict
        pass
    with run.lock():
        pass
