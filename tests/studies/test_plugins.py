"""Problems and studies of installed packages: found by their entry points, run, reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg as tw
from thalweg.run.plugins import installed

PACKAGE = """
import torch
from torch import nn
from thalweg import Problem
from thalweg.studies.claim import Claim, Control, Rule
from thalweg.studies.intervals import share

def make(samples=20, seed=0):
    x = torch.randn(samples, 3, generator=torch.Generator().manual_seed(0))
    return Problem(nn.Linear(3, 1), nn.MSELoss(), (x, x.sum(1, keepdim=True)))

SIZES = {"demo": {"heads": 10}}

def tasks(config):
    return []

def assemble(run, config, *, progress):
    return config["coin"]

def claims(run, config):
    heads = config["coin"]["heads"]
    far = Control("a coin with two tails", share("heads", 0, 10))
    rule = Rule(low=0.5)
    found = share("heads", heads, 10)
    return [Claim("coin/heads", "Heads fall.", "here", "thrown", found, rule, (far,))]
"""
RUN = """
import json, thalweg as tw
from thalweg.studies import configure, reproduce
config = configure("demo", data="sunspots", studies=["coin"])
run, found = reproduce(config, "r")
verdict = run.claims[0]["verdict"]
print(json.dumps({"verdict": verdict, "found": found, "all": configure()["studies"]}))
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "spots.py").write_text(PACKAGE)
    about = tmp_path / "spots-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: spots\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[thalweg.problems]\nsunspots = spots:make\nbroken = spots:nothing\n"
        "[thalweg.studies]\ncoin = spots\n"
    )
    installed.cache_clear()
    yield tmp_path
    installed.cache_clear()


def test_a_problem_of_another_package(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    problem = tw.load_problem("sunspots", samples=7)
    assert len(problem.samples("train")) == 7
    with pytest.raises(tw.ThalwegError, match=r"'broken' of spots .*cannot be imported"):
        tw.load_problem("broken")
    with pytest.raises(tw.ThalwegError, match="did you mean 'sunspots'"):
        tw.load_problem("sunspot")


def test_a_study_of_another_package_is_judged(package):
    source = str(Path(tw.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=package,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(package), source])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["verdict"] == "supported" and answer["found"]["coin"] == {"heads": 10}
    assert "coin" not in answer["all"], "another package changes no reproduction of the paper"
