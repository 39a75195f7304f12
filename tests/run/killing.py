"""Start real processes and kill them: what atomic writes and the driver are tested with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

TESTS = Path(__file__).resolve().parent.parent


@contextmanager
def script(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a session of its own; kill what is left of it afterwards."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    process = subprocess.Popen(command, env=environment, start_new_session=True, text=True, **pipes)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# Importing costs more than all the rest: one process imports, and forks those that are killed.
_FORK = """
import os
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        for turn, _ in enumerate(work()):
            if turn == 0:
                print(os.getpid(), flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def kill_at_random_moments(
    code: str, times: int, *arguments: object, longest: float = 0.05
) -> Iterator[int]:
    """Kill -9 the endless generator ``work()`` of the code, past its first yield, and yield."""
    moments = random.Random(0)
    with script("import sys\n" + code + _FORK, *arguments) as process:
        for turn in range(times):
            process.stdin.write("begin\n")
            process.stdin.flush()
            child = process.stdout.readline()
            assert child, process.stderr.read()
            time.sleep(moments.uniform(0.0, longest))
            os.kill(int(child), signal.SIGKILL)
            assert process.stdout.readline() == "dead\n"
            yield turn


# Long enough on the busiest machine: what is waited for comes, or never does.
PATIENCE = 300.0  # seconds


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


def alive(pids: set[int]) -> set[int]:
    def lives(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return {pid for pid in pids if lives(pid)}
