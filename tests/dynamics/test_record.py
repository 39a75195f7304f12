"""Recording a user's own loop: nothing changed, nothing lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.dynamics import record
from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.run import describe_checkpoint, open_run, read_checkpoint

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
}


def make(optimizer="momentum"):
    torch.manual_seed(11)
    model = nn.Sequential(
        nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
    )
    return model, OPTIMIZERS[optimizer](model.parameters())


class Interrupted(Exception):
    pass


def loop(model, optimizer, steps, recorder=None, *, begin=0, fail_at=None):
    for step in range(begin, steps):
        rows = torch.randint(0, 64, (16,))
        loss = nn.functional.cross_entropy(model(X[rows]), Y[rows])
        if step == fail_at:
            raise Interrupted  # behind the forward pass: batch norm has seen the batch already
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(loss=loss.detach())


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[n], other[n]) for n in state)


def files(path):
    return sorted((path / "checkpoints" / "main").glob("*.safetensors"))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_recording_does_not_change_the_training(kind, tmp_path):
    plain, optimizer = make(kind)
    loop(plain, optimizer, 25)
    recorded, optimizer = make(kind)
    with record(recorded, optimizer, run=tmp_path / "run", every=10) as recorder:
        loop(recorded, optimizer, 25, recorder)
    assert equal(plain.state_dict(), recorded.state_dict())
    assert [int(path.stem) for path in files(tmp_path / "run")] == [0, 10, 20, 25]
    assert recorder.step == 25


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("fail_at", [1, 10, 17])
def test_a_loop_that_broke_resumes_exactly(kind, fail_at, tmp_path):
    whole, optimizer = make(kind)
    loop(whole, optimizer, 30)
    end = optimizer.state_dict()

    model, optimizer = make(kind)
    with (
        pytest.raises(Interrupted),
        record(model, optimizer, run=tmp_path / "run", every=5) as recorder,
    ):
        loop(model, optimizer, 30, recorder, fail_at=fail_at)
    assert int(files(tmp_path / "run")[-1].stem) == fail_at

    model, optimizer = make(kind)
    torch.manual_seed(0)
    with record(model, optimizer, run=tmp_path / "run", every=5) as recorder:
        begin = recorder.restore()
        assert begin == fail_at == recorder.step
        loop(model, optimizer, 30, recorder, begin=begin)
    assert equal(whole.state_dict(), model.state_dict())
    again = optimizer.state_dict()
    assert again["param_groups"] == end["param_groups"]
    assert all(equal(_tensors(end["state"][i]), _tensors(again["state"][i])) for i in end["state"])


def _tensors(state):
    return {name: torch.as_tensor(value) for name, value in state.items()}


def test_checkpoints_say_what_was_logged(tmp_path):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, 2)
        recorder.log(loss=0.5, error=torch.tensor(0.25), speed=3)
        loop(model, optimizer, 2)
    tensors, about = read_checkpoint(files(tmp_path / "run")[1])
    assert about["step"] == 2 and about["loss"] == 0.5 and about["error"] == 0.25
    assert about["metrics"] == {"loss": 0.5, "error": 0.25, "speed": 3.0}
    assert about["parameters"] == [name for name, _ in model.named_parameters()]
    tensors, about = read_checkpoint(files(tmp_path / "run")[-1])
    assert about["step"] == 4 and about["loss"] is None
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("thalweg/")}
    assert equal(own, model.state_dict())
    (event,) = open_run(tmp_path / "run").events()
    assert event == {"trajectory": "main", "step": 2, "loss": 0.5, "error": 0.25, "speed": 3.0}
    assert describe_checkpoint(files(tmp_path / "run")[0])["loss"] is None


def test_an_old_trajectory_is_not_mixed_with_a_new_one(tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run"):
        loop(model, optimizer, 3)
    kept = {path: path.read_bytes() for path in files(tmp_path / "run")}
    with record(model, optimizer, run=tmp_path / "run"):
        loop(model, optimizer, 3)
    assert {path: path.read_bytes() for path in files(tmp_path / "run")} == kept
    assert "recorder.restore()" in caplog.text
    with record(model, optimizer, run=tmp_path / "run", trajectory="second"):
        loop(model, optimizer, 3)
    assert open_run(tmp_path / "run").trajectories() == ["main", "main-2", "second"]


def test_the_block_leaves_no_hooks_behind(tmp_path):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run") as recorder:
        loop(model, optimizer, 3)
    loop(model, optimizer, 3)
    assert recorder.step == 3


def test_a_step_broken_half_way_is_not_kept(tmp_path):
    model, optimizer = make()

    def explode(*_):
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        record(model, optimizer, run=tmp_path / "run", every=100),
    ):
        loop(model, optimizer, 3)
        optimizer.register_step_pre_hook(explode)
        loop(model, optimizer, 3)
    assert [int(path.stem) for path in files(tmp_path / "run")] == [0]


def test_tied_weights_are_kept_under_both_names(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, optimizer, run=tmp_path / "run"):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    tensors, about = read_checkpoint(files(tmp_path / "run")[-1])
    assert torch.equal(tensors["0.weight"], tensors["1.weight"])
    assert about["parameters"] == ["0.weight", "0.bias", "1.bias"]


def test_restoring_another_model_says_so(tmp_path):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run"):
        loop(model, optimizer, 1)
    other = nn.Linear(5, 2)
    with (
        pytest.raises(CheckpointMismatch, match="does not fit"),
        record(other, torch.optim.SGD(other.parameters()), run=tmp_path / "run") as recorder,
    ):
        recorder.restore()


def test_every_must_be_a_count(tmp_path):
    model, optimizer = make()
    with pytest.raises(InvalidArgument, match="every=0"):
        record(model, optimizer, run=tmp_path / "run", every=0)
