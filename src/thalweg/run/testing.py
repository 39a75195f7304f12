"""The contract of an engine, as tests: whoever writes an engine runs them against it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg.run.engines import Engine
from thalweg.run.store import Run, create_run
from thalweg.run.tasks import Task, run_tasks


class EngineContract:
    """
    What the task driver asks of an engine.

    Subclass it in a pytest file and define a fixture ``engine`` that gives the engine. Its workers
    must see the file system of the tests.
    """

    def test_answers_come_back(self, engine: Engine) -> None:
        """Each future has the answer to its own argument."""
        with engine() as executor:
            futures = [executor.submit(_negate, {"value": value}) for value in range(5)]
            assert [future.result() for future in futures] == [0, -1, -2, -3, -4]

    def test_exceptions_come_back(self, engine: Engine) -> None:
        """What a function raises is raised by its future, with its type and text."""
        with engine() as executor:
            error = executor.submit(_negate, {"value": "text"}).exception()
        assert isinstance(error, TypeError)
        assert "bad operand" in str(error)

    def test_equal_calls_are_not_merged(self, engine: Engine, tmp_path: Path) -> None:
        """A second attempt is a call of its own, although it equals the first."""
        spec = {"file": str(tmp_path / "calls")}
        with engine() as executor:
            for future in [executor.submit(_append, spec), executor.submit(_append, spec)]:
                future.result()
        assert (tmp_path / "calls").read_text() == "called\ncalled\n"

    def test_gives_a_new_executor_each_time(self, engine: Engine) -> None:
        """The driver replaces an executor that has broken."""
        for value in (1, 2):
            with engine() as executor:
                assert executor.submit(_negate, {"value": value}).result() == -value

    def test_runs_tasks_in_the_order_of_their_needs(self, engine: Engine, tmp_path: Path) -> None:
        """The driver's results are there, and a second start calls nothing."""
        run = create_run(tmp_path / "run", {})
        calls = tmp_path / "calls"
        first = Task(f"{__name__}:_task", {"file": str(calls), "number": 1})
        second = Task(f"{__name__}:_task", {"file": str(calls), "number": 2}, needs=(first,))
        for _ in range(2):
            results = run_tasks(run, [second], engine=engine)
            assert [results[task.key]["number"] for task in (first, second)] == [1, 2]
            assert calls.read_text() == "called\ncalled\n"


def _negate(spec: dict[str, Any]) -> Any:
    return -spec["value"]


def _append(spec: dict[str, Any]) -> None:
    handle = os.open(spec["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, b"called\n")
    os.close(handle)


def _task(run: Run, arguments: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
    _append(arguments)
    return {"number": arguments["number"]}
