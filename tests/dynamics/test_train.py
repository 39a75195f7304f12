"""Training against closed forms and a hand-written PyTorch loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dynamics.cases import Bowl, classification, start_of
from thalweg.dynamics import train
from thalweg.dynamics.schedule import cosine
from thalweg.errors import InvalidArgument, InvalidWeights, NotDefined, RunConflict
from thalweg.landscape import Quadratic
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import describe_checkpoint, open_run, read_checkpoint, torch_generator


def test_gradient_descent_on_a_bowl_is_its_closed_form():
    bowl, w0, steps, lr = Bowl([1.0, 3.0, 0.5]), torch.tensor([1.0, -2.0, 4.0]).double(), 7, 0.3

    result = train(bowl, w0, optimizer="gd", lr=lr, schedule="constant", steps=steps, every=1)

    for step, w in result.snapshots:
        torch.testing.assert_close(w, w0 * (1 - lr * bowl.curvature) ** step, rtol=1e-14, atol=0)
    assert [step for step, _ in result.snapshots] == list(range(steps + 1))
    assert result.status == "finished" and result.step == steps
    assert result.history[-1]["loss"] == bowl.value(result.w)


def test_momentum_on_a_bowl_is_its_recurrence():
    bowl, w, velocity = Bowl([1.0, 3.0]), torch.tensor([1.0, -2.0]).double(), torch.zeros(2)
    result = train(bowl, w, optimizer="gd", lr=0.1, momentum=0.8, schedule="constant", steps=20)
    for _ in range(20):
        velocity = 0.8 * velocity + bowl.curvature * w
        w = w - 0.1 * velocity
    torch.testing.assert_close(result.w, w, rtol=1e-13, atol=0)


def hand_loop(model, x, y, *, make, lr, epochs, batch_size, seed, clip=None):
    """Train as anybody would, in the documented order of the data."""
    optimizer = make(model.parameters())
    parts = -(-len(x) // batch_size)
    total, step = epochs * parts, 0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch_generator(seed, "order", epoch))
        for part in range(parts):
            rows = order[len(x) * part // parts : len(x) * (part + 1) // parts]
            for group in optimizer.param_groups:
                group["lr"] = lr * (0.5 + 0.5 * math.cos(math.pi * step / total))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            step += 1
    return model


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({}, lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9)),
        (
            {"momentum": 0.0, "weight_decay": 0.01},
            lambda p: torch.optim.SGD(p, lr=1.0, weight_decay=0.01),
        ),
        ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=1.0)),
        ({"clip": 0.1}, lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9)),
    ],
    ids=["momentum", "weight decay", "adam", "clip"],
)
def test_training_is_a_hand_written_torch_loop(options, make):
    risk, model, x, y = classification()
    shape = {"lr": 0.03, "epochs": 3, "batch_size": 20, "seed": 5}

    result = train(risk, start_of(risk, model), **shape, **options)
    hand = hand_loop(model.double(), x.double(), y, make=make, clip=options.get("clip"), **shape)

    torch.testing.assert_close(result.w, risk.space.pack(hand), rtol=1e-9, atol=1e-12)
    for name, buffer in hand.named_buffers():
        torch.testing.assert_close(result.buffers[name], buffer, rtol=1e-9, atol=1e-12)


def test_running_numbers_are_those_of_the_batches():
    risk, model, *_ = classification(batchnorm=False)
    # A rate this small leaves the weights where they are: the running mean is the mean there.
    result = train(risk, start_of(risk, model), lr=1e-14, epochs=1, batch_size=20, clip=1.0)
    row = result.history[-1]
    assert row["running_loss"] == pytest.approx(risk.value(result.w), rel=1e-10)
    assert row["running_error"] == pytest.approx(risk.error(result.w), abs=1e-12)
    assert row["loss"] == risk.value(result.w) and row["error"] == risk.error(result.w)


def test_stops_at_zero_error_before_its_full_length():
    risk, model, *_ = classification()
    result = train(risk, start_of(risk, model), epochs=500, batch_size=10, stop_error=0.0)
    assert result.status == "zero error"
    assert risk.error(result.w) == 0.0 == result.history[-1]["error"]
    assert result.step < 500 * 9 and result.step % 9 == 0
    # The full pass was spared as long as the running error was far away.
    assert result.history[0]["running_error"] > 0.05 and result.history[0]["error"] is None


def test_stops_at_a_loss():
    result = train(Bowl([1.0]), torch.ones(1).double(), optimizer="gd", steps=500, stop_loss=0.1)
    assert result.status == "loss reached"
    assert result.history[-1]["loss"] <= 0.1 < result.history[-2]["loss"]


def test_an_error_above_zero_can_be_the_goal():
    risk, model, *_ = classification()
    result = train(risk, start_of(risk, model), epochs=100, batch_size=10, stop_error=0.3)
    assert result.status == "error reached" and 0 < result.history[-1]["error"] <= 0.3


def test_divergence_is_a_status_that_keeps_what_was_computed(caplog, tmp_path):
    bowl = Bowl([1.0])
    w0 = torch.full((1,), 2.0**-100, dtype=torch.float64)
    # Each step multiplies by -8, so |w| is 2**(3 k - 100) and infinite from k = 375 on.
    options = {"optimizer": "gd", "lr": 9.0, "schedule": "constant", "steps": 1000, "every": 25}
    result = train(bowl, w0, **options, run=tmp_path / "run")
    assert result.status == "diverged" and result.diverged_at == 375
    assert result.step == 350 and float(result.w) == 2.0 ** (3 * 350 - 100)
    assert "after 375 steps" in caplog.text
    assert describe_checkpoint(result.checkpoints[-1])["status"] == "diverged"
    again = train(bowl, w0, **options, run=tmp_path / "run")
    assert torch.equal(again.w, result.w) and again.diverged_at == 375


def test_a_loss_that_is_not_finite_names_its_step():
    risk, model, *_ = classification(dtype=torch.float32)
    result = train(risk, start_of(risk, model), lr=1e30, schedule="constant", epochs=2)
    assert result.status == "diverged" and 0 < result.diverged_at < 5
    assert torch.isfinite(result.w).all()


def test_full_measurements_come_when_asked_for():
    bowl, w0 = Bowl([1.0]), torch.ones(1).double()
    other = Bowl([2.0])
    result = train(bowl, w0, optimizer="gd", steps=10, evaluate_every=4, test=other)
    measured = [row["step"] for row in result.history if row["loss"] is not None]
    assert measured == [0, 4, 8, 10]
    last = result.history[-1]
    assert last["test_loss"] == pytest.approx(2 * last["loss"]) and last["test_error"] is None


def test_the_rate_follows_any_function_of_the_progress():
    bowl, w0 = Bowl([0.0]), torch.ones(1).double()
    rows = train(bowl, w0, optimizer="gd", lr=2.0, schedule=lambda p: 1 - p, steps=4).history
    assert [row["lr"] for row in rows] == [2.0, 1.5, 1.0, 0.5]
    assert cosine(1.0) == 0.0


def test_the_landscape_and_its_model_are_left_as_found():
    risk, model, *_ = classification()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    w0, buffers = start_of(risk, model), risk.buffers()
    kept = w0.clone()
    result = train(risk, w0, epochs=1, batch_size=20)
    assert torch.equal(w0, kept)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in risk.buffers().items())
    assert int(result.buffers["1.num_batches_tracked"]) == 5


def test_the_global_generator_is_not_used():
    risk, model, *_ = classification()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(train(risk, start_of(risk, model), epochs=2, batch_size=20).w)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*results)


def test_checkpoints_hold_the_state_dict_and_say_what_they_are(tmp_path):
    risk, model, *_ = classification()
    result = train(
        risk, start_of(risk, model), epochs=2, batch_size=20, every=4, run=tmp_path / "run",
        trajectory="seed7", seed=7, about={"parent": {"trajectory": "main", "step": 3}},
    )  # fmt: skip
    assert [int(path.stem) for path in result.checkpoints] == [0, 4, 8, 10]
    tensors, about = read_checkpoint(result.checkpoints[-1])
    assert set(model.state_dict()) == {name for name in tensors if not name.startswith("thalweg/")}
    torch.testing.assert_close(risk.space.pack(tensors), result.w, rtol=0, atol=0)
    expected = {"trajectory": "seed7", "step": 10, "epoch": 2.0, "seed": 7, "status": "finished"}
    assert expected.items() <= about.items()
    assert about["parent"] == {"trajectory": "main", "step": 3}
    assert about["parameters"] == list(risk.space.names)
    assert about["error"] == risk.error(result.w)
    events = open_run(tmp_path / "run").events()
    assert [event["step"] for event in events] == [5, 10]
    assert events[-1]["trajectory"] == "seed7" and events[-1]["loss"] == about["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "epochs=20, or steps"),
        ({"epochs": 1, "steps": 1}, "one of them"),
        ({"steps": 5, "optimizer": "lbfgs"}, "'sgd'"),
        ({"steps": 5, "schedule": "linear"}, "'cosine'"),
        ({"steps": 5, "lr": -1.0}, "lr=-1.0; write a positive number"),
        ({"steps": 5, "lr": math.nan}, "lr=nan"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 5, "batch_size": 2.5}, "batch_size=2.5"),
        ({"steps": 5, "every": 0}, "every=0"),
        ({"steps": 5, "evaluate_every": "step"}, "evaluate_every='step'"),
        ({"steps": 5, "momentum": -0.1}, "momentum=-0.1"),
    ],
)
def test_arguments_that_make_no_sense_say_what_to_write(options, message):
    with pytest.raises(InvalidArgument, match=message):
        train(Bowl([1.0]), torch.ones(1), **options)


def test_weights_must_be_a_finite_point_of_the_space():
    with pytest.raises(InvalidWeights, match="shape"):
        train(Bowl([1.0]), torch.ones(2), steps=1)
    with pytest.raises(InvalidWeights, match="NaN"):
        train(Bowl([1.0]), torch.tensor([math.nan]), steps=1)


def test_zero_error_is_refused_for_a_regression():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(3, 1)
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (x, x[:, :1])))
    with pytest.raises(NotDefined, match="stop_loss"):
        train(risk, risk.space.pack(model), epochs=1, stop_error=0.0)


def test_a_trajectory_belongs_to_one_training(tmp_path):
    bowl, w0 = Bowl([1.0]), torch.ones(1).double()
    train(bowl, w0, steps=3, lr=0.1, run=tmp_path / "run")
    with pytest.raises(RunConflict, match=r"lr: got 0\.2, expected 0\.1"):
        train(bowl, w0, steps=3, lr=0.2, run=tmp_path / "run")
    with pytest.raises(RunConflict, match="w0"):
        train(bowl, 2 * w0, steps=3, lr=0.1, run=tmp_path / "run")
    with pytest.raises(RunConflict, match="another name"):
        train(bowl, w0, steps=3, lr=0.1, run=tmp_path / "run", resume=False)


@pytest.mark.parametrize("name", ["rmsprop", "AdamW", "nadam", "adagrad"])
def test_other_optimizers_of_torch_take_their_own_steps(name):
    bowl = Quadratic(torch.linspace(1, 4, 5, dtype=torch.float64))
    w = (bowl.centre + 1.0).clone()
    found = train(bowl, w, optimizer=name, lr=0.01, schedule="constant", steps=7).w
    kind = {k.lower(): v for k, v in vars(torch.optim).items()}[name.lower()]
    optimizer = kind([w], lr=0.01, weight_decay=0.0)
    for _ in range(7):
        w.grad = bowl.gradient(w)
        optimizer.step()
    torch.testing.assert_close(found, w, rtol=1e-12, atol=0)


def test_optimizers_that_cannot_are_refused():
    bowl = Quadratic(torch.ones(2, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match="'lbfgs'; write one of 'sgd'"):
        train(bowl, bowl.centre, optimizer="lbfgs", lr=0.1, steps=1)
    with pytest.raises(InvalidArgument, match="takes no momentum"):
        train(bowl, bowl.centre, optimizer="adagrad", lr=0.1, momentum=0.9, steps=1)
