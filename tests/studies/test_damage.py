"""Damage to any stored file of a run: seen by its reader and by `verify`, and made good."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from run.killing import script
from studies.small import CONFIG, fingerprint
from thalweg.embedding import embed
from thalweg.errors import DamagedFile, InvalidArgument, RunConflict, ThalwegError
from thalweg.measurements.places import trajectory_in
from thalweg.report import write_report
from thalweg.report.about import summary
from thalweg.run import InProcess, open_run, read_checkpoint, read_events
from thalweg.run.box import files_below
from thalweg.run.files import read_json
from thalweg.run.outcomes import read_outcome
from thalweg.run.trust import name_entry
from thalweg.run.verify import verify
from thalweg.studies import reproduce, resume

# No data are read from these: the number of the process that held a lock.
NO_DATA = (".lock", ".results/.lock")
RESULTS = ("trajectories/curves", "trajectories/embedding")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run, _ = reproduce(CONFIG, tmp_path_factory.mktemp("runs") / "run", engine=InProcess())
    write_report(run)
    return run


@pytest.fixture
def run(whole, tmp_path):
    return open_run(shutil.copytree(whole.path, tmp_path / "run"))


def read_by(run, path):
    """Read a file as whoever needs it does, as something to compare."""
    name = path.relative_to(run.path).as_posix()
    kind = name.partition("/")[0]
    if kind in ("report.html", "figures", ".run.toml", "digests.jsonl"):
        # Only people and browsers read pages, and the copy only where run.toml is damaged.
        lost = [finding for finding in verify(run) if finding.lost]
        if lost:
            raise DamagedFile(str(lost))
        return None
    if kind == "checkpoints":
        tensors, about = read_checkpoint(path)
        return {name: t.numpy().tobytes() for name, t in tensors.items()}, about
    if kind == "tasks":
        return repr(read_outcome(path.parent, path.stem))
    if kind == "results.zarr":
        return [repr(open_run(run.path).result(result).to_dict()) for result in RESULTS]
    if kind == "run.toml":
        (run.path / ".run.toml").unlink(missing_ok=True)
        return open_run(run.path).about
    readers = {
        "events.jsonl": lambda: run.events(),
        "claims.json": lambda: run.claims,
        "summary.json": lambda: summary(run),
        "measured.json": lambda: read_json(path),
    }
    return readers[kind]()


def kinds(run):
    files = {}
    for path in files_below(run.path):
        name = path.relative_to(run.path).as_posix()
        if name not in NO_DATA:
            kind = name.partition("/")[0]
            files.setdefault((kind, path.suffix if kind == "tasks" else ""), []).append(path)
    return list(files.values())


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def check_flips(run, number, seed):
    """Flip a bit in a random file of each kind in turn; give how many changed nothing."""
    rng, files, harmless = random.Random(seed), kinds(run), 0
    copy = (run.path / ".run.toml").read_bytes()
    for turn in range(number):
        path = rng.choice(files[turn % len(files)])
        content, before = path.read_bytes(), read_by(run, path)
        flip(path, rng)
        try:
            assert read_by(run, path) == before, path
        except ThalwegError as error:
            assert not str(error).startswith("Traceback") and len(str(error).splitlines()) == 1
            lost = [finding.file for finding in verify(run) if finding.lost]
            name = path.relative_to(run.path).as_posix()
            task = name.replace(".npz", ".json")
            assert lost and (name.startswith(tuple(lost)) or lost == [task]), name
        else:
            harmless += 1
        path.write_bytes(content)
        (run.path / ".run.toml").write_bytes(copy)
    return harmless


def test_a_flipped_bit_is_never_read_as_data(run):
    check_flips(run, 36, seed=0)


@pytest.mark.slow
def test_three_hundred_flipped_bits(run):
    # Harmless: spaces in the JSON of metadata and headers, and the framing of a .npz archive.
    assert check_flips(run, 300, seed=1) < 60


def test_all_files_of_a_whole_run_are_covered(whole):
    findings = {finding.file: finding.state for finding in verify(whole)}
    assert {name for name, state in findings.items() if state != "whole"} <= set(NO_DATA)
    assert {f"results.zarr/{name}" for name in RESULTS} < findings.keys()


def damaged(path):
    """Change the middle of a file by several bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0\1\2" + data[len(data) // 2 + 3 :])


def emptied(path):
    path.write_bytes(b"")


# Which of the files of a name, and what happens to it. Each set is made good by one resume.
SETS = {
    "answers": {
        "tasks/*.json": (0, emptied),
        "tasks/*.npz": (-1, damaged),
        "measured.json": (0, damaged),
        "summary.json": (0, emptied),
        "claims.json": (0, damaged),
        "run.toml": (0, emptied),
        "results.zarr/zarr.json": (0, damaged),
        "results.zarr/trajectories/curves/loss/c/*": (0, Path.unlink),
        "results.zarr/trajectories/embedding/zarr.json": (0, emptied),
        "report.html": (0, damaged),
        "figures/*": (0, emptied),
    },
    "trainings": {
        ".run.toml": (0, damaged),
        "digests.jsonl": (0, damaged),
        "results.zarr/trajectories/zarr.json": (0, emptied),
        "results.zarr/trajectories/curves/error/zarr.json": (0, damaged),
        "checkpoints/seed0/*.safetensors": (-5, damaged),
    },
}


@pytest.mark.parametrize("chosen", SETS)
def test_a_damaged_run_resumes_to_the_same(whole, run, chosen, caplog):
    files = {}
    for name, (which, hurt) in SETS[chosen].items():
        path = sorted(run.path.glob(name))[which]
        files[path.relative_to(run.path).as_posix()] = None
        hurt(path)
    with pytest.raises(DamagedFile, match=r"thalweg resume|damaged"):
        run.result("trajectories/curves")
    with pytest.raises(DamagedFile):
        _ = run.results
    found = {finding.file for finding in verify(run) if finding.lost}
    for name in files:
        json = name.replace(".npz", ".json")
        assert name.startswith(tuple(found)) or json in found, name
    resumed, _ = resume(run.path, engine=InProcess())
    write_report(resumed)
    assert [finding for finding in verify(resumed) if finding.lost] == []
    assert fingerprint(resumed) == fingerprint(whole)
    assert all(name in caplog.text for name in found)


def test_a_damaged_line_of_metrics_is_lost_and_said(run, caplog):
    path = run.path / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:20] + b"x" + lines[3][21:], *lines[4:]]))
    with pytest.raises(DamagedFile, match="first in 4"):
        run.events()
    resume(run.path, engine=InProcess())
    assert "lost" in caplog.text
    assert path.read_bytes() == b"".join([*lines[:3], *lines[4:]])


def test_damage_that_nothing_makes_good_is_said(run):
    for name in ("run.toml", ".run.toml"):
        (run.path / name).write_bytes(b"x = ")
    with pytest.raises(DamagedFile, match="no TOML"):
        open_run(run.path)


def test_a_damaged_checkpoint_is_not_embedded(run):
    paths = run.checkpoints("seed0")
    content, whole = paths[3].read_bytes(), embed(paths)
    tensors, about = read_checkpoint(paths[3])
    for name in tensors:
        data = bytearray(content)
        data[content.index(tensors[name].numpy().tobytes())] ^= 1
        paths[3].write_bytes(data)
        if name in about["parameters"]:
            with pytest.raises(DamagedFile, match="000000"):
                embed(paths)
        else:  # what only a resume needs is not read here
            assert embed(paths).identical(whole)
        with pytest.raises(DamagedFile, match="000000"):
            read_checkpoint(paths[3])


def test_a_run_of_before_is_read_and_said_to_be_uncovered(run, tmp_path):
    from safetensors.torch import load_file, save_file

    path = run.checkpoints("seed0")[0]
    save_file(load_file(path), path)
    events = run.path / "events.jsonl"
    events.write_text('{"trajectory": "seed0", "step": 1}\n{"trajectory": "seed0", "st\n')
    (run.path / "claims.json").write_text('{"claims": []}')
    states = {finding.file: finding.state for finding in verify(run)}
    for name in (path.relative_to(run.path).as_posix(), "events.jsonl", "claims.json"):
        assert states[name] == "uncovered"
    assert read_events(events) == [{"trajectory": "seed0", "step": 1}]
    assert run.claims == [] and read_checkpoint(path)[1] == {}
    assert np.isfinite(run.result("trajectories/curves").loss.values).any()


ENTRY = """
import torch
import thalweg as tw

def make():
    return tw.load_problem("digits", widths=[4], train_size=40, test_size=10)
"""


def test_an_entry_without_a_seed_is_found_before_the_first_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ENTRY)
    name_entry("mine.py:make")
    config = CONFIG | {"problem": {"entry": "mine.py:make", "settings": {}}}
    with pytest.raises(InvalidArgument, match="seed"):
        reproduce(config, tmp_path / "run", engine=InProcess())
    assert not list(tmp_path.glob("run/tasks/*"))


def test_a_run_that_another_process_holds_is_left_as_it_is(run):
    (run.path / "measured.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in files_below(run.path)}
    code = (
        "import sys; from thalweg.run import open_run\n"
        "with open_run(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    with script(code, run.path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunConflict, match="is at work on"):
            resume(run.path, engine=InProcess())
    after = {path: path.stat().st_mtime_ns for path in files_below(run.path)}
    lock = run.path / ".lock"
    assert {p: t for p, t in before.items() if p != lock} == {
        p: t for p, t in after.items() if p != lock
    }


def hole(run, trajectory="seed0", which=3):
    path = run.checkpoints(trajectory)[which]
    path.unlink()
    return path, path.relative_to(run.path).as_posix()


@pytest.mark.parametrize("which", [0, 3, -1])
def test_a_checkpoint_that_is_gone_is_named_and_trained_anew(whole, run, which, caplog):
    path, name = hole(run, which=which)
    (finding,) = (finding for finding in verify(run) if finding.lost)
    assert (finding.file, finding.state) == (name, "gone") and "trains it anew" in finding.remedy
    resumed, _ = resume(run.path, engine=InProcess())
    assert path.exists() and fingerprint(resumed) == fingerprint(whole)
    assert f"{name} is gone" in caplog.text
    assert not [finding for finding in verify(resumed) if finding.lost]


def test_a_trajectory_that_is_gone_is_trained_anew(whole, run):
    shutil.rmtree(run.path / "checkpoints/seed0-early-1")
    assert {finding.file.split("/")[1] for finding in verify(run) if finding.lost} == {
        "seed0-early-1"
    }
    resumed, _ = resume(run.path, engine=InProcess())
    assert fingerprint(resumed) == fingerprint(whole)


def test_readers_of_a_trajectory_with_a_hole_say_so(run, caplog):
    embed(run, layers=["network"])
    trajectory_in(run.path, "seed0")
    assert "not there any more" not in caplog.text
    path, _ = hole(run)
    for read in (lambda: embed(run, layers=["network"]), lambda: trajectory_in(run.path, "seed0")):
        caplog.clear()
        read()
        assert f"seed0/{path.name} is not there any more; what follows is without it" in caplog.text
    caplog.clear()
    # Files that somebody chose are no trajectory with a hole.
    embed(run.checkpoints("seed0"), layers=["network"])
    trajectory_in(run.path, "seed1")
    assert "not there any more" not in caplog.text
