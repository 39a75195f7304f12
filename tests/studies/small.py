"""A reproduction small enough for a test: two seeds, branches, a handful of steps each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.run import InProcess, Run, read_checkpoint
from thalweg.studies import reproduce

CONFIG: dict[str, Any] = {
    "preset": "test",
    "seed": 0,
    "studies": ["trajectories"],
    "problem": {
        "entry": "digits",
        "settings": {"widths": [8, 8], "train_size": 120, "test_size": 40},
    },
    "training": {"lr": 0.05, "momentum": 0.9, "batch_size": 20, "schedule": "cosine"},
    "trajectories": {
        "parents": 2,
        "seeds": [0, 1],
        "epochs": 6,
        "checkpoints": 6,
        "branch_at": ["early", "final"],
        "copies": 2,
        "scale": 0.25,
        "branch_epochs": 3,
        "branch_checkpoints": 3,
    },
}


def fingerprint(run: Run) -> dict[str, Any]:
    """Everything a run found, to the last bit: weights, curves and embedding."""
    weights = {
        str(path.relative_to(run.path)): {
            name: tensor.numpy().tobytes() for name, tensor in read_checkpoint(path)[0].items()
        }
        for path in run.checkpoints()
    }
    results = {
        f"{group}:{name}": np.ascontiguousarray(values).tobytes()
        for group in ("trajectories/curves", "trajectories/embedding")
        for name, values in run.result(group).variables.items()
        if values.dtype.kind in "fiub"
    }
    return {"summary": json.loads((run.path / "summary.json").read_text()), **weights, **results}


def work() -> Iterator[None]:
    """Reproduce into the folder named on the command line, for `kill_at_random_moments`."""
    yield
    reproduce(CONFIG, Path(sys.argv[1]), engine=InProcess())
    while True:
        time.sleep(1.0)
        yield
