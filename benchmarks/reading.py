"""What checksums add to reading a run, in CPU time.

Each reading is of files in the page cache, by the function that a user calls, and takes turns with

- the same, with the comparisons taken out that touch all bytes;
- a reader by hand, without checksums, bounds or looks at links.

Medians of the turns' ratios, with the first and last tenth. A file that is mapped into memory and
not used is read by nobody: the by-hand readers use what they read.

    python benchmarks/reading.py [--turns 21] [--checkpoints 40]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import xarray as xr
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch import nn

import thalweg as tw
from thalweg.run import Run, create_run
from thalweg.run.checkpoints import checkpoint_path, write_checkpoint

# Seconds of CPU time in a turn.
LONG_ENOUGH = 0.2
# What compares bytes with their checksum, and what it answers where it does not look.
CHECKS = {
    "thalweg.run.tensors._check_tensor": None,
    "thalweg.run.tensors.RunningChecksum.take": None,
    "thalweg.run.result_files._checked": True,
}


def network() -> nn.Sequential:
    """1,011,010 weights."""
    return nn.Sequential(nn.Linear(1000, 1000), nn.Tanh(), nn.Linear(1000, 10))


def make_run(folder: Path, checkpoints: int) -> Run:
    """A run with a training of 10^6 weights with momentum, and results of 0.3 and 48 MB."""
    run, weights = create_run(folder, {}), network().state_dict()
    generator = torch.Generator().manual_seed(0)
    for step in range(checkpoints):
        tensors = {
            name: tensor + 0.1 * step * torch.randn(tensor.shape, generator=generator)
            for name, tensor in weights.items()
        }
        momentum = {f"thalweg/optimizer/{n}": torch.randn_like(t) for n, t in tensors.items()}
        about = {"trajectory": "main", "step": step, "parameters": list(tensors)}
        path = checkpoint_path(run.path / "checkpoints", "main", step)
        write_checkpoint(path, tensors | momentum, about)
    random = np.random.default_rng(0)
    for name, rows in (("small", 25), ("large", 4000)):
        arrays = {f"y{n}": random.normal(size=(rows, n)) for n in (1000, 500)}
        run.save_result(name, xr.Dataset({dim: (("x", dim), v) for dim, v in arrays.items()}))
    return run


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave the comparisons out."""
    with ExitStack() as stack:
        for name, answer in CHECKS.items():
            stack.enter_context(patch(name, lambda *_, answer=answer: answer))
        yield


@dataclass(frozen=True)
class Reading:
    """What is read, by Thalweg and by hand."""

    name: str
    ours: Callable[[], object]
    by_hand: Callable[[], object]


def readings(run: Run) -> list[Reading]:
    """List what is read."""
    data = torch.zeros(1, 1000), torch.zeros(1, 10)
    problem, model = tw.Problem(network(), nn.MSELoss(), data), network()
    names, paths = list(model.state_dict()), run.checkpoints()

    def load_state() -> None:
        tensors = load_file(paths[-1])
        assert all(torch.isfinite(tensors[name]).all() for name in names)
        model.load_state_dict({name: tensors[name] for name in names})

    def load_rows() -> None:
        files = map(load_arrays, paths)
        rows = [np.concatenate([file[name].ravel() for name in names]) for file in files]
        tw.embed(np.stack(rows), method="classical")

    def load_result(name: str) -> None:
        folder = run.path / "results.zarr" / name
        xr.open_dataset(folder, engine="zarr", consolidated=False).load()

    embed = partial(tw.embed, run, layers=["network"], method="classical")
    return [
        Reading(f"embedding {len(paths)} checkpoints", embed, load_rows),
        Reading("a checkpoint as a point", partial(tw.open_point, problem, paths[-1]), load_state),
        Reading("a result of 0.3 MB", partial(run.result, "small"), partial(load_result, "small")),
        Reading("a result of 48 MB", partial(run.result, "large"), partial(load_result, "large")),
    ]


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """CPU time of the process, of all its threads."""
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def in_turns(reading: Reading, turns: int) -> tuple[list[float], list[float], list[float]]:
    """CPU time of each turn: checked, not checked, by hand."""
    seconds(reading.by_hand)
    times = 1 + int(LONG_ENOUGH / seconds(reading.ours))
    checked, not_checked, by_hand = [], [], []
    for _ in range(turns):
        checked.append(seconds(reading.ours, times))
        with unchecked():
            not_checked.append(seconds(reading.ours, times))
        by_hand.append(seconds(reading.by_hand, times))
    return checked, not_checked, by_hand


def percent(ours: list[float], theirs: list[float]) -> str:
    """Median of the excess, with the first and last tenth."""
    ratios = sorted(100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True))
    low, middle, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.1, 0.5, 0.9))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--checkpoints", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for reading in readings(make_run(Path(folder) / "run", options.checkpoints)):
            checked, not_checked, by_hand = in_turns(reading, options.turns)
            print(
                f"{reading.name}: {1e3 * sorted(checked)[len(checked) // 2]:.1f} ms;"
                f" the checksums {percent(checked, not_checked)};"
                f" beside a reader by hand {percent(checked, by_hand)}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
