"""Samples that count differently: the risk is the loss on everything at once, in any batches."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thalweg.errors import DependsOnBatches, InvalidProblem, NotDefined
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.risk.batched_models import Request
from thalweg.risk.per_sample import PerSample

N = 30


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


class Tagger(nn.Module):
    """Token by token; a loss that forgets which tokens are padding is far off."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.last = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        return self.last(torch.tanh(self.mix(h + h.mean(1, keepdim=True)))).transpose(1, 2)


def labels(ignored: int = -100, width: torch.dtype = torch.int64) -> Tensor:
    found = torch.randint(0, 4, (N, 6))
    for i in range(N):
        found[i, 1 + i % 6 :] = ignored
    found[4] = ignored  # a sample without any token
    return found.to(width)


def tagging(criterion, targets):
    return Tagger().double(), criterion, (torch.randint(0, 7, (N, 6)), targets)


def classes(criterion, width=torch.int64):
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    targets = torch.randint(0, 3, (N,))
    targets[:3] = torch.arange(3)
    return model, criterion, (torch.randn(N, 5, dtype=torch.float64), targets.to(width))


def pixels(criterion):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)).double()
    targets = torch.randint(0, 3, (N, 5, 5))
    targets[:, :2] = 255
    targets[7:9] = 255
    return model, criterion, (torch.randn(N, 2, 5, 5, dtype=torch.float64), targets.to(torch.uint8))


W3 = torch.tensor([1.0, 5.0, 20.0])
KINDS = {
    "class weights": lambda: classes(nn.CrossEntropyLoss(weight=W3)),
    "class weights, smoothed": lambda: classes(
        nn.CrossEntropyLoss(weight=W3, label_smoothing=0.1), torch.int16
    ),
    "a class of no weight": lambda: classes(nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1, 2]))),
    "an ignored class": lambda: classes(nn.CrossEntropyLoss(ignore_index=1), torch.int32),
    "padded tokens": lambda: tagging(nn.CrossEntropyLoss(), labels()),
    "padded tokens, class weights": lambda: tagging(
        partial(F.cross_entropy, weight=torch.tensor([1.0, 2, 3, 4])), labels(width=torch.int8)
    ),
    "pixels": lambda: pixels(nn.CrossEntropyLoss(ignore_index=255)),
}


def plain(model, criterion, data, w, space):
    """The user's criterion on everything at once, at ``w``."""
    criterion = nn.Module.double(criterion) if isinstance(criterion, nn.Module) else criterion
    if isinstance(criterion, partial):
        keywords = {
            k: v.double() if isinstance(v, Tensor) else v for k, v in criterion.keywords.items()
        }
        criterion = partial(criterion.func, **keywords)
    outputs = torch.func.functional_call(model, space.unpack(w), (data[0],))
    return criterion(outputs, data[1].long())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 4, 7, N])
def test_the_risk_is_the_loss_on_everything_at_once(kind: str, size: int) -> None:
    model, criterion, data = seeded(KINDS[kind])
    risk = EmpiricalRisk(
        Problem(model, criterion, data), dtype=torch.float64, batch_size=size, batchnorm="frozen"
    )
    w = risk.space.pack(model).clone().requires_grad_()
    expected = plain(model, criterion, data, w, risk.space)
    (slope,) = torch.autograd.grad(expected, w)
    w, expected = w.detach(), expected.detach()
    value, gradient = risk.value_and_gradient(w)
    assert value == pytest.approx(float(expected), rel=1e-11)
    assert risk.value(w) == pytest.approx(float(expected), rel=1e-11)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    # The mean of what instruments average is the value, sample by sample as well.
    assert float(risk.sample_losses(w).mean()) == pytest.approx(value, rel=1e-11)
    assert float(risk.evaluate_samples(w)["loss"].mean()) == pytest.approx(value, rel=1e-11)
    drawn = PerSample(risk, torch.arange(N))
    losses = drawn.measures(drawn.features(w)[None])["loss"]
    torch.testing.assert_close(losses[0], risk.sample_losses(w))


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_differences_of_gradients(kind: str) -> None:
    model, criterion, data = seeded(KINDS[kind])
    risk = EmpiricalRisk(Problem(model, criterion, data), dtype=torch.float64, batch_size=14)
    w = risk.space.pack(model)
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = 1e-5
    difference = (risk.gradient(w + h * v) - risk.gradient(w - h * v)) / (2 * h)
    for method in ("graph", "trace", "recompute"):
        product = risk.hessian(w, method=method) @ v
        torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)
    # J' B J by its factors, whose weights are those of the risk.
    operator = risk.gauss_newton(w)
    factors = operator.jacobian.T @ (operator.loss_hessian @ (operator.jacobian @ v))
    torch.testing.assert_close(operator @ v, factors, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_descends_what_torchs_criterion_is_on_its_batch(kind: str) -> None:
    model, criterion, data = seeded(KINDS[kind])
    risk = EmpiricalRisk(Problem(model, criterion, data), dtype=torch.float64)
    w = risk.space.pack(model)
    batch = torch.tensor([3, 1, 20, 4, 11])
    at = w.clone().requires_grad_()
    expected = plain(model, criterion, (data[0][batch], data[1][batch]), at, risk.space)
    (slope,) = torch.autograd.grad(expected, at)
    loss, gradient = risk.value_and_gradient(w, batch)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-11)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    pair = [torch.tensor([0, 9]), torch.tensor([3, 5])]
    copies = risk.copies(2)
    copies.prepare([Request(i, w, pair[i]) for i in range(2)])
    for i, member in enumerate(copies.members):
        loss, _, gradient = member.batch_gradient(w, pair[i])
        alone = risk.value_and_gradient(w, pair[i])
        assert float(loss) == pytest.approx(alone[0], rel=1e-11)
        torch.testing.assert_close(gradient, alone[1], rtol=1e-9, atol=1e-12)


def test_a_batch_in_which_nothing_counts_has_no_slope() -> None:
    model, criterion, data = seeded(KINDS["padded tokens"])
    risk = EmpiricalRisk(Problem(model, criterion, data), dtype=torch.float64)
    loss, gradient = risk.value_and_gradient(risk.space.pack(model), torch.tensor([4]))
    assert loss == 0 and bool((gradient == 0).all())


def test_the_error_leaves_ignored_samples_out() -> None:
    model, criterion, data = seeded(KINDS["an ignored class"])
    risk = EmpiricalRisk(Problem(model, criterion, data), dtype=torch.float64, batch_size=7)
    w = risk.space.pack(model)
    counted = data[1] != 1
    wrong = model(data[0]).argmax(1) != data[1]
    expected = float(wrong[counted].double().mean())
    assert risk.error(w) == pytest.approx(expected, rel=1e-12)
    each = risk.evaluate_samples(w)["error"]
    assert float(each.mean()) == pytest.approx(expected, rel=1e-12)
    assert bool((each[~counted] == 0).all())


def mean_of_tokens(model, batch):
    return F.cross_entropy(model(batch["ids"]), batch["labels"])


def tokens_of(batch):
    return (batch["labels"] != -100).sum()


@pytest.mark.parametrize("size", [3, 8, N])
def test_the_weights_of_a_loss_of_ones_own_are_given_by_the_problem(size: int) -> None:
    model, _, (ids, targets) = seeded(KINDS["padded tokens"])
    data = {"ids": ids, "labels": targets}
    risk = EmpiricalRisk(
        Problem(model, mean_of_tokens, data, weight=tokens_of),
        dtype=torch.float64,
        batch_size=size,
    )
    w = risk.space.pack(model)
    expected = float(mean_of_tokens(model, data).detach())
    value, gradient = risk.value_and_gradient(w)
    assert value == pytest.approx(expected, rel=1e-11)
    assert bool(gradient.isfinite().all())
    losses = risk.sample_losses(w)
    assert float(losses.mean()) == pytest.approx(expected, rel=1e-11) and float(losses[4]) == 0


def test_weights_of_samples_take_the_place_of_the_criterions_own() -> None:
    model, _, data = seeded(lambda: classes(None))
    importance = torch.linspace(0.1, 3, N, dtype=torch.float64)
    problem = Problem(
        model,
        lambda outputs, targets: F.cross_entropy(outputs, targets[:, 0].long(), reduction="none"),
        (data[0], torch.stack([data[1].double(), importance], 1)),
        weight=lambda batch: batch[1][:, 1],
        error=lambda outputs, targets: outputs.argmax(1) != targets[:, 0],
    )
    risk = EmpiricalRisk(problem, dtype=torch.float64, batch_size=7)
    w = risk.space.pack(model)
    losses = F.cross_entropy(model(data[0]), data[1], reduction="none").detach()
    expected = float((losses * importance).sum() / importance.sum())
    assert risk.value(w) == pytest.approx(expected, rel=1e-12)


def test_weights_that_do_not_add_up_are_refused() -> None:
    model, _, (ids, targets) = seeded(KINDS["padded tokens"])
    data = {"ids": ids, "labels": targets}
    with pytest.raises(DependsOnBatches, match=r"weight= depends on .* adds up"):
        EmpiricalRisk(Problem(model, mean_of_tokens, data, weight=lambda batch: 1.0))


def test_one_weight_for_many_losses_is_refused() -> None:
    model, _, data = seeded(lambda: classes(None))
    loss = partial(F.cross_entropy, reduction="none")
    problem = Problem(model, loss, data, weight=lambda batch: 3.0)
    with pytest.raises(InvalidProblem, match=r"one number for each sample, shape \(\d+,\)"):
        EmpiricalRisk(problem, batch_size=N).value(torch.zeros(57))


def test_data_of_which_nothing_counts_are_refused() -> None:
    model, criterion, (x, y) = seeded(KINDS["an ignored class"])
    problem = Problem(model, criterion, (x, torch.ones_like(y)))
    with pytest.raises(InvalidProblem, match=r"add up to 0.*all targets ignored"):
        EmpiricalRisk(problem).value(torch.zeros(57))


def sorted_classes():
    x, y = torch.randn(60, 5), torch.arange(3).repeat_interleave(20)
    criterion = nn.CrossEntropyLoss(weight=W3)
    return nn.Linear(5, 3), lambda model, batch: criterion(model(batch[0]), batch[1]), (x, y)


def late_padding():
    ids, targets = torch.randint(0, 7, (60, 6)), torch.randint(0, 4, (60, 6))
    for i in range(8, 60):
        targets[i, 1 + i % 5 :] = -100
    return Tagger(), lambda model, b: mean_of_tokens(model, b), {"ids": ids, "labels": targets}


def zero_at_w():
    model, x = nn.Linear(3, 1), torch.randn(60, 3)
    return (
        model,
        lambda outputs, targets: (outputs - targets).square().sum(),
        (x, model(x).detach()),
    )


def root_of_zero():
    model, x = nn.Linear(3, 1), torch.randn(60, 3)
    loss = lambda outputs, targets: (outputs - targets).square().mean().sqrt()  # noqa: E731
    return model, loss, (x, model(x).detach())


def last_samples_compared():
    x = torch.zeros(60, 3)
    x[40:] = torch.randn(20, 3)
    return nn.Linear(3, 2), lambda model, b: model(b["x"]).var(0).sum(), {"x": x}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sorted_classes, ["depends on how samples", "class weights", "weight=lambda"]),
        (late_padding, ["depends on how samples", "ignored tokens", "weight=lambda"]),
        (zero_at_w, ["sums over the samples", "loss.mean()"]),
        (root_of_zero, ["depends on how samples"]),
        (last_samples_compared, ["depends on how samples", "tw.Whole(data)", "tw.Batches"]),
    ],
)
def test_what_is_no_mean_is_noticed_where_the_first_samples_look_innocent(make, words) -> None:
    model, loss, data = seeded(make)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copies = [t.clone() for t in (data.values() if isinstance(data, dict) else data)]
    with pytest.raises(InvalidProblem) as caught:
        Problem(model, loss, data).samples("train")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    after = data.values() if isinstance(data, dict) else data
    assert all(torch.equal(a, b) for a, b in zip(copies, after, strict=True))


def test_integers_of_numpy_have_all_products() -> None:
    model, _, (x, y) = seeded(lambda: classes(None))
    expected = float(F.cross_entropy(model(x), y).detach())
    for width in (np.int32, np.int16, np.int8, np.uint8):
        problem = Problem(model, nn.CrossEntropyLoss(), (x.numpy(), y.numpy().astype(width)))
        risk = EmpiricalRisk(problem, dtype=torch.float64)
        w = risk.space.pack(model)
        assert risk.value(w) == pytest.approx(expected, rel=1e-12)
        assert bool((risk.gauss_newton(w) @ torch.ones_like(w)).isfinite().all())
        assert 0 <= risk.error(w) <= 1


def test_residuals_of_weighed_samples_are_refused() -> None:
    model, _, (x, _) = seeded(lambda: classes(None))
    data = (x, torch.zeros(N, 3, dtype=torch.float64))
    problem = Problem(model, nn.MSELoss(), data, weight=lambda batch: batch[0][:, 0].abs())
    risk = EmpiricalRisk(problem)
    with pytest.raises(NotDefined, match=r"samples count as the problem says \(weight=\)"):
        risk.residuals(risk.space.pack(model))
