"""Engines: the three of them hold the contract, and local workers end when they should."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from run.killing import PATIENCE, alive, script, wait_for
from run.task_functions import pids
from thalweg.errors import TaskFailed
from thalweg.run import (
    DaskEngine,
    InProcess,
    LocalProcesses,
    Task,
    create_run,
    run_tasks,
    task_result,
)
from thalweg.run.testing import EngineContract

DRIVER = """
import sys
from thalweg.run import LocalProcesses, Task, open_run, run_tasks
if __name__ == "__main__":
    tasks = [Task("run.task_functions:waits", {"number": n}) for n in range(2)]
    run_tasks(open_run(sys.argv[1]), tasks, engine=LocalProcesses(2))
"""


class TestInProcess(EngineContract):
    @pytest.fixture
    def engine(self):
        return InProcess()


class TestLocalProcesses(EngineContract):
    @pytest.fixture
    def engine(self):
        return LocalProcesses(2)


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(processes=True, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


class TestDask(EngineContract):
    @pytest.fixture
    def engine(self, dask_client):
        return DaskEngine(dask_client)


PROGRAM = """
import os
from thalweg.run import LocalProcesses
from run.task_functions import threads
if __name__ == "__main__":
    with LocalProcesses(1)() as executor:
        print(*executor.submit(threads, {}).result(), os.getpid())
"""


@pytest.mark.parametrize("before", ["", "import torch"])
def test_a_local_worker_has_one_thread_and_is_another_process(tmp_path, monkeypatch, before):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    program = tmp_path / "program.py"  # a worker loads it, and what it imports, before all else
    program.write_text(before + PROGRAM)
    with script(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')") as process:
        answer, errors = process.communicate(timeout=PATIENCE)
    count, variable, worker, parent = answer.split()
    assert (count, variable) == ("1", "1"), errors
    assert worker != parent


def test_local_workers_are_as_many_as_usable_processors():
    assert LocalProcesses().workers == len(os.sched_getaffinity(0))


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {})


@pytest.mark.parametrize("to", ["the driver", "all, as a terminal does"])
def test_an_interrupt_ends_driver_and_workers(run, to):
    with script(DRIVER, run.path) as process:
        wait_for(lambda: len(pids(run.path)) == 2)
        workers = pids(run.path)
        assert alive(workers) == workers
        send = os.kill if to == "the driver" else os.killpg
        send(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert alive(workers) == set()
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_workers_do_not_outlive_a_killed_driver(run):
    with script(DRIVER, run.path) as process:
        wait_for(lambda: len(pids(run.path)) == 2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=PATIENCE)  # it holds the lock until the kernel has taken it down
        wait_for(lambda: not alive(pids(run.path)))
        with run.lock():  # a resume may begin
            pass


def test_a_worker_that_stands_still_is_found_and_its_task_done_again(run, monkeypatch):
    monkeypatch.setattr("thalweg.run.tasks.STANDSTILL", 5.0)
    work = [Task("run.task_functions:stops_once", {"name": f"task{n}"}) for n in range(2)]
    results = run_tasks(run, work, engine=LocalProcesses(2))
    assert [results[task.key]["name"] for task in work] == ["task0", "task1"]


def test_a_task_that_takes_too_long_fails_and_others_keep_their_attempts(run):
    slow = Task("run.task_functions:waits", {"number": 0}, label="slow")
    quick = [Task("run.task_functions:lingers", {"name": f"task{n}"}) for n in range(2)]
    with pytest.raises(TaskFailed, match=r"'slow'.*longer than the 4 seconds.*\(2 attempts\)"):
        run_tasks(run, [slow, *quick], engine=LocalProcesses(2), attempts=2, task_timeout=4.0)
    assert all(task_result(run, task) for task in quick)


@pytest.mark.slow
def test_a_dask_scheduler_that_dies_ends_the_wait(run):
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    program = f"""
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(processes=True, **{options!r}) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
    with script(program) as process:
        address = process.stdout.readline().strip()
        with distributed.Client(address, timeout=PATIENCE) as client:
            killer = threading.Timer(3.0, lambda: os.killpg(process.pid, signal.SIGKILL))
            killer.start()
            with pytest.raises(TaskFailed, match=r"Dask scheduler at tcp://.*Start it"):
                run_tasks(
                    run,
                    [Task("run.task_functions:waits", {"number": 0})],
                    engine=DaskEngine(client),
                )
