"""Kill a run again and again and resume it: is it the same to the last bit, and is nothing redone?

    python benchmarks/kills.py FOLDER [--whom driver|workers|dask] [--kills 30]
        [--study trajectories --study interpolation] [--longest 10] [--seed 0]

FOLDER/whole is a run that nobody kills; it is made where it is missing. FOLDER/WHOM-SEED begins
from the same configuration and measured batch, and is killed (-9) at random moments within
``longest`` seconds after work has begun: the driver, whose workers die with it, or one worker, or
one of two Dask workers on loopback. A driver that ends is started again by ``resume``. At the end
it is compared with the whole run: weights, claims, results, and what tasks gave. What has once been
recorded, a task's result or a checkpoint, must be the same file until the end: whatever is done
twice is written anew. Exits with 1 if something differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from thalweg.run import Run, open_run, read_checkpoint
from thalweg.run.outcomes import read_outcome
from thalweg.run.verify import verify

MARKS = ("run.toml", ".run.toml", "measured.json")
# A driver on two Dask workers: its client is that of a scheduler whose address is its argument.
ON_DASK = """
import sys
from distributed import Client
from thalweg.run import DaskEngine
from thalweg.studies import resume
if __name__ == "__main__":
    with Client(sys.argv[2], timeout=120) as client:
        resume(sys.argv[1], engine=DaskEngine(client))
"""
Identity = tuple[int, int]


def thalweg(*words: str) -> list[str]:
    return [sys.executable, "-m", "thalweg", *words]


def quietly(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Records:
    """What a run has recorded: files that must stay as they are from when they are first seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: dict[Path, Identity] = {}

    def look(self) -> None:
        """See what is there."""
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                self.first.setdefault(path, _identity(path))

    def redone(self) -> list[str]:
        """Name what was written again since it was first seen, or is gone."""
        return [
            str(path.relative_to(self.folder))
            for path, first in self.first.items()
            if not path.exists() or _identity(path) != first
        ]

    def _files(self) -> Iterator[Path]:
        # The arrays of a task count from when its .json says that it is done.
        yield from self.folder.glob("tasks/*.json")
        yield from self.folder.glob("checkpoints/*/*.safetensors")

    def at_work(self, since: float) -> bool:
        """Say whether a task is under way; marks of before are those of killed workers."""
        for mark in self.folder.glob("tasks/*.progress"):
            with contextlib.suppress(FileNotFoundError):
                if mark.stat().st_mtime > since:
                    return True
        return False


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


class Driver:
    """The program that drives the run, started again whenever it has ended."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.starts, self.started = 0, 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> subprocess.Popen[bytes]:
        """Start it if it is not there."""
        if self.process is None or self.process.poll() is not None:
            self.process = quietly(self.words)
            self.starts += 1
            self.started = time.time()
        return self.process

    @property
    def finished(self) -> bool:
        """Whether it has come to its end by itself."""
        return self.process is not None and self.process.poll() == 0

    def finish(self) -> None:
        """Let it come to its end."""
        while not self.finished:
            self.keep_alive()
            assert self.process is not None
            self.process.wait()


class Cluster:
    """A Dask scheduler and two workers on loopback; workers that die are replaced."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "scheduler.json", folder
        self.file.unlink(missing_ok=True)
        address = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = quietly(self._words("dask_scheduler", *address))
        while not self.file.exists():
            time.sleep(0.1)
        self.workers = [self._worker() for _ in range(2)]

    def _words(self, module: str, *options: str) -> list[str]:
        name = f"distributed.cli.{module}"
        return [sys.executable, "-m", name, "--scheduler-file", str(self.file), *options]

    def _worker(self) -> subprocess.Popen[bytes]:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        here = ["--local-directory", str(self.folder / "dask")]
        return quietly(self._words("dask_worker", *options, *here))

    @property
    def address(self) -> str:
        address: str = json.loads(self.file.read_text())["address"]
        return address

    def kill_one(self, moments: random.Random) -> None:
        number = moments.randrange(2)
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._worker()

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def workers_of(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Find the processes that a driver runs tasks in."""
    found = []
    for child in psutil.Process(driver.pid).children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def killed(
    driver: Driver,
    records: Records,
    kill: Callable[[subprocess.Popen[bytes]], bool],
    options: argparse.Namespace,
) -> int:
    """Kill at random moments until enough were killed or all is done; give how many."""
    moments, kills = random.Random(options.seed), 0
    while kills < options.kills and not driver.finished:
        process = driver.keep_alive()
        while not records.at_work(driver.started) and process.poll() is None:
            records.look()
            time.sleep(0.05)
        end = time.monotonic() + moments.uniform(0.0, options.longest)
        while time.monotonic() < end and not driver.finished:
            records.look()
            time.sleep(0.05)
        if not driver.finished:
            kills += kill(process)
            print(f"{kills} kills", file=sys.stderr, flush=True)
        records.look()
    return kills


def kill_driver(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def kill_worker(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(psutil.Error):
        workers = workers_of(process)
        if workers:
            random.choice(workers).send_signal(signal.SIGKILL)
            return True
    return False


def differences(run: Run, whole: Run) -> list[str]:
    """Name what a run has otherwise than another, to the last bit."""
    found = []
    tasks = {path.stem for path in whole.tasks.glob("*.json")}
    if tasks != {path.stem for path in run.tasks.glob("*.json")}:
        found.append("the tasks")
    for key in sorted(tasks):
        one, other = (read_outcome(each.tasks, key) for each in (run, whole))
        if _bits(one) != _bits(other):
            found.append(f"tasks/{key}")
    names = [[path.relative_to(each.path) for path in each.checkpoints()] for each in (run, whole)]
    if names[0] != names[1]:
        found.append("the checkpoints")
    for name in names[1]:
        one, other = (read_checkpoint(each.path / name) for each in (run, whole))
        if one[1] != other[1] or _bits(one[0]) != _bits(other[0]):
            found.append(str(name))
    for name in whole.store.names():
        one, other = (each.result(name) for each in (run, whole))
        if not one.identical(other) or _bits(one.variables) != _bits(other.variables):
            found.append(f"results.zarr/{name}")
    if run.claims != whole.claims:
        found.append("claims.json")
    return found


def _bits(values: object) -> dict[str, object]:
    return {
        str(name): np.asarray(value).tobytes() if hasattr(value, "shape") else repr(value)
        for name, value in dict(values).items()  # type: ignore[call-overload]
    }


def begun_like(whole: Path, folder: Path) -> None:
    """Make a run of the same configuration, in which nothing is done."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in MARKS:
        shutil.copy(whole / name, folder)


def main() -> int:
    """Kill, resume, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--whom", choices=["driver", "workers", "dask"], default="driver")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--study", action="append")
    parser.add_argument("--longest", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    whole, place = options.folder / "whole", options.folder / f"{options.whom}-{options.seed}"
    if not (whole / "summary.json").exists():
        studies = [word for name in options.study or [] for word in ("--study", name)]
        subprocess.run(thalweg("reproduce", "--out", str(whole), *studies), check=True)
    begun_like(whole, place)
    random.seed(options.seed)
    cluster = Cluster(options.folder) if options.whom == "dask" else None
    words = thalweg(
        "resume", str(place), *(["--workers", "1"] if options.whom == "workers" else [])
    )
    kill = {"driver": kill_driver, "workers": kill_worker}.get(options.whom)
    if cluster is not None:
        moments = random.Random(options.seed)
        words = [sys.executable, "-c", ON_DASK, str(place), cluster.address]

        def kill(process: subprocess.Popen[bytes]) -> bool:
            cluster.kill_one(moments)
            return True

    driver, records = Driver(words), Records(place)
    try:
        kills = killed(driver, records, kill, options)
        driver.finish()
    finally:
        if cluster is not None:
            cluster.close()
    run = open_run(place)
    other, redone = differences(run, open_run(whole)), records.redone()
    lost = [finding.file for finding in verify(run) if finding.lost]
    print(
        f"{kills} kills of {options.whom}, {driver.starts} starts, {len(records.first)} files"
        f" recorded: {len(redone)} written again {redone[:5]}, {len(other)} differ {other[:5]},"
        f" {len(lost)} damaged {lost[:5]}"
    )
    if not records.first:
        print("nothing was recorded before the last kill: allow more with --longest")
    return int(bool(redone or other or lost or kills < options.kills or not records.first))


if __name__ == "__main__":
    sys.exit(main())
