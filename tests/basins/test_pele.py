"""Disconnectivity graphs beside those of pele, where it has an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPARISON = ROOT / "benchmarks" / "disconnectivity.py"


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".bench" / "pele" / "made").exists(),
    reason="pele (GPL) is not there: python benchmarks/disconnectivity.py --rivals installs it"
    " into an environment of its own",
)
def test_graphs_are_those_of_pele_and_straight_lines_alone_are_told_apart():
    done = subprocess.run([sys.executable, str(COMPARISON)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("from pele's: ours") == 5
