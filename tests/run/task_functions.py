"""Task functions that workers import as ``run.task_functions``: each does one thing to be seen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from thalweg.run.tasks import task_result


def mark(run, arguments, report):
    """Leave one line a call, then answer with what came in."""
    with (run.path / "calls.txt").open("a") as file:
        file.write(f"{arguments['name']}\n")
    return {"name": arguments["name"], "pid": os.getpid()}


def double(run, arguments, report):
    needed = task_result(run, arguments["of"])
    return {"value": 2 * needed["value"]}


def values(run, arguments, report):
    for done in range(3):
        report(done)
    return {"value": 21, "nan": float("nan"), "small": np.float32(0.1), "array": np.arange(6.0)}


def raises(run, arguments, report):
    mark(run, arguments, report)
    raise ValueError("the sum is wrong")


def raises_system_trouble_once(run, arguments, report):
    mark(run, arguments, report)
    if (run.path / "calls.txt").read_text().count(arguments["name"]) < 2:
        raise OSError("the disk was away for a moment")
    return {"value": 1}


def dies_before(run, arguments, report):
    """Kill this worker at every attempt before the given one."""
    mark(run, arguments, report)
    attempt = (run.path / "calls.txt").read_text().split().count(arguments["name"])
    if attempt < arguments["attempt"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"attempt": attempt}


def slow(run, arguments, report):
    for done in range(4):
        report(done)
        time.sleep(0.6)
    return {}


def lingers(run, arguments, report):
    """Take long enough for something to happen meanwhile."""
    time.sleep(0.2)
    return mark(run, arguments, report)


def waits(run, arguments, report):
    """Say which process this is, then stay for as long as it is let."""
    (run.path / f"pid.{os.getpid()}").touch()
    for second in range(600):
        report(second)
        time.sleep(0.1)
    return {}


def threads(_):
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getpid()


def pids(folder: Path) -> set[int]:
    return {int(file.suffix[1:]) for file in folder.glob("pid.*")}


def stops_once(run, arguments, report):
    """Stop this worker, as a debugger or a suspended machine does, at the first attempt."""
    first = run.path / f"stopped.{arguments['name']}"
    if not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return {"name": arguments["name"]}
