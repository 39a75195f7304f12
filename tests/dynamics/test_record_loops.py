"""Loops of all kinds: their steps are counted, their training is unchanged and resumes exactly."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from thalweg.dynamics import record
from thalweg.dynamics.optimizer_steps import Rounds
from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.run import describe_checkpoint, open_run, read_checkpoint

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def network():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)
    )


def loss_of(model):
    rows = torch.randint(0, 64, (16,))
    return nn.functional.cross_entropy(model(X[rows]), Y[rows])


def backward(model, scale=1.0):
    model.zero_grad()
    (scale * loss_of(model)).backward()


@dataclass
class Training:
    """A model, all that has a state, and one step of its loop."""

    model: nn.Module
    optimizers: Any
    step: Callable[[int], None]
    marks: bool = False
    skipped: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def plain_step(model, optimizer):
    def step(number):
        backward(model)
        optimizer.step()

    return step


def adversarial(order=(0, 1), critic_steps=1):
    generator, critic = nn.Linear(3, 5), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    of_critic = torch.optim.RMSprop(critic.parameters(), lr=0.01, momentum=0.5)
    model = nn.ModuleDict({"generator": generator, "critic": critic})

    def step(number):
        for _ in range(critic_steps):
            fake = generator(torch.randn(16, 3)).detach()
            model.zero_grad()
            (critic(fake).mean() - critic(X[:16]).mean()).backward()
            of_critic.step()
            with torch.no_grad():
                for weight in critic.parameters():
                    weight.clamp_(-0.1, 0.1)
        model.zero_grad()
        (-critic(generator(torch.randn(16, 3))).mean()).backward()
        of_generator.step()

    both = (of_critic, of_generator)
    return Training(model, [both[i] for i in order], step)


def several_critic_steps():
    training = adversarial(critic_steps=3)
    training.marks, training.options = True, {"by_hand": True}
    return training


def closure():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def evaluate():
        backward(model)
        return loss_of(model)

    return Training(model, optimizer, lambda number: optimizer.step(evaluate))


class SharpnessAware(torch.optim.Optimizer):
    """As it is commonly written: an inner optimizer with the same parameter groups."""

    def __init__(self, parameters, rho=0.05):
        super().__init__(parameters, {"rho": rho})
        self.base = torch.optim.SGD(self.param_groups, lr=0.1, momentum=0.9)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["home"] = weight.data.clone()
                weight.add_(group["rho"] * weight.grad / (weight.grad.norm() + 1e-12))

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data = self.state[weight]["home"]
        self.base.step()

    @torch.no_grad()
    def step(self, closure):
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


def sharpness_aware(by_closure):
    model = network()
    optimizer = SharpnessAware(model.parameters())

    def step(number):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + number)
        backward(model)
        if by_closure:
            optimizer.step(lambda: backward(model))
        else:
            optimizer.first_step()
            backward(model)
            optimizer.second_step()

    return Training(model, optimizer, step)


def by_hand(write_behind):
    model = network()

    def step(number):
        backward(model)
        with torch.no_grad():
            for weight in model.parameters():
                if write_behind:
                    weight.data -= 0.1 * weight.grad
                else:
                    weight.sub_(0.1 * weight.grad)

    return Training(model, None, step, marks=True)


def scaled(fused):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    skipped = (0, 4, 5)

    def step(number):
        model.zero_grad()
        loss = loss_of(model) * (torch.inf if number in skipped else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return Training(model, [optimizer, scaler], step, skipped=skipped)


def scheduled():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=12)

    def step(number):
        backward(model)
        optimizer.step()
        schedule.step()

    return Training(model, (optimizer, schedule), step)


class Joined:
    """Several optimizers behind one, which is no torch optimizer itself."""

    def __init__(self, *optimizers):
        self.optimizers = list(optimizers)

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self):
        return {"states": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state):
        for each, own in zip(self.optimizers, state["states"], strict=True):
            each.load_state_dict(own)


def joined():
    model = network()
    optimizer = Joined(
        torch.optim.Adam(model[0].parameters()),
        torch.optim.SGD([*model[1].parameters(), *model[4].parameters()], lr=0.1, momentum=0.9),
    )
    return Training(model, optimizer, plain_step(model, optimizer))


def one_for_each_weight():
    model = network()
    optimizers = {p: torch.optim.Adam([p]) for p in model.parameters()}

    def step(number):
        for weight in model.parameters():
            weight.grad = None
        loss_of(model).backward()

    def at_once(weight):
        optimizers[weight].step()

    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(at_once)
    return Training(model, list(optimizers.values()), step)


def shared_encoder():
    model = nn.ModuleDict({"body": nn.Linear(5, 4), "a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})
    heads = [
        torch.optim.Adam([*model["body"].parameters(), *model[name].parameters()])
        for name in ("a", "b")
    ]

    def step(number):
        for name, optimizer in zip("ab", heads, strict=True):
            model.zero_grad()
            nn.functional.cross_entropy(model[name](model["body"](X)), Y).backward()
            optimizer.step()

    return Training(model, heads, step)


def unfreezing():
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(
        [{"params": [*model[1].parameters()]}, {"params": [*model[4].parameters()], "lr": 0.05}]
    )

    def step(number):
        if number == 4:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": [*model[0].parameters()], "lr": 0.02})
        if number == 7:
            model[4].requires_grad_(False)
        for weight in model.parameters():
            weight.grad = None
        loss_of(model).backward()
        optimizer.step()

    return Training(model, optimizer, step)


class Growing(nn.Module):
    """A memory of all that was seen, empty at first, and state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.line, self.about = nn.Linear(5, 2), {"calls": 0, "mean": torch.zeros(5)}
        self.register_buffer("memory", None)
        self.register_buffer("last", torch.zeros(0, 5))

    def get_extra_state(self):
        return self.about

    def set_extra_state(self, state):
        self.about = state

    def forward(self, inputs):
        self.about["calls"] += 1
        self.about["mean"] += inputs.mean(0)
        self.last = inputs[: self.about["calls"]].clone()
        new = inputs.mean(0, keepdim=True)
        self.memory = new if self.memory is None else torch.cat([self.memory, new])
        return self.line(inputs + self.memory.mean(0)) / self.about["calls"]


def growing():
    model = Growing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Training(model, optimizer, plain_step(model, optimizer))


def sparse_gradients():
    model = nn.Sequential(nn.EmbeddingBag(20, 4, sparse=True), nn.Linear(4, 2))
    optimizers = [
        torch.optim.SparseAdam(model[0].parameters()),
        torch.optim.Adam(model[1].parameters()),
    ]

    def step(number):
        model.zero_grad()
        tokens = torch.randint(0, 20, (16, 3))
        nn.functional.cross_entropy(model(tokens), Y[:16]).backward()
        for optimizer in optimizers:
            optimizer.step()

    return Training(model, optimizers, step)


def parametrized():
    model = network()
    nn.utils.parametrizations.spectral_norm(model[0])
    nn.utils.parametrizations.weight_norm(model[4])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Training(model, optimizer, plain_step(model, optimizer))


class Fourier(nn.Module):
    """Complex weights and buffers of single and double precision, and a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.onefold = nn.Parameter(torch.randn(5, 3, dtype=torch.complex64))
        self.twofold = nn.Parameter(torch.randn(3, 2, dtype=torch.complex128))
        self.brain = nn.Parameter(torch.randn(2, dtype=torch.bfloat16))
        self.register_buffer("phase", torch.randn(3, dtype=torch.complex128))
        self.register_buffer("graph", torch.eye(5).to_sparse())
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("view", torch.arange(6).reshape(2, 3).T)

    def forward(self, inputs):
        mixed = torch.sparse.mm(self.graph, inputs.T).T.to(torch.complex64) @ self.onefold
        return ((mixed * self.phase) @ self.twofold).real.float() + self.brain.float()


def fourier():
    model = Fourier()
    optimizer = torch.optim.Adam(model.parameters())
    return Training(model, optimizer, plain_step(model, optimizer))


def wrapped():
    model = nn.DataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Training(model, optimizer, plain_step(model, optimizer))


KINDS = {
    "adversarial": adversarial,
    "adversarial, listed the other way": lambda: adversarial(order=(1, 0)),
    "several critic steps, marked": several_critic_steps,
    "closure": closure,
    "sharpness-aware, two calls": lambda: sharpness_aware(False),
    "sharpness-aware, closure": lambda: sharpness_aware(True),
    "by hand": lambda: by_hand(False),
    "by hand, behind autograd": lambda: by_hand(True),
    "gradient scaler": lambda: scaled(False),
    "gradient scaler, fused": lambda: scaled(True),
    "scheduler": scheduled,
    "joined optimizers": joined,
    "an optimizer for each weight": one_for_each_weight,
    "two optimizers, shared weights": shared_encoder,
    "unfreezing": unfreezing,
    "growing buffers, extra state": growing,
    "sparse gradients": sparse_gradients,
    "parametrized": parametrized,
    "every kind of tensor": fourier,
    "wrapped": wrapped,
}
STEPS = 10


def make(kind):
    torch.manual_seed(11)
    return KINDS[kind]()


def run_loop(training, recorder=None, begin=0, until=STEPS):
    for number in range(begin, until):
        training.step(number)
        if recorder is not None:
            recorder.log(loss=number)
            if training.marks:
                recorder.mark()


def recorded(training, path, **options):
    return record(training.model, training.optimizers, run=path, **training.options, **options)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.to_dense(), other.to_dense())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def steps(path, trajectory="main"):
    return [int(file.stem) for file in open_run(path).checkpoints(trajectory)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_counted_and_the_training_unchanged(kind, tmp_path, caplog):
    plain = make(kind)
    run_loop(plain)
    training = make(kind)
    with recorded(training, tmp_path / "run", every=2) as recorder:
        run_loop(training, recorder)
    assert same(plain.model.state_dict(), training.model.state_dict())
    taken = STEPS - len(training.skipped)
    assert recorder.step == taken
    assert steps(tmp_path / "run") == sorted({*range(0, taken + 1, 2), taken})
    assert not caplog.messages


@pytest.mark.parametrize("cut", [3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_every_loop_resumes_exactly(kind, cut, tmp_path):
    whole = make(kind)
    run_loop(whole)

    broken = make(kind)
    with recorded(broken, tmp_path / "run", every=1) as recorder:
        run_loop(broken, recorder, until=cut)

    resumed = make(kind)
    torch.manual_seed(0)
    with recorded(resumed, tmp_path / "run", every=1) as recorder:
        taken = recorder.restore()
        assert taken == cut - len([number for number in resumed.skipped if number < cut])
        run_loop(resumed, recorder, begin=cut)
    assert same(whole.model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "scaler" not in kind])
def test_a_loop_that_was_killed_resumes_exactly_from_any_step(kind, tmp_path):
    whole = make(kind)
    with recorded(whole, tmp_path / "run", every=1) as recorder:
        run_loop(whole, recorder)
    for taken in range(STEPS - 1, 0, -1):
        open_run(tmp_path / "run").checkpoints()[-1].unlink()
        resumed = make(kind)
        with recorded(resumed, tmp_path / "run", every=100) as recorder:
            assert recorder.restore() == taken
            run_loop(resumed, recorder, begin=taken)
        assert same(whole.model.state_dict(), resumed.model.state_dict()), taken
        open_run(tmp_path / "run").checkpoints()[-1].unlink()


def test_a_resume_in_the_middle_of_an_epoch_of_unfreezing_knows_what_is_trained(tmp_path):
    training = make("unfreezing")
    with recorded(training, tmp_path / "run", every=1) as recorder:
        run_loop(training, recorder, until=8)
    again = make("unfreezing")
    with recorded(again, tmp_path / "run") as recorder:
        recorder.restore()
    trained = [name for name, p in again.model.named_parameters() if p.requires_grad]
    assert trained == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [group["lr"] for group in again.optimizers.param_groups] == [0.001, 0.05, 0.02]


def test_a_metric_belongs_to_the_step_it_was_logged_after(tmp_path):
    training = make("adversarial")
    with recorded(training, tmp_path / "run", every=1) as recorder:
        recorder.log(loss=-1)
        run_loop(training, recorder)
    for path in open_run(tmp_path / "run").checkpoints():
        about = describe_checkpoint(path)
        assert about["loss"] == about["step"] - 1
    events = open_run(tmp_path / "run").events()
    assert [(event["step"], event["loss"]) for event in events] == [(i, i - 1) for i in range(11)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_more_steps_of_one_optimizer_make_more_rounds(order, tmp_path):
    torch.manual_seed(0)
    training = adversarial(order, critic_steps=5)
    with recorded(training, tmp_path / "run", every=5) as recorder:
        run_loop(training, recorder, until=4)
    assert recorder.step == 20 and steps(tmp_path / "run") == [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    ("turns", "rounds"),
    [
        ("ab" * 10, 10),
        ("ba" * 10, 10),
        ("aaaaab" * 3, 15),
        ("abb" * 4, 8),
        ("a" * 5 + "ab" * 5, 10),
        ("ab" * 5 + "b" * 5, 10),  # from the sixth on the first is skipped
        ("ab" * 3 + "b" + "ab" * 3, 7),
        ("abc" * 4 + "ac" * 2 + "abc", 7),
        ("aaaaabbbbb", 10),
        ("aabbabab", 6),
        ("abbbabbb", 6),
        ("ababab" + "cc" + "abc" * 2, 7),
        ("a", 1),
        ("ab", 1),
        ("aab", 2),
    ],
)
def test_rounds_of_several_optimizers(turns, rounds):
    count, begun = Rounds(len(set(turns))), 0
    for who in turns:
        begun += count.took_over(ord(who)) + count.begins(ord(who))
        count.add(ord(who))
    assert begun == rounds


def test_one_optimizer_that_takes_over_from_another_misses_no_step(tmp_path):
    def make_model():
        torch.manual_seed(5)
        model = network()
        head = torch.optim.SGD(model[4].parameters(), lr=0.1, momentum=0.9)
        body = torch.optim.Adam([*model[0].parameters(), *model[1].parameters()])
        return model, [head, body]

    def loop(model, optimizers, recorder=None, begin=0):
        for number in range(begin, 8):
            backward(model)
            optimizers[number >= 4].step()
            if recorder is not None:
                recorder.log(loss=number)

    whole, optimizers = make_model()
    with record(whole, optimizers, run=tmp_path / "run", every=1) as recorder:
        loop(whole, optimizers, recorder)
    assert recorder.step == 8 and steps(tmp_path / "run") == list(range(9))
    for taken in range(7, 0, -1):
        open_run(tmp_path / "run").checkpoints()[-1].unlink()
        model, optimizers = make_model()
        with record(model, optimizers, run=tmp_path / "run", every=100) as recorder:
            assert recorder.restore() == taken
            loop(model, optimizers, recorder, begin=taken)
        assert same(model.state_dict(), whole.state_dict()), taken
        open_run(tmp_path / "run").checkpoints()[-1].unlink()


def test_an_optimizer_of_the_model_s_other_weights_is_not_passed_over_in_silence(tmp_path, caplog):
    torch.manual_seed(0)
    model = network()
    head = torch.optim.SGD(model[4].parameters(), lr=0.1)
    body = torch.optim.Adam(model[0].parameters())
    elsewhere = torch.optim.SGD(nn.Linear(2, 2).parameters())
    with record(model, head, run=tmp_path / "run") as recorder:
        for optimizer in (head, head, body, body, elsewhere):
            plain_step(model, optimizer)(0)
    (message,) = caplog.messages
    assert "Adam" in message and "not counted" in message and "recorder.mark()" in message
    assert recorder.step == 2
    caplog.clear()
    with record(model, None, run=tmp_path / "run", trajectory="marked") as recorder:
        for _ in range(3):
            plain_step(model, body)(0)
            recorder.mark()
    assert recorder.step == 3 and not caplog.messages


def test_a_round_that_breaks_between_its_optimizers_is_not_kept(tmp_path):
    training = make("adversarial")
    critic = training.optimizers[0]
    with (
        pytest.raises(KeyboardInterrupt),
        recorded(training, tmp_path / "run", every=100) as recorder,
    ):
        run_loop(training, recorder, until=4)
        critic.step()
        raise KeyboardInterrupt
    assert recorder.step == 5 and steps(tmp_path / "run") == [0]

    with (
        pytest.raises(KeyboardInterrupt),
        recorded(training, tmp_path / "other", every=100) as recorder,
    ):
        run_loop(training, recorder, until=4)
        raise KeyboardInterrupt
    assert steps(tmp_path / "other") == [0, 4]


@pytest.mark.parametrize("kind", ["adversarial", "sharpness-aware, closure", "closure"])
def test_a_step_whose_error_is_caught_hides_none_of_the_next(kind, tmp_path):
    training = make(kind)
    optimizer = training.optimizers
    optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
    with recorded(training, tmp_path / "run", every=1) as recorder:
        run_loop(training, recorder, until=2)
        handle = optimizer.register_step_pre_hook(fail)
        with pytest.raises(MemoryError):
            training.step(2)
        handle.remove()
        run_loop(training, recorder, begin=2, until=5)
    assert recorder.step == 5 and steps(tmp_path / "run") == [0, 1, 2, 3, 4, 5]


def fail(*_):
    raise MemoryError


def test_an_optimizer_that_takes_another_s_place_is_counted_and_named(tmp_path, caplog):
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with record(model, optimizer, run=tmp_path / "run", every=1) as recorder:
        for number in range(6):
            if number == 3:
                optimizer = torch.optim.Adam(model.parameters())
            plain_step(model, optimizer)(number)
            other.step()
    assert recorder.step == 6 and steps(tmp_path / "run") == list(range(7))
    (message,) = caplog.messages
    assert "Adam" in message and "not given" in message


class Unseen(torch.optim.Optimizer):
    """Sharpness-aware and written out by hand: ``step`` is called nowhere."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def first_step(self):
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["way"] = 0.05 * weight.grad
            weight.add_(self.state[weight]["way"])

    @torch.no_grad()
    def second_step(self):
        for weight in self.param_groups[0]["params"]:
            weight.sub_(self.state[weight]["way"]).sub_(0.1 * weight.grad)


@pytest.mark.parametrize("logs", [True, False])
def test_steps_that_are_not_seen_are_said_and_marks_count_them(logs, tmp_path, caplog):
    def loop(recorder, mark):
        for _ in range(10):
            backward(model)
            optimizer.first_step()
            backward(model)
            optimizer.second_step()
            if logs:
                recorder.log(loss=1.0)
            if mark:
                recorder.mark()

    torch.manual_seed(0)
    model = network()
    optimizer = Unseen(model.parameters())
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        loop(recorder, False)
    assert recorder.step == 0 and steps(tmp_path / "run") == [0]
    assert len(caplog.messages) == 1 + logs
    assert all("recorder.mark()" in message for message in caplog.messages)
    caplog.clear()
    with record(model, optimizer, run=tmp_path / "run", every=2, trajectory="marked") as recorder:
        loop(recorder, True)
    assert recorder.step == 10 and steps(tmp_path / "run", "marked") == [0, 2, 4, 6, 8, 10]
    assert not caplog.messages


def test_weights_changed_by_hand_after_the_optimizer_s_last_step_are_noticed(tmp_path, caplog):
    training = make("scheduler")
    with recorded(training, tmp_path / "run") as recorder:
        run_loop(training, recorder, until=3)
        for _ in range(3):
            backward(training.model)
            with torch.no_grad():
                for weight in training.model.parameters():
                    weight.sub_(0.1 * weight.grad)
            recorder.log(loss=1.0)
    (message,) = caplog.messages
    assert "counted: 3" in message and "recorder.mark()" in message


def test_evaluating_averaged_weights_is_no_unseen_step(tmp_path, caplog):
    training = make("wrapped")
    average = torch.optim.swa_utils.AveragedModel(training.model.module)
    with recorded(training, tmp_path / "run") as recorder:
        for number in range(5):
            training.step(number)
            recorder.log(loss=1.0)
            average.update_parameters(training.model.module)
            own = copy.deepcopy(training.model.module.state_dict())
            training.model.module.load_state_dict(average.module.state_dict())
            recorder.log(averaged=1.0)
            training.model.module.load_state_dict(own)
            recorder.log(again=1.0)
    assert recorder.step == 5 and not caplog.messages


def test_nothing_is_said_where_nothing_was_trained(tmp_path, caplog):
    training = make("wrapped")
    with recorded(training, tmp_path / "run") as recorder:
        recorder.log(loss=loss_of(training.model))
    assert steps(tmp_path / "run") == [0] and not caplog.messages
    assert describe_checkpoint(open_run(tmp_path / "run").checkpoints()[0])["loss"] > 0


def test_a_mark_behind_each_optimizer_step_counts_once(tmp_path, caplog):
    training = make("scheduler")
    training.marks = True
    with recorded(training, tmp_path / "run", every=2) as recorder:
        run_loop(training, recorder)
    assert recorder.step == 10 and steps(tmp_path / "run") == [0, 2, 4, 6, 8, 10]
    assert not caplog.messages


def test_marks_that_come_late_count_from_there_on_and_that_is_said(tmp_path, caplog):
    training = make("scheduler")
    with recorded(training, tmp_path / "run", every=2) as recorder:
        run_loop(training, recorder, until=4)
        recorder.mark()
        assert recorder.step == 4
        training.marks = True
        run_loop(training, recorder, begin=4, until=6)
    assert recorder.step == 6
    (message,) = caplog.messages
    assert "4 steps" in message and "by_hand=True" in message


def test_checkpoints_of_wrapped_models_fit_the_plain_one(tmp_path):
    torch.manual_seed(0)
    plain = network()
    inner = nn.Sequential(nn.DataParallel(plain[0]), *plain[1:])
    average = torch.optim.swa_utils.AveragedModel(plain)
    compiled = torch.compile(plain, backend="eager")
    part = nn.Sequential(*plain[:4], torch.compile(plain[4], backend="eager"))
    models = {"wrapped": nn.DataParallel(plain), "inner": inner, "compiled": compiled, "part": part}
    for name, model in {**models, "average": average}.items():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record(model, optimizer, run=tmp_path / "run", trajectory=name):
            pass
        tensors, about = read_checkpoint(open_run(tmp_path / "run").checkpoints(name)[0])
        own = {key: t for key, t in tensors.items() if not key.startswith("thalweg/")}
        assert own.keys() - {"n_averaged"} == plain.state_dict().keys(), name
        assert about["parameters"] == [key for key, _ in plain.named_parameters()], name
        other = network()
        other.load_state_dict({key: t for key, t in own.items() if key != "n_averaged"})
        assert same(other.state_dict(), plain.state_dict())


def test_a_child_called_module_keeps_its_name(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    with record(model, torch.optim.SGD(model.parameters()), run=tmp_path / "run"):
        pass
    tensors, _ = read_checkpoint(open_run(tmp_path / "run").checkpoints()[0])
    assert "module.weight" in tensors


def test_layers_that_are_made_by_the_first_batch(tmp_path, caplog):
    def lazy():
        torch.manual_seed(3)
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(2))

    model = lazy()
    optimizer = torch.optim.Adam(model.parameters())
    with record(model, optimizer, run=tmp_path / "run", every=2) as recorder:
        for number in range(5):
            plain_step(model, optimizer)(number)
            recorder.log(loss=1.0)
    assert steps(tmp_path / "run") == [0, 2, 4, 5] and not caplog.messages
    again = lazy()
    with record(again, torch.optim.Adam(again.parameters()), run=tmp_path / "run") as recorder:
        assert recorder.restore() == 5
    assert same(again.state_dict(), model.state_dict())


def test_weights_that_the_state_dict_leaves_out_are_kept(tmp_path):
    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.adapter = nn.Linear(5, 4).requires_grad_(False), nn.Linear(4, 2)

        def forward(self, inputs):
            return self.adapter(self.base(inputs))

        def state_dict(self, *arguments, **options):
            state = super().state_dict(*arguments, **options)
            return {name: value for name, value in state.items() if "adapter" in name}

    torch.manual_seed(0)
    model = Adapter()
    with record(model, torch.optim.SGD(model.parameters()), run=tmp_path / "run"):
        pass
    other = Adapter()
    other.load_state_dict = lambda state: nn.Module.load_state_dict(other, state, strict=False)
    with record(other, torch.optim.SGD(other.parameters()), run=tmp_path / "run") as recorder:
        recorder.restore()
    assert torch.equal(other.base.weight, model.base.weight)
    assert torch.equal(other.adapter.weight, model.adapter.weight)


def test_other_optimizers_than_were_recorded_are_refused(tmp_path):
    training = make("adversarial")
    with recorded(training, tmp_path / "run") as recorder:
        run_loop(training, recorder, until=1)
    with (
        pytest.raises(CheckpointMismatch, match=r"states of RMSprop, Adam1, and got RMSprop"),
        record(training.model, training.optimizers[0], run=tmp_path / "run") as recorder,
    ):
        recorder.restore()


@pytest.mark.parametrize(
    ("model", "optimizer", "message"),
    [
        ([nn.Linear(2, 2)], None, "ModuleDict"),
        (nn.Linear(2, 2), "adam", "got a str"),
        (nn.Linear(2, 2), {"a": None}, "got a str"),
        (nn.Linear(2, 2), nn.Linear(2, 2), "got a Linear"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_the_loop(model, optimizer, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        record(model, optimizer, run=tmp_path / "run")


def test_an_optimizer_of_other_weights_is_said(tmp_path, caplog):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters())
    record(nn.Linear(2, 2), optimizer, run=tmp_path / "run")
    assert "none of the model's weights" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_only_the_first_process_of_a_distributed_training_records(tmp_path, monkeypatch, caplog):
    training = make("wrapped")
    with recorded(training, tmp_path / "run", every=2) as recorder:
        run_loop(training, recorder, until=4)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    other = make("wrapped")
    with recorded(other, tmp_path / "run", every=1) as recorder:
        assert recorder.restore() == 4
        run_loop(other, recorder, begin=4)
    assert recorder.step == 10 and steps(tmp_path / "run") == [0, 2, 4]
    again = make("wrapped")
    with recorded(again, tmp_path / "run", every=1) as recorder:
        run_loop(again, recorder)
    assert recorder.step == 10 and open_run(tmp_path / "run").trajectories() == ["main"]
    assert not caplog.messages
