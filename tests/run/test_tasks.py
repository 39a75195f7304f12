"""The task driver: each task once, in order, whatever happens to workers and drivers."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from concurrent.futures import Executor
from functools import partial

import numpy as np
import pytest

from run.killing import PATIENCE, script, wait_for
from thalweg.errors import InvalidArgument, RunConflict, TaskFailed
from thalweg.run import InProcess, LocalProcesses, Task, create_run, run_tasks, task_result

HERE = "run.task_functions"


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {})


def task(function, *needs, label="", units=1, **arguments):
    return Task(f"{HERE}:{function}", arguments, needs, label, units)


def calls(run):
    file = run.path / "calls.txt"
    return Counter(file.read_text().split()) if file.exists() else Counter()


class Recorder:
    """A progress that writes down what it is told."""

    def __call__(self, total, label):
        self.total, self.label, self.updates = total, label, []
        return self

    def update(self, n=1):
        self.updates.append(n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_a_key_is_what_the_task_does():
    one = task("mark", a=1, b=[2], label="one", units=5)
    assert one.key == Task(f"{HERE}:mark", {"b": (2,), "a": 1}).key
    assert one == Task(f"{HERE}:mark", {"b": (2,), "a": 1})
    others = [task("mark", a=1), task("values", a=1, b=[2]), task("mark", one, a=1, b=[2])]
    assert len({one.key, *(other.key for other in others)}) == 4
    # sha256 of the canonical JSON, by sha256sum: the same tomorrow and elsewhere.
    assert Task("m:f", {}).key == "e9b1dbd77649e48ddbf35a477bcce963"


def test_arguments_that_are_no_json_are_refused():
    with pytest.raises(InvalidArgument, match="train seed0"):
        task("mark", label="train seed0", weights=np.zeros(2))


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)])
def test_results_come_back_as_they_were_returned(run, engine):
    work = task("values")
    assert task_result(run, work) is None
    result = run_tasks(run, [work], engine=engine)[work.key]
    again = task_result(run, work.key)
    for values in (result, again):
        assert list(values) == ["value", "nan", "small", "array"]
        assert values["value"] == 21
        assert math.isnan(values["nan"])
        assert values["small"] == float(np.float32(0.1))
        assert np.array_equal(values["array"], np.arange(6.0))


@pytest.mark.parametrize(
    ("value", "message"), [({1}, "set; expected a JSON value"), (np.array([{}]), "objects")]
)
def test_results_that_cannot_be_kept_are_refused(run, monkeypatch, value, message):
    from run import task_functions

    monkeypatch.setattr(task_functions, "values", lambda *_: {"answer": value})
    with pytest.raises(TaskFailed, match=f"'answer' as .*{message}"):
        run_tasks(run, [task("values")], engine=InProcess())


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)])
def test_needs_are_done_first(run, engine):
    first = task("values")
    second = task("double", first, of=first.key)
    third = task("double", second, first, of=second.key)
    results = run_tasks(run, [third, second], engine=engine)
    assert [results[t.key]["value"] for t in (first, second, third)] == [21, 42, 84]


def test_a_diamond_is_walked_in_order(run):
    top = task("mark", name="top")
    sides = [task("mark", top, name=name) for name in ("left", "right")]
    run_tasks(run, [task("mark", *sides, name="bottom")], engine=InProcess())
    order = (run.path / "calls.txt").read_text().split()
    assert order[0] == "top" and order[-1] == "bottom" and len(order) == 4


def test_done_tasks_are_not_run_again_and_equal_tasks_once(run):
    work = [task("mark", name=f"task{i}") for i in range(3)]
    run_tasks(run, [*work[:2], task("mark", name="task0", label="again")], engine=InProcess())
    run_tasks(run, work, engine=InProcess())
    assert calls(run) == {"task0": 1, "task1": 1, "task2": 1}


def test_an_engine_that_asks_again_is_given_the_result_that_is_there(run):
    class AsksTwice(Executor):
        """As Dask does where an answer was lost with the worker that had it."""

        def submit(self, fn, /, *args):
            fn(*args)
            return InProcess()().submit(fn, *args)

    run_tasks(run, [task("mark", name="once")], engine=AsksTwice)
    assert calls(run) == {"once": 1}


def test_no_attempt_and_no_worker_are_refused(run):
    with pytest.raises(InvalidArgument, match="attempts is 0"):
        run_tasks(run, [], attempts=0)
    with pytest.raises(InvalidArgument, match="workers is 0"):
        LocalProcesses(0)


def test_progress_counts_units_and_what_was_done_before(run):
    old, new = task("mark", name="old", units=5), task("values", units=3)
    run_tasks(run, [old], engine=InProcess())
    progress = Recorder()
    run_tasks(run, [old, new], engine=InProcess(), progress=progress, label="training")
    assert (progress.total, progress.label) == (8, "training")
    assert progress.updates[0] == 5
    assert sum(progress.updates) == 8


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(1)])
def test_progress_moves_within_a_task(run, engine):
    progress = Recorder()
    run_tasks(run, [task("slow", units=4)], engine=engine, progress=progress)
    assert len(progress.updates) > 1
    assert sum(progress.updates) == 4
    assert not list(run.tasks.glob("*.progress"))


def test_a_dead_worker_costs_an_attempt(run):
    work = [task("dies_before", name="fragile", attempt=3)]
    work += [task("mark", name=f"other{i}") for i in range(4)]
    results = run_tasks(run, work, engine=LocalProcesses(2))
    assert results[work[0].key] == {"attempt": 3}
    assert calls(run)["fragile"] == 3
    assert all((run.tasks / f"{t.key}.json").exists() for t in work)


def test_a_task_that_always_kills_its_worker_fails_alone(run):
    work = [task("dies_before", name="poison", attempt=99, label="poison")]
    work += [task("lingers", name=f"other{i}") for i in range(2)]
    with pytest.raises(TaskFailed, match=r"'poison'.*its worker died.*\(2 attempts\)"):
        run_tasks(run, work, engine=LocalProcesses(2), attempts=2)
    assert calls(run)["poison"] == 2
    assert all(task_result(run, t) for t in work[1:])


def test_trouble_of_the_system_is_tried_again(run):
    work = task("raises_system_trouble_once", name="once")
    assert run_tasks(run, [work], engine=InProcess())[work.key] == {"value": 1}
    with pytest.raises(TaskFailed, match=r"OSError.*1 attempts"):
        run_tasks(
            run, [task("raises_system_trouble_once", name="x")], engine=InProcess(), attempts=1
        )


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)])
def test_an_error_of_the_task_stops_only_what_needs_it(run, engine):
    bad = task("raises", name="bad", label="bad one")
    needing = task("mark", bad, name="needing", label="needing")
    good = [task("mark", name=f"good{i}") for i in range(3)]
    with pytest.raises(TaskFailed) as caught:
        run_tasks(run, [needing, *good], engine=engine)
    message = str(caught.value)
    assert "'bad one'" in message and "ValueError: the sum is wrong" in message
    assert "1 (needing)" in message
    assert "in raises" in "".join(caught.value.__notes__)
    assert calls(run) == {"bad": 1, "good0": 1, "good1": 1, "good2": 1}


@pytest.mark.parametrize("entry", ["no_such_module:f", f"{HERE}:no_such_function", "nonsense", ":"])
def test_a_function_that_cannot_be_imported_is_named(run, entry):
    with pytest.raises(TaskFailed, match=r"EntryNotFound.*cannot be imported"):
        run_tasks(run, [Task(entry, {})], engine=InProcess())


def test_a_script_without_a_main_guard_is_told_so(run):
    bare = f"""
import os, sys
os.environ.pop("PYTHONSTARTUP", None)
path = os.path.join({str(run.path.parent)!r}, "bare.py")
open(path, "w").write('''
from thalweg.run import Task, open_run, run_tasks
run_tasks(open_run({str(run.path)!r}), [Task("m:f", {{}})])
''')
os.execv(sys.executable, [sys.executable, path])
"""
    with script(bare) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert "TaskFailed" in errors
    assert "if __name__ == '__main__':" in errors


def test_another_driver_on_the_same_run_is_refused(run):
    with run.lock(), LocalProcesses(1)() as executor, pytest.raises(RunConflict):
        executor.submit(run_tasks, run, []).result()


DRIVER = """
import sys
from thalweg.run import LocalProcesses, Task, open_run, run_tasks
tasks = [Task("run.task_functions:lingers", {"name": f"task{n}"}) for n in range(40)]
run_tasks(open_run(sys.argv[1]), tasks, engine=LocalProcesses(2))
"""


@pytest.mark.slow
def test_a_driver_killed_again_and_again_gets_there_without_repeating(run):
    work = [task("lingers", name=f"task{n}") for n in range(40)]
    moments = random.Random(0)
    kept = set()

    def done_beyond(kept):
        done = {t.key for t in work if task_result(run, t)}
        assert kept <= done
        return done - kept

    for _ in range(5):
        with script(DRIVER, run.path):
            wait_for(partial(done_beyond, kept))
            time.sleep(moments.uniform(0.0, 0.5))
        kept |= done_beyond(kept)
    assert len(kept) < len(work), "all was done before the last kill"
    before = calls(run)
    results = run_tasks(run, work, engine=LocalProcesses(2))
    repeated = calls(run) - before
    assert not any(repeated[t.arguments["name"]] for t in work if t.key in kept)
    assert [results[t.key]["name"] for t in work] == [f"task{n}" for n in range(40)]
