"""Cost of surfaces and spectra beside the published tools, as ratios of CPU time.

One network (four 3x3 convolutions of stride 2 and a linear layer, 135,306 weights, trained for 12
epochs), 2,000 images of 3x32x32, cross-entropy, float32, one thread. Unit P is one plain forward
pass over the data in batches of 250, unit H one Hessian-vector product by double backward over the
same. Each tool runs by default settings in its own environment and process, the units in another;
units are measured before and after each of a tool's jobs, so that a busy machine slows both alike.

Costs that are constant a cell or a step are measured on few: a rival's surface has 5x5 cells, its
density one probe of `--steps` steps, scaled up to 10 probes of 50 (ours has two whole probes, for
it traces once for all; benchmarks/spectrum.py measures it in full). Spectra may be measured on
fewer images (`--samples`): unit and cost shrink alike. A job of more than `--limit` H is given up.

    python benchmarks/side_by_side.py [NAME ...] [--rounds 3] [--samples 2000] [--steps 50]
        [--limit 1000] [--page]
"""

from __future__ import annotations

import argparse
import json
import math
import select
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from rivals import RIVALS, environments

PAGE = environments.ROOT / "docs" / "conformance.md"
BEGIN = "<!-- speed: made by benchmarks/side_by_side.py -->"
END = "<!-- end of speed -->"
WEIGHTS = environments.FOLDER / "weights.pt"
OURS, THEIRS = 21, 5  # points an axis
PROBES, STEPS = 10, 50


class Worker:
    """A process of one tool; asks it a job at a time."""

    def __init__(self, name: str, environment: str, samples: int) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = environments.run(environment, "rivals.clock", name, str(WEIGHTS), **pipes)
        self.ask("begin", samples=samples)

    def ask(self, job: str, limit: float = math.inf, **arguments: Any) -> dict[str, Any]:
        """Wait for the answer, at most `limit` CPU seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin and stdout
        print(json.dumps({"do": job, "with": arguments}), file=stdin, flush=True)
        watched = psutil.Process(self.process.pid)
        start = watched.cpu_times().user
        while not select.select([stdout], [], [], 1.0)[0]:
            if watched.cpu_times().user - start > limit:
                self.process.kill()
                return {"wrong": "over"}
        line = stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"wrong": "the process died"}
        return answer


@contextmanager
def worker(name: str, environment: str, samples: int) -> Iterator[Worker]:
    """Start a worker, end it after."""
    made = Worker(name, environment, samples)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


class Comparison:
    """Ratios of a tool's costs to the units, which another process measures."""

    def __init__(self, plain: Worker, options: argparse.Namespace) -> None:
        self.plain, self.options = plain, options
        with worker("thalweg", "thalweg", options.samples) as reference:
            self.true: list[float] = reference.ask("reference", k=5)["values"]

    def row(self, name: str) -> list[str]:
        """Surface, eigenvalues and density of one tool, in words."""
        jobs = [self._surface, self._eigenvalues, self._density]
        row = []
        for job in jobs:
            with worker(name, name, self.options.samples) as tool:
                row.append(job(tool, name))
        return row

    def _unit(self, job: str, **arguments: Any) -> float:
        return float(self.plain.ask(job, **arguments)["seconds"])

    def _ratio(
        self, tool: Worker, unit: tuple[str, dict[str, Any]], job: str, **given: Any
    ) -> tuple[float, dict[str, Any]]:
        """Cost in units, or not a number and why."""
        units = [self._unit(unit[0], **unit[1]) for _ in range(3)]
        limit = self.options.limit * statistics.median(units)
        answer = tool.ask(job, limit=limit if unit[0] == "product" else math.inf, **given)
        if "seconds" not in answer:
            return math.nan, answer
        units += [self._unit(unit[0], **unit[1]) for _ in range(3)]
        return answer["seconds"] / statistics.median(units), answer

    def _surface(self, tool: Worker, name: str) -> str:
        points = OURS if name == "thalweg" else THEIRS
        passes = ("passes", {"count": 3})
        ratios = []
        for _ in range(self.options.rounds):
            ratio, answer = self._ratio(tool, passes, "surface", points=points)
            if math.isnan(ratio):
                return self._why(answer)
            ratios.append(ratio)
        return f"{_spread(ratios)} P"

    def _eigenvalues(self, tool: Worker, name: str) -> str:
        ratio, answer = self._ratio(tool, ("product", {}), "eigenvalues", k=5)
        if math.isnan(ratio):
            return self._why(answer)
        pairs = zip(answer["values"], self.true, strict=True)
        worst = max(abs(found / true - 1) for found, true in pairs)
        said = "" if answer["converged"] else ", not converged"
        return f"{ratio:.1f} H, off by {100 * worst:.1g}%{said}"

    def _density(self, tool: Worker, name: str) -> str:
        probes, steps = (2, STEPS) if name == "thalweg" else (1, self.options.steps)
        ratio, answer = self._ratio(tool, ("product", {}), "density", probes=probes, steps=steps)
        if math.isnan(ratio):
            return self._why(answer)
        return f"{ratio * PROBES * STEPS / (probes * steps):.0f} H"

    def _why(self, answer: dict[str, Any]) -> str:
        if answer.get("wrong") == "over":
            return f"given up after {self.options.limit:.0f} H"
        wrong = str(answer.get("wrong", "–"))
        return "no run" if "Error: " in wrong else wrong


def _spread(ratios: list[float]) -> str:
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(rows: dict[str, list[str]]) -> str:
    """Tools by costs."""
    heads = [
        "surface, a point",
        "five largest eigenvalues",
        "density, 10 probes of 50 steps",
    ]
    lines = [f"| tool | {' | '.join(heads)} |", "|---" * 4 + "|"]
    return "\n".join(lines + [f"| {name} | {' | '.join(row)} |" for name, row in rows.items()])


def write(text: str) -> None:
    """Put the table between the marks of the page."""
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(['thalweg', *RIVALS])}; all")
    parser.add_argument("--rounds", type=int, default=3, help="of the surface")
    parser.add_argument("--samples", type=int, default=2000, help="images of the spectra")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a rival's density")
    parser.add_argument("--limit", type=float, default=1000.0, help="units H for one job")
    parser.add_argument("--page", action="store_true", help="write it into docs/conformance.md")
    options = parser.parse_args()
    unknown = set(options.names) - {"thalweg", *RIVALS}
    if unknown:
        parser.error(f"no tool {', '.join(sorted(unknown))}")
    environments.FOLDER.mkdir(exist_ok=True)
    rows: dict[str, list[str]] = {}
    with worker("plain", "thalweg", options.samples) as plain:
        comparison = Comparison(plain, options)
        for name in options.names or ["thalweg", *RIVALS]:
            wrong = "" if name == "thalweg" else environments.make(name)
            rows[name] = [wrong] * 3 if wrong else comparison.row(name)
            print(f"{name}: {'; '.join(rows[name])}", file=sys.stderr, flush=True)
    print(table(rows))
    if options.page:
        write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
