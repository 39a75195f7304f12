"""A training that was interrupted, however, ends as one that was not: bit for bit."""

from __future__ import annotations

import random

import pytest
import torch

from dynamics.cases import classification, start_of
from run.killing import kill_at_random_moments
from thalweg.dynamics import train
from thalweg.errors import RunConflict
from thalweg.risk import EmpiricalRisk
from thalweg.run import create_run, read_checkpoint

SGD = {"epochs": 8, "batch_size": 20, "every": 3, "seed": 3}
CASES = {
    "sgd": SGD,
    "measured in between": SGD | {"evaluate_every": 7},
    "adam": SGD | {"optimizer": "adam", "lr": 0.01, "clip": 1.0},
    "langevin": SGD | {"optimizer": "langevin", "temperature": 1e-3},
    "langevin, full batch": {
        "optimizer": "langevin",
        "temperature": 1e-3,
        "batch_size": None,
        "steps": 20,
        "every": 4,
    },
    "full batch": {"optimizer": "gd", "momentum": 0.5, "steps": 40, "every": 4},
    "stopped": {"epochs": 60, "batch_size": 20, "stop_error": 0.0, "every": 11},
}


class Interrupted(Exception):
    pass


class Stopping:
    """A progress bar that raises at a step."""

    def __init__(self, at):
        self.at, self.done = at, 0

    def __call__(self, total, label):
        return self

    def update(self, n=1):
        self.done += n
        if self.done >= self.at:
            raise Interrupted

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def same(value, other):
    return repr(value) == repr(other)


def assert_same_files(results):
    one, other = results
    assert [path.name for path in one.checkpoints] == [path.name for path in other.checkpoints]
    for path, twin in zip(one.checkpoints, other.checkpoints, strict=True):
        (tensors, about), (twins, told) = read_checkpoint(path), read_checkpoint(twin)
        assert same(about, told) and tensors.keys() == twins.keys()
        assert all(torch.equal(tensor, twins[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_an_interrupted_training_resumes_exactly(options, tmp_path):
    risk, model, *_ = classification(dtype=torch.float32)
    w0, moments = start_of(risk, model), random.Random(0)
    whole = train(risk, w0, **options, run=tmp_path / "whole")

    done = 0
    while done < whole.step:
        done = min(done + moments.randrange(1, 12), whole.step)
        stopping = Stopping(done)
        with pytest.raises(Interrupted):
            train(*classification(dtype=torch.float32)[:1], w0, **options, run=tmp_path / "parts",
                  progress=stopping)  # fmt: skip
    parts = train(risk, w0, **options, run=tmp_path / "parts")

    assert torch.equal(whole.w, parts.w) and whole.status == parts.status
    assert same(whole.history, parts.history)
    assert all(torch.equal(tensor, parts.buffers[name]) for name, tensor in whole.buffers.items())
    assert_same_files([whole, parts])
    events = [create_run(path, {"kind": "recording"}).events() for path in tmp_path.iterdir()]
    assert same(*events)


def test_a_training_goes_on_whatever_was_checked_before_it(tmp_path):
    """What a self-check compared is no part of the function; another function is refused."""
    risk, model, *_ = classification(dtype=torch.float32)
    w0 = start_of(risk, model)
    whole = train(risk, w0, **SGD)
    unchecked = EmpiricalRisk(risk.problem, dtype=torch.float32, check=False)
    with pytest.raises(Interrupted):
        train(unchecked, w0, **SGD, run=tmp_path / "run", progress=Stopping(7))
    parts = train(risk, w0, **SGD, run=tmp_path / "run")
    assert torch.equal(whole.w, parts.w)
    frozen = EmpiricalRisk(risk.problem, dtype=torch.float32, batchnorm="frozen")
    with pytest.raises(RunConflict, match="landscape"):
        train(frozen, w0, **SGD, run=tmp_path / "run")


def test_a_torn_last_checkpoint_is_passed_over(tmp_path):
    risk, model, *_ = classification(dtype=torch.float32)
    w0 = start_of(risk, model)
    whole = train(risk, w0, **SGD, run=tmp_path / "run")
    last, before = whole.checkpoints[-1], whole.checkpoints[-2]
    last.write_bytes(last.read_bytes()[:100])
    before.write_bytes(b"")
    again = train(risk, w0, **SGD, run=tmp_path / "run")
    assert torch.equal(again.w, whole.w) and same(again.history, whole.history)


KILLED = """
import signal, time, torch
from dynamics.cases import classification, start_of
from thalweg.dynamics import train
torch.set_num_threads(1)
risk, model, *_ = classification(dtype=torch.float32)
train(risk, start_of(risk, model), steps=1)  # torch imports much at the first step
class Slow:  # the quickest machine takes a second, and so is killed under way
    __call__ = lambda self, total, label: self
    __enter__ = lambda self: self
    __exit__ = lambda self, *error: None
    update = lambda self, n: time.sleep(0.003)
options = {"epochs": 60, "batch_size": 10, "every": 10, "progress": Slow()}
def work():
    yield
    train(risk, start_of(risk, model), **options, run=sys.argv[1])
    signal.pause()
"""


def test_kill_9_at_20_random_moments(tmp_path):
    risk, model, *_ = classification(dtype=torch.float32)
    options = {"epochs": 60, "batch_size": 10, "every": 10}
    steps = set()
    for _ in kill_at_random_moments(KILLED, 20, tmp_path / "killed", longest=0.3):
        found = sorted((tmp_path / "killed" / "checkpoints" / "main").glob("*.safetensors"))
        steps.add(len(found))
    assert len(steps) > 3  # it was under way when it was killed
    results = [
        train(risk, start_of(risk, model), **options, run=tmp_path / name)
        for name in ("killed", "whole")
    ]
    assert same(results[0].history, results[1].history)
    assert torch.equal(results[0].w, results[1].w)
    assert_same_files(results)
