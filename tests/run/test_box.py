from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from thalweg.dynamics import record
from thalweg.errors import InvalidArgument, LeavesRun, TaskFailed
from thalweg.run import InProcess, Task, create_run, run_tasks
from thalweg.run.box import check_name, files_below, inside
from thalweg.run.checkpoints import checkpoint_path, write_checkpoint
from thalweg.run.files import write_text

NAMES = ["../../out", "/absolute", "", ".", "..", "...", "a\0b", "x" * 300, "a/b", "a\\b", "a\nb"]
NAMES += ["\u202egnp", "é" * 150]


@pytest.fixture
def home(tmp_path):
    """Give a folder outside of the run, with what must stay as it is."""
    for name in ("diary", "events.jsonl", "a.json", "embedding.old/photo"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text("precious")
    before = contents(tmp_path / "home")
    yield tmp_path / "home"
    assert contents(tmp_path / "home") == before


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {"kind": "test"})


def contents(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def link(run, name, target):
    path = run.path / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def dataset():
    return xr.Dataset({"x": ("n", np.arange(3.0))})


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(run, name):
    if name != "a/b":  # which a run may hold already
        with pytest.raises(InvalidArgument, match="cannot name a trajectory"):
            run.checkpoints(name)
    with pytest.raises(InvalidArgument, match="cannot name a thing"):
        check_name("thing", name)
    if "/" not in name:
        with pytest.raises(InvalidArgument, match="cannot name a"):
            run.save_result(name, dataset())


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_recording_writes_nothing(tmp_path, name):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InvalidArgument, match="cannot name a trajectory"):
        record(model, optimizer, run=tmp_path / "new", trajectory=name)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=300))
def test_a_name_that_passes_is_one_file_of_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        check_name("thing", name)
    except InvalidArgument:
        return
    write_text(inside(folder, name), "x")
    assert [path.name for path in folder.iterdir()] == [name]


def use_lock(run):
    with run.lock():
        pass


USES = {
    ".lock": use_lock,
    "events.jsonl": lambda run: run.log()({"loss": 1.0}, 0),
    "results.zarr": lambda run: run.save_result("embedding", dataset()),
    ".results": lambda run: run.save_result("embedding", dataset()),
    ".results/.lock": lambda run: run.save_result("embedding", dataset()),
    "claims.json": lambda run: run.claims,
    "run.toml": lambda run: create_run(run.path, {"kind": "test"}),
    "checkpoints": lambda run: run.checkpoints(),
    "checkpoints/main": lambda run: run.checkpoints("main"),
    "checkpoints/main/0.safetensors": lambda run: run.trajectories(),
    "results.zarr/zarr.json": lambda run: run.results,
}


@pytest.mark.parametrize("name", USES)
def test_links_are_not_followed(run, home, name):
    if name == ".results":
        run.save_result("embedding", dataset())
    link(
        run, name, home if "." not in name.strip(".") or name == "results.zarr" else home / "diary"
    )
    with pytest.raises(LeavesRun, match="is a link to"):
        USES[name](run)


@pytest.mark.parametrize("name", [name for name in USES if name != "run.toml"])
def test_links_that_lead_nowhere_make_nothing(run, tmp_path, name):
    link(run, name, tmp_path / "nowhere")
    with pytest.raises(LeavesRun, match="is a link to"):
        USES[name](run)
    assert not (tmp_path / "nowhere").exists()


def answer(run, arguments, report):
    return {"x": 1, "y": np.zeros(2)}


@pytest.mark.parametrize("name", ["tasks", "tasks/{}.json", "tasks/{}.progress", "tasks/{}.npz"])
def test_tasks_write_through_no_link(run, home, name):
    task = Task(f"{__name__}:answer", {})
    link(run, name.format(task.key), home if name == "tasks" else home / "a.json")
    with pytest.raises((LeavesRun, TaskFailed), match="is a link to"):
        run_tasks(run, [task], engine=InProcess())


def test_a_link_within_a_result_is_not_read(run, home):
    run.save_result("embedding", dataset())
    link(run, "results.zarr/embedding/x/zarr.json", home / "diary")
    with pytest.raises(LeavesRun, match="is a link to"):
        run.result("embedding")


def test_what_is_set_aside_by_a_link_is_not_deleted(run, home):
    run.save_result("embedding", dataset())
    link(run, ".results/embedding.old", home / "embedding.old")
    with pytest.raises(LeavesRun, match="is a link to"):
        run.save_result("embedding", dataset())


def test_a_temporary_name_that_is_a_link_is_not_written_through(run, home):
    link(run, f".summary.json.{os.getpid()}.tmp", home / "diary")
    write_text(run.inside("summary.json"), "new")
    assert (run.path / "summary.json").read_text() == "new"


@pytest.mark.parametrize("name", ["events.jsonl", "claims.json", "checkpoints/main"])
def test_a_pipe_is_no_file(run, name):
    (run.path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(run.path / name)
    with pytest.raises(LeavesRun, match="neither a file nor a folder"):
        USES[name](run)


def test_files_of_a_run_are_found(run):
    for trajectory, step in (("b", 3), ("b", 1), ("a", 2)):
        path = checkpoint_path(run.inside("checkpoints"), trajectory, step)
        write_checkpoint(path, {"w": torch.zeros(1)}, {})
    assert run.trajectories() == ["a", "b"]
    assert [path.stem for path in run.checkpoints()] == ["000000002", "000000001", "000000003"]
    assert list(files_below(run.path / "absent")) == []


@pytest.mark.parametrize("names", [("..", "x"), ("a/../b",), ("/etc",), ("a\0",), ("",)])
def test_a_path_does_not_climb(tmp_path, names):
    with pytest.raises(LeavesRun, match="no name of a file"):
        inside(tmp_path, *names)
