"""Checkpoints that are written behind a training's back: the right ones, and never too many."""

from __future__ import annotations

import threading

import pytest
import torch

from thalweg.dynamics.background_writer import BackgroundWriter
from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.run import open_run, read_checkpoint


class Slow:
    """A writer that waits to be let go on, and notes what it was given."""

    def __init__(self):
        self.go, self.written, self.at_once, self.most = threading.Event(), [], 0, 0

    def keep(self, step, tensors, about):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert self.go.wait(60)
        self.written.append((step, tensors["w"].tolist(), about))
        self.at_once -= 1


def test_what_is_written_is_the_state_at_the_time(tmp_path):
    background, writer = BackgroundWriter(), CheckpointWriter(tmp_path / "run", "main")
    w = torch.zeros(1000)
    for step in range(20):
        w.fill_(step)
        background.keep(writer, step, {"w": w, "n": torch.tensor(step)}, {"parameters": ["w"]})
    background.finish()
    assert background.written == 19
    for step, path in enumerate(open_run(tmp_path / "run").checkpoints("main")):
        tensors, about = read_checkpoint(path)
        assert about["step"] == step and tensors["n"] == step
        assert torch.equal(tensors["w"], torch.full((1000,), float(step)))


def test_a_slow_disk_makes_the_training_wait_with_two_copies():
    background, writer = BackgroundWriter(), Slow()
    kept = []

    def train():
        for step in range(5):
            background.keep(writer, step, {"w": torch.tensor([float(step)])}, {})
            kept.append(step)

    training = threading.Thread(target=train)
    training.start()
    training.join(1.0)
    assert kept == [0, 1] and training.is_alive()
    writer.go.set()
    training.join(60)
    background.finish()
    assert writer.written == [(step, [float(step)], {}) for step in range(5)]
    assert writer.most == 1


def test_where_memory_holds_no_two_copies_it_is_written_at_once(monkeypatch):
    monkeypatch.setattr("thalweg.dynamics.background_writer.memory_limit", lambda: 100)
    background, writer = BackgroundWriter(), Slow()
    writer.go.set()
    background.keep(writer, 3, {"w": torch.zeros(1000)}, {})
    assert background.written == 3 and len(writer.written) == 1


def test_memory_is_used_again_and_kinds_that_change_are_no_trouble():
    background, writer = BackgroundWriter(), Slow()
    writer.go.set()
    states = [
        torch.ones(3),
        torch.ones(3) * 2,
        torch.ones(2, dtype=torch.float64),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]),
        torch.ones(2).to_sparse(),
        torch.ones(2),
    ]
    for step, state in enumerate(states):
        background.keep(writer, step, {"w": state.to_dense()}, {})
    background.keep(writer, 9, {"w": torch.eye(2)[:, 0]}, {})
    background.finish()
    expected = [state.to_dense().tolist() for state in states] + [[1.0, 0.0]]
    assert [value for _, value, _ in writer.written] == expected


def test_the_error_of_a_write_comes_out_later_with_its_step():
    class Full:
        def keep(self, step, tensors, about):
            if step == 1:
                raise OSError(28, "No space left on device")

    background = BackgroundWriter()
    background.keep(Full(), 0, {"w": torch.zeros(1)}, {})
    background.keep(Full(), 1, {"w": torch.zeros(1)}, {})
    with pytest.raises(OSError, match="No space"):
        background.finish()
    assert (background.written, background.failed) == (0, 1)
