"""Nothing that goes wrong in a recorder ends the training: it is said, and the rest goes on."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
import torch
from torch import nn

from thalweg.dynamics import Recorder, record
from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.dynamics.optimizer_steps import StepWatch
from thalweg.embedding import embed
from thalweg.errors import CheckpointMismatch, InvalidArgument, RunConflict
from thalweg.run import describe_checkpoint, open_run, read_checkpoint
from thalweg.run.verify import verify

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


class Stateful(nn.Module):
    """A network whose extra state is whatever it is told to be."""

    def __init__(self, state=None):
        super().__init__()
        self.line, self.state = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)), state

    def get_extra_state(self):
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def set_extra_state(self, state):
        self.state = state

    def forward(self, inputs):
        return self.line(inputs)


def make(state=None):
    torch.manual_seed(3)
    model = Stateful(state)
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def loop(model, optimizer, recorder=None, at=None, steps=8, **metrics):
    """Train; ``at[number]`` happens before a step."""
    for number in range(steps):
        if at and number in at:
            at[number]()
        rows = torch.randint(0, 64, (16,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(**(metrics or {"loss": number}))


def trained():
    model, optimizer = make()
    loop(model, optimizer)
    return model.line.state_dict()


def check(model, recorder):
    assert recorder.step == 8
    expected = trained()
    assert all(torch.equal(t, expected[name]) for name, t in model.line.state_dict().items())


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def steps(path, trajectory="main"):
    return [int(file.stem) for file in open_run(path).checkpoints(trajectory)]


def break_checkpoints(monkeypatch, path, model):
    monkeypatch.setattr(CheckpointWriter, "keep", no_space)


def break_events(monkeypatch, path, model):
    (path / "events.jsonl").unlink()
    (path / "events.jsonl").mkdir()


def take_the_folder(monkeypatch, path, model):
    shutil.rmtree(path / "checkpoints")
    (path / "checkpoints").write_text("")


def break_the_state(monkeypatch, path, model):
    model.state = RuntimeError("no state to be had")


def break_the_counting(monkeypatch, path, model):
    monkeypatch.setattr(Recorder, "_now", no_space)


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (break_checkpoints, "No space left"),
        (break_events, "events.jsonl"),
        (take_the_folder, "Not a directory"),
        (break_the_state, "no state to be had"),
        (break_the_counting, "No space left"),
    ],
)
def test_the_training_goes_on_unrecorded(breaks, reason, monkeypatch, tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:

        def break_it():
            recorder.flush()
            breaks(monkeypatch, tmp_path / "run", model)

        loop(model, optimizer, recorder, {4: break_it})
    model.state = None
    check(model, recorder)
    (message,) = caplog.messages
    assert reason in message and "training goes on" in message and "lost" in message
    if breaks is not take_the_folder:
        assert steps(tmp_path / "run") in ([0, 2], [0, 2, 4])


def test_a_disk_that_is_full_from_the_beginning(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(CheckpointWriter, "keep", no_space)
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    check(model, recorder)
    (message,) = caplog.messages
    assert "stopped at step 0" in message and "nothing of trajectory 'main'" in message


def test_a_state_that_cannot_be_read_from_the_beginning(tmp_path, caplog):
    model, optimizer = make(RuntimeError("no state to be had"))
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    model.state = None
    check(model, recorder)
    (message,) = caplog.messages
    assert "no state to be had" in message


def test_a_watch_that_fails_lets_the_training_go_on(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(StepWatch, "_participant", no_space)
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    assert all(torch.equal(t, trained()[name]) for name, t in model.line.state_dict().items())
    assert "No space left" in caplog.messages[0]


def test_an_error_of_the_training_comes_through_a_broken_recorder(monkeypatch, tmp_path):
    monkeypatch.setattr(CheckpointWriter, "keep", no_space)
    model, optimizer = make()
    with (
        pytest.raises(ZeroDivisionError),
        record(model, optimizer, run=tmp_path / "run") as recorder,
    ):
        loop(model, optimizer, recorder)
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("good", "str is no number"),
        (None, "NoneType is no number"),
        (torch.ones(3), "Tensor is no number"),
        (1j, "complex is no number"),
        (10**400, "int is no number"),
        ([1.0], "list is no number"),
    ],
)
def test_a_metric_that_is_no_number_is_left_out(value, reason, tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder, odd=value, loss=0.5)
    check(model, recorder)
    (message,) = caplog.messages
    assert "'odd'" in message and reason in message
    assert steps(tmp_path / "run") == [0, 2, 4, 6, 8]
    assert describe_checkpoint(open_run(tmp_path / "run").checkpoints()[-1])["metrics"] == {
        "loss": 0.5
    }


@pytest.mark.parametrize("name", ["step", "trajectory"])
def test_the_recorder_s_own_names_are_no_metrics(name, tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run") as recorder:
        loop(model, optimizer, recorder, **{name: 77.0, "loss": 0.5})
    assert [event["step"] for event in open_run(tmp_path / "run").events()] == list(range(1, 9))
    (message,) = caplog.messages
    assert repr(name) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_metrics_that_are_not_finite_are_recorded(value, tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder, loss=value)
    check(model, recorder)
    assert not caplog.messages
    kept = embed(tmp_path / "run", dims=2)["loss"].values[1:]
    assert str(kept.tolist()) == str([float(value)] * 4)


def test_a_metric_with_a_graph_is_taken_without_it(tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run") as recorder:
        recorder.log(loss=nn.functional.cross_entropy(model(X), Y))
    assert not caplog.messages
    assert json.loads((tmp_path / "run" / "events.jsonl").read_text())["loss"] > 0


EXTRA = {
    "dict": {"scale": 2.0, "names": ("a", "b"), "counts": {3: torch.arange(3)}},
    "tensor": torch.arange(4.0),
    "number": 7,
    "text": "tanh",
    "nothing": None,
    "bytes": b"\x00\x01",
}


@pytest.mark.parametrize("kind", EXTRA)
def test_extra_state_of_any_plain_kind_comes_back(kind, tmp_path, caplog):
    model, optimizer = make(EXTRA[kind])
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    check(model, recorder)
    assert steps(tmp_path / "run") == [0, 2, 4, 6, 8] and not caplog.messages
    again, optimizer = make("something else")
    with record(again, optimizer, run=tmp_path / "run") as recorder:
        assert recorder.restore() == 8
    assert type(again.state) is type(EXTRA[kind]) and str(again.state) == str(EXTRA[kind])


@pytest.mark.parametrize("state", [object(), {"hook": print}, [{1, frozenset()}]])
def test_extra_state_that_no_file_holds_is_left_out_and_said(state, tmp_path, caplog):
    model, optimizer = make(state)
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    check(model, recorder)
    (message,) = caplog.messages
    assert "_extra_state" in message and steps(tmp_path / "run") == [0, 2, 4, 6, 8]
    caplog.clear()
    again, optimizer = make("its own")
    with record(again, optimizer, run=tmp_path / "run") as recorder:
        recorder.restore()
    assert again.state == "its own" and torch.equal(again.line[0].weight, model.line[0].weight)
    assert "'_extra_state' was not kept" in caplog.text


@pytest.mark.parametrize("thing", [object(), torch.empty(2, device="meta")])
def test_an_optimizer_s_state_that_no_file_holds_leaves_the_weights(thing, tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        optimizer.param_groups[0]["thing"] = thing
        loop(model, optimizer, recorder)
    check(model, recorder)
    (message,) = caplog.messages
    assert "state of the optimizer cannot be kept" in message
    assert "Adam.param_groups.0.thing" in message
    assert steps(tmp_path / "run") == [0, 2, 4, 6, 8]
    again, optimizer = make()
    before = {name: value.clone() for name, value in again.named_parameters()}
    with (
        pytest.raises(CheckpointMismatch, match="was not kept"),
        record(again, optimizer, run=tmp_path / "run") as recorder,
    ):
        recorder.restore()
    for name, tensor in again.named_parameters():  # not half restored
        assert torch.equal(tensor, before[name]), name


def test_tensors_that_no_file_holds_are_left_out_and_said(tmp_path, caplog):
    model, optimizer = make()
    model.register_buffer("ghost", torch.empty(3, device="meta"))
    model.register_buffer("odd", torch.ones(2, dtype=torch.float8_e4m3fnuz))
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    check(model, recorder)
    (message,) = caplog.messages
    assert "ghost (it has no data" in message and "odd (its dtype" in message
    tensors, about = read_checkpoint(open_run(tmp_path / "run").checkpoints()[-1])
    assert set(about["left_out"]) == {"ghost", "odd"} and "line.0.weight" in tensors


def test_an_old_trajectory_stays_and_the_new_one_gets_another_name(tmp_path, caplog):
    for _ in range(3):
        model, optimizer = make()
        with record(model, optimizer, run=tmp_path / "run", every=4) as recorder:
            recorder.log(loss=1.0)
            loop(model, optimizer, recorder)
        check(model, recorder)
    run = open_run(tmp_path / "run")
    assert run.trajectories() == ["main", "main-2", "main-3"]
    assert all(steps(tmp_path / "run", name) == [0, 4, 8] for name in run.trajectories())
    assert len(run.events()) == 3 * 9
    assert all("recorder.restore()" in message for message in caplog.messages)
    assert len(caplog.messages) == 2


def test_a_recorder_without_its_block_says_so(tmp_path, caplog):
    model, optimizer = make()
    recorder = record(model, optimizer, run=tmp_path / "run")
    loop(model, optimizer, recorder)
    recorder.mark()
    (message,) = caplog.messages
    assert "with tw.record" in message


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "/tmp/there", "a//b", "a/../b", "nul\0", "x" * 300]
)
def test_a_trajectory_s_name_stays_inside_the_run(name, tmp_path):
    model, optimizer = make()
    with pytest.raises(InvalidArgument, match="cannot name a trajectory"):
        record(model, optimizer, run=tmp_path / "run", trajectory=name)


def test_a_place_where_no_run_can_be_is_refused_before_the_loop(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    model, optimizer = make()
    with pytest.raises(InvalidArgument, match="no run can be made"):
        record(model, optimizer, run=tmp_path / "file" / "run")
    with pytest.raises(RunConflict, match=r"thesis\.tex"):
        record(model, optimizer, run=tmp_path / "other")


def test_a_checkpoint_that_is_taken_out_of_a_recording_is_missed(tmp_path, caplog):
    model, optimizer = make()
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(model, optimizer, recorder)
    run = open_run(tmp_path / "run")
    assert not any(finding.lost for finding in verify(run))
    # A recording that goes on knows what was kept before.
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        recorder.restore()
        loop(model, optimizer, recorder, steps=4)
    befores = [describe_checkpoint(path).get("before") for path in run.checkpoints()]
    assert befores == [None, 0, 2, 4, 6, 8, 10]
    run.checkpoints()[4].unlink()
    (finding,) = (finding for finding in verify(run) if finding.lost)
    assert finding.file == "checkpoints/main/000000008.safetensors"
    assert (finding.state, finding.why) == ("gone", "step 10 followed it")
    assert finding.remedy == "its step is lost; the others are whole"
    embed(run)
    assert "main/000000008.safetensors is not there any more" in caplog.text
