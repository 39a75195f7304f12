"""Passes work in memory that is mapped once, also where no batch size is tried out before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PASSES = """
import resource, torch
from torch import nn
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16384, 2))
data = torch.zeros(320, 1, 16, 16), torch.zeros(320, dtype=torch.long)
risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), data), batch_size=64)
w = risk.space.pack(model)
risk.value(w)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
risk.value(w)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does by default")
def test_a_pass_maps_no_memory_anew() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _PASSES], capture_output=True, text=True, check=True
    )
    # Activations of a batch are 4 MiB: 1,000 pages, five times a pass.
    assert int(answer.stdout) < 200
