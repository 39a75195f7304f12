"""Malformed files and command lines: one line that names the cause, and nothing outside the run.

Each is read with little memory left, twice the limit that is stated then, and nothing in it is run:
some hold programs, which make a folder wherever somebody does.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from thalweg.certificates.store import verify as verify_certificate
from thalweg.cli.main import main
from thalweg.embedding.checkpoint_source import CheckpointSource
from thalweg.errors import TaskFailed, ThalwegError
from thalweg.problems.weight_files import read_weights
from thalweg.run import create_run, open_run, read_checkpoint, read_events
from thalweg.run.bounds import memory_limit
from thalweg.run.checkpoints import describe_checkpoint, trained_shapes, write_checkpoint
from thalweg.run.files import read_json, write_json
from thalweg.run.outcomes import read_outcome
from thalweg.run.verify import verify

QUICK, WHOLE = 60, 500
FEW = settings(max_examples=QUICK, deadline=None, suppress_health_check=list(HealthCheck))
# The limit of memory that is stated meanwhile; half of it would not hold the threads' own room.
LIMIT = 1 << 30
MARK = "thalweg-was-made-to-run-this"
MANY = settings(max_examples=WHOLE, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def watched(folder):
    """Leave twice the stated limit of memory; nothing read meanwhile may make the folder."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * LIMIT, hard))
    try:
        assert memory_limit() <= LIMIT
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not (folder / MARK).exists(), "something in a file was run"


class Program:
    """What makes the folder as it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder / MARK)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def programs(folder):
    """Give files of several kinds that hold one."""
    program, torchs, numpys = Program(folder), io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.ones(2), "more": program}, torchs)
    np.savez(numpys, w=np.array([program], dtype=object), allow_pickle=True)
    return [pickle.dumps(program), torchs.getvalue(), numpys.getvalue()]


def test_programs_run_where_somebody_lets_them(tmp_path):
    loads = [
        pickle.load,
        lambda file: torch.load(file, weights_only=False),
        lambda file: np.load(file, allow_pickle=True)["w"],
    ]
    for load, program in zip(loads, programs(tmp_path), strict=True):
        load(io.BytesIO(program))
        (tmp_path / MARK).rmdir()


def test_too_much_memory_is_noticed(tmp_path):
    with pytest.raises(MemoryError), watched(tmp_path):
        np.zeros(3 * LIMIT, dtype=np.uint8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Make a folder with one file of each kind that is read, and a run that holds most of them."""
    folder = tmp_path_factory.mktemp("samples")
    tensors = {"w": torch.ones(3, 2), "b": torch.zeros(2)}
    torch.save({"model": tensors, "epoch": 3}, folder / "a.pt")
    np.savez(folder / "a.npz", **{name: t.numpy() for name, t in tensors.items()})
    write_json(folder / "a.json", {"numbers": [1, 2.5, None], "nested": {"a": {}}})
    (folder / "old.json").write_text('{"claims": [{"name": "a"}]}')
    run = create_run(folder / "run", {"kind": "recording", "problem": {"entry": "digits"}})
    about = {"parameters": ["w", "b"], "step": 1, "trajectory": "main"}
    write_checkpoint(run.path / "checkpoints/main/000000001.safetensors", tensors, about)
    run.save_result("curves", xr.Dataset({"loss": ("step", np.arange(3.0))}))
    run.log(trajectory="main")({"loss": 0.5}, 1)
    write_json(run.path / "claims.json", {"claims": []})
    write_json(run.path / "summary.json", {"trajectories": {}})
    write_json(
        run.path / "tasks/0.json", {"scalars": {"a": 1}, "arrays": [], "order": ["a"], "sums": []}
    )
    return folder


READERS = {
    "a.pt": read_weights,
    "a.npz": read_weights,
    "a.json": read_json,
    "old.json": lambda path: (read_json(path), verify_certificate(path)),
    "run/run.toml": lambda path: (open_run(path.parent), verify(open_run(path.parent))),
    "run/events.jsonl": read_events,
    "run/claims.json": lambda path: open_run(path.parent).claims,
    "run/tasks/0.json": lambda path: read_outcome(path.parent, "0"),
    "run/checkpoints/main/000000001.safetensors": lambda path: (
        read_checkpoint(path),
        describe_checkpoint(path),
        trained_shapes(path),
        read_weights(path),
        CheckpointSource([path]),
    ),
    "run/results.zarr/curves/zarr.json": lambda path: open_run(path.parents[2]).result("curves"),
    "run/results.zarr/curves/loss/zarr.json": lambda path: open_run(path.parents[3]).result(
        "curves"
    ),
    "run/results.zarr/curves/loss/c/0": lambda path: open_run(path.parents[4]).result("curves"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def contents(draw, whole, folder):
    """Give bytes that are no file of the kind, or nearly one."""
    ways = ["random", "json", "cut", "changed", "repeated", "swapped", "program"]
    way = draw(st.sampled_from(ways))
    if way == "program":
        return draw(st.sampled_from(programs(folder)))
    if way == "random":
        return draw(st.binary(max_size=200))
    if way == "json":
        return json.dumps(draw(JSON)).encode()
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    if way == "cut":
        return whole[:start] + whole[stop:]
    if way == "changed":
        return whole[:start] + draw(st.binary(min_size=1, max_size=8)) + whole[start + 1 :]
    if way == "repeated":
        return whole[:stop] + whole[start:]
    return whole[start:] + whole[:start]


def read_malformed(samples, data, folder):
    """Read one malformed file; anything but an answer or one line of ours is a failure."""
    name = data.draw(st.sampled_from(sorted(READERS)))
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(samples, work)
    path = work / name
    path.write_bytes(data.draw(contents(path.read_bytes(), folder)))
    if name == "run/run.toml":
        (path.parent / ".run.toml").unlink()
    try:
        with warnings.catch_warnings(), watched(folder):
            warnings.simplefilter("ignore")
            READERS[name](path)
    except ThalwegError as error:
        assert str(error).strip() and len(str(error)) < 2000
    except OSError as error:
        assert error.strerror


@seed(0)
@FEW
@given(data=st.data())
def test_malformed_files(samples, tmp_path_factory, data):
    read_malformed(samples, data, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@seed(1)
@MANY
@given(data=st.data())
def test_five_hundred_malformed_files(samples, tmp_path_factory, data):
    read_malformed(samples, data, tmp_path_factory.getbasetemp())


COMMANDS = [
    *(["reproduce"], ["resume"], ["report"], ["verify"], ["claims"], ["runs"], ["barrier"]),
    *(["surface"], ["spectrum"], ["margin"], ["degeneracy"], ["certify"], ["certify", "verify"]),
    *(["algebra", "count"], ["algebra", "solve"], []),
]
OPTIONS = [
    *("--set", "--checkpoint", "--run", "--trajectory", "--points", "--dims", "--steps", "-k"),
    *("--density", "--probes", "--out", "--picture", "--widths", "--activation", "--samples"),
    *("--seed", "--workers", "--task-timeout", "--preset", "--study", "--data", "--train-size"),
    *("--batchnorm", "--extent", "--json", "--entry", "--partial", "--allow", "--nothing"),
]
WORDS = [
    *(
        "digits",
        "nowhere",
        "",
        ".",
        "..",
        "/",
        "-1",
        "0",
        "999999999999",
        "nan",
        "1e400",
        "x" * 300,
    ),
    *("é\u202e", "{", "[1,", "width=", "=3", "widths=[2]", "width=1000000000000", "file.txt"),
    *("folder", "run", "run/claims.json", "file.txt:make", "os:system", "no.py:make", "a:b:c"),
    *("strange", "strange/run.toml", "strange/claims.json"),
    *("demo", "trajectories", "main", "../../out", "1000000,1000000,1", "0,0,1", "poly99999"),
]
LINES = st.tuples(
    st.sampled_from(COMMANDS), st.lists(st.sampled_from(OPTIONS + WORDS), max_size=6)
).map(lambda parts: [*parts[0], *parts[1]])


def no_work(*_, **__):
    raise TaskFailed("the work was about to begin")


@pytest.fixture
def place(samples, tmp_path, monkeypatch):
    """Stand in a folder with a run, and let no command come to its work."""
    shutil.copytree(samples / "run", tmp_path / "here/run")
    (tmp_path / "here/folder").mkdir()
    (tmp_path / "here/file.txt").write_text("x")
    stranger = create_run(tmp_path / "here/strange", {"problem": {"entry": "strange.py:make"}})
    write_json(stranger.path / "claims.json", {"claims": []})
    (tmp_path / "here/strange.py").write_text(f"import os\nos.mkdir({MARK!r})\n")
    monkeypatch.chdir(tmp_path / "here")
    # By import_module: the package has a function of the module's name.
    monkeypatch.setattr(import_module("thalweg.studies.reproduce"), "_complete", no_work)
    monkeypatch.setattr("thalweg.measurements.record.run_tasks", no_work)
    monkeypatch.setattr("thalweg.measurements.surface_picture.surface", no_work)
    for name in ("train", "certify_zero"):
        monkeypatch.setattr(f"thalweg.{name}", no_work, raising=False)
    return tmp_path


def call_malformed(words, place, capsys):
    before = sorted(path.name for path in place.iterdir())
    patched = pytest.MonkeyPatch.context()
    with patched as patch, warnings.catch_warnings(), watched(place / "here"):
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", ["thalweg", *words])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code
    said = capsys.readouterr()
    assert code in (0, 1, 2, None), words
    assert "Traceback" not in said.err + said.out
    if code:
        assert said.err.strip() or said.out.strip(), words
    if code == 1:
        (line,) = [part for part in said.err.splitlines() if part.startswith("Error: ")]
        assert len(line) > 10 and "there is not enough memory" not in line
    assert sorted(path.name for path in place.iterdir()) == before
    for made in ("runs", "out"):
        shutil.rmtree(Path(made), ignore_errors=True)


@seed(2)
@FEW
@given(words=LINES)
def test_malformed_command_lines(place, capsys, words):
    call_malformed(words, place, capsys)


@pytest.mark.slow
@seed(3)
@MANY
@given(words=LINES)
def test_five_hundred_malformed_command_lines(place, capsys, words):
    call_malformed(words, place, capsys)
