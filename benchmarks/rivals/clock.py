"""Time one tool in its environment: ``python -m rivals.clock NAME WEIGHTS``, a job a line.

A line of JSON on stdin names a job and its arguments; the answer is a line of JSON with the CPU
seconds it took. The name "plain" measures the units P and H, and trains the network.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from conformance.adapter import Adapter, NotOffered, Task
from rivals import network
from rivals.judge import adapter


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


class Clock:
    """The jobs."""

    def __init__(self, name: str, weights: Path) -> None:
        self.name, self.weights = name, weights

    def begin(self, samples: int) -> dict[str, Any]:
        self.tool = Adapter() if self.name == "plain" else adapter(self.name)
        if self.name == "plain" and not self.weights.exists():
            made = network.task()
            network.train(made)
            torch.save(made.model.state_dict(), self.weights)
        self.task = network.task(self.weights)
        self.few = network.task(self.weights, samples)  # for spectra
        self.v = torch.randn(135_306, generator=torch.Generator().manual_seed(1))
        return {}

    def passes(self, count: int) -> dict[str, Any]:
        """Unit P, a mean over some passes."""
        seconds, _ = _seconds(lambda: [network.plain_pass(self.task) for _ in range(count)])
        return {"seconds": seconds / count}

    def product(self) -> dict[str, Any]:
        """Unit H."""
        return {"seconds": _seconds(lambda: network.plain_product(self.few, self.v))[0]}

    def surface(self, points: int) -> dict[str, Any]:
        task = self._fresh(self.task)
        try:
            seconds, found = _seconds(lambda: self.tool.random_surface(task, points=points))
        except NotOffered:  # takes all samples as one batch
            whole = task.split(network.SAMPLES)
            seconds, found = _seconds(lambda: self.tool.random_surface(whole, points=points))
        return {"seconds": seconds / found.losses.size, "cells": found.losses.size}

    def eigenvalues(self, k: int) -> dict[str, Any]:
        task = self._fresh(self.few)
        seconds, found = _seconds(lambda: self.tool.eigenvalues(task, k))
        values = sorted(found.values.tolist(), reverse=True)
        return {"seconds": seconds, "values": values, "converged": found.stated is not None}

    def reference(self, k: int) -> dict[str, Any]:
        """The largest eigenvalues to 1e-6, by Thalweg."""
        from thalweg import EmpiricalRisk, Problem, top_eigenvalues

        risk = EmpiricalRisk(Problem(self.few.model, self.few.criterion, self.few.batches))
        hessian = risk.hessian(risk.space.pack(self.few.model))
        return {"values": top_eigenvalues(hessian, k, rtol=1e-6).values.tolist()}

    def density(self, probes: int, steps: int) -> dict[str, Any]:
        """A density; the caller scales it up."""
        task = self._fresh(self.few)
        seconds, _ = _seconds(lambda: self.tool.density(task, probes=probes, steps=steps))
        return {"seconds": seconds}

    def _fresh(self, task: Task) -> Task:
        """The same network again; some tools leave the model elsewhere."""
        task.model.load_state_dict(torch.load(self.weights, weights_only=True))
        task.model.requires_grad_(True).zero_grad()
        return task


def main() -> None:
    torch.set_num_threads(1)
    clock = Clock(sys.argv[1], Path(sys.argv[2]))
    for line in sys.stdin:
        job = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = getattr(clock, job["do"])(**job["with"])
        except NotOffered:
            answer = {}
        except Exception as error:  # the table says why
            answer = {"wrong": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
