"""The empirical risk against float64 autograd, closed forms and finite differences."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg.errors import (
    InvalidArgument,
    InvalidProblem,
    InvalidWeights,
    NotDefined,
    NotDeterministic,
)
from thalweg.landscape import Landscape
from thalweg.polynomial import PolynomialActivation, fit_polynomial
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk


def images(samples: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 2, 6, 6, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (samples,), generator=generator)


def network(*, batchnorm: bool = True, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(5)] if batchnorm else [nn.Identity()] * 2
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            norms[0],
            nn.Tanh(),
            nn.Conv2d(4, 5, 3, stride=2, padding=1),
            norms[1],
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(20, 3),
        )
        for norm in norms:
            for parameter in norm.parameters():
                nn.init.normal_(parameter, 1.0, 0.3)
            if batchnorm:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2.0)
    return model


def classification(*, batchnorm: bool = True, samples: int = 64, **kwargs: Any) -> Problem:
    return Problem(network(batchnorm=batchnorm), nn.CrossEntropyLoss(), images(samples), **kwargs)


def reference(problem: Problem, w: Tensor, risk: EmpiricalRisk, *, train_mode: bool) -> Tensor:
    """The same risk by plain autograd on one batch of all samples, in float64."""
    model = copy.deepcopy(problem.model).double().train(train_mode)
    inputs, targets = problem.train
    outputs = torch.func.functional_call(model, risk.space.unpack(w), (inputs,))
    return F.cross_entropy(outputs, targets)


MODES = [("batch", True), ("frozen", False), ("recalibrate", True)]


@pytest.mark.parametrize(("policy", "train_mode"), MODES)
def test_value_and_gradient_agree_with_float64_autograd(policy: str, train_mode: bool) -> None:
    problem = classification()
    risk = EmpiricalRisk(problem, batchnorm=policy, dtype=torch.float64, batch_size=17)
    w = risk.space.pack(problem.model.double()).requires_grad_()
    expected = reference(problem, w, risk, train_mode=train_mode)
    (gradient,) = torch.autograd.grad(expected, w)
    value, measured = risk.value_and_gradient(w.detach())
    assert value == pytest.approx(expected.item(), rel=1e-12)
    assert risk.value(w.detach()) == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(measured, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("policy", ["batch", "frozen", "recalibrate"])
def test_gradient_is_that_of_the_value_with_several_calibration_batches(policy: str) -> None:
    problem = classification(samples=520)
    risk = EmpiricalRisk(problem, batchnorm=policy, dtype=torch.float64, batch_size=100)
    w = risk.space.pack(problem.model).double()
    direction = torch.randn(w.shape, generator=torch.Generator().manual_seed(1)).double()
    h = 1e-5
    difference = (risk.value(w + h * direction) - risk.value(w - h * direction)) / (2 * h)
    assert float(risk.gradient(w) @ direction) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("policy", ["batch", "frozen", "recalibrate"])
def test_no_split_of_the_data_changes_a_result(policy: str) -> None:
    answers = []
    for size in (1, 7, 60, 64):
        problem = classification()
        risk = EmpiricalRisk(problem, batchnorm=policy, dtype=torch.float64, batch_size=size)
        w = risk.space.pack(problem.model).double()
        answers.append((risk.value(w), risk.error(w), risk.gradient(w)))
    for value, error, gradient in answers[1:]:
        assert value == pytest.approx(answers[0][0], rel=1e-12)
        assert error == answers[0][1]
        torch.testing.assert_close(gradient, answers[0][2], rtol=1e-9, atol=1e-13)


def test_a_loader_of_60_and_4_weighs_samples_not_batches() -> None:
    inputs, targets = images()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=60)
    from_loader = EmpiricalRisk(
        Problem(network(), nn.CrossEntropyLoss(), loader), dtype=torch.float64
    )
    whole = EmpiricalRisk(classification(), dtype=torch.float64)
    w = whole.space.pack(network()).double()
    assert from_loader.value(w) == pytest.approx(whole.value(w), rel=1e-12)


@pytest.mark.parametrize("policy", ["batch", "frozen", "recalibrate"])
def test_the_users_model_is_bit_identical_afterwards(policy: str) -> None:
    problem = classification(test=images(16, seed=1))
    problem.model.train()
    before = copy.deepcopy(problem.model.state_dict())
    risk = EmpiricalRisk(problem, batchnorm=policy)
    w = risk.space.pack(problem.model) + 0.1
    risk.evaluate(w), risk.gradient(w), risk.sample_losses(w), risk.on("test").evaluate(w)
    risk.batch_gradient(w, torch.arange(8))
    after = problem.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert problem.model.training and all(p.grad is None for p in problem.model.parameters())


def test_sample_losses_keep_the_order_and_average_to_the_value() -> None:
    problem = classification(batchnorm=False)
    risk = EmpiricalRisk(problem, dtype=torch.float64, batch_size=10)
    w = risk.space.pack(problem.model).double()
    inputs, targets = problem.train
    with torch.no_grad():
        expected = F.cross_entropy(problem.model.double()(inputs), targets, reduction="none")
    torch.testing.assert_close(risk.sample_losses(w), expected, rtol=1e-12, atol=1e-14)
    assert float(risk.sample_losses(w).mean()) == pytest.approx(risk.value(w), rel=1e-12)


def test_mini_batch_gradient_uses_the_batchs_own_statistics() -> None:
    problem = classification()
    risk = EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double().requires_grad_()
    batch = torch.tensor([3, 1, 4, 15, 9, 26, 5])
    model = copy.deepcopy(problem.model).double().train()
    inputs, targets = (part[batch] for part in problem.train)
    outputs = torch.func.functional_call(model, risk.space.unpack(w), (inputs,))
    loss = F.cross_entropy(outputs, targets)
    (expected,) = torch.autograd.grad(loss, w)
    measured_loss, wrong, gradient = risk.batch_gradient(w.detach(), batch)
    assert float(measured_loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    assert wrong is not None
    assert int(wrong) == int((outputs.argmax(1) != targets).sum())
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    running = risk.buffers()["1.running_mean"]
    torch.testing.assert_close(running, model[1].running_mean, rtol=1e-12, atol=1e-14)


def test_linear_regression_has_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    model = nn.Linear(4, 2, bias=False).double()
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (inputs, targets)), dtype=torch.float64)
    w = risk.space.pack(model)
    residuals = inputs @ w.view(2, 4).T - targets
    torch.testing.assert_close(risk.residuals(w), residuals)
    assert risk.value(w) == pytest.approx(float(residuals.square().mean()), rel=1e-12)
    gradient = 2 / 60 * residuals.T @ inputs
    torch.testing.assert_close(risk.gradient(w), gradient.reshape(-1), rtol=1e-12, atol=1e-14)
    with pytest.raises(NotDefined):
        EmpiricalRisk(
            Problem(nn.Linear(4, 1), nn.MSELoss(), (inputs.float(), targets[:, :1].float()))
        ).error(torch.zeros(5))


def test_zero_weights_give_the_entropy_of_the_uniform_guess() -> None:
    risk = EmpiricalRisk(classification(batchnorm=False))
    assert risk.value(torch.zeros(risk.space.size)) == pytest.approx(math.log(3), rel=1e-6)


def test_train_and_test_share_statistics_of_the_training_set() -> None:
    held_out = images(16, seed=1)
    problem = classification(test=held_out)
    risk = EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    model = copy.deepcopy(problem.model).double()
    for norm in (model[1], model[4]):
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(problem.train[0])
        for norm, factor in ((model[1], 64 * 9), (model[4], 64 * 4)):
            norm.running_var.mul_((factor - 1) / factor)  # torch stores the unbiased variance
        expected = F.cross_entropy(model.eval()(held_out[0]), held_out[1])
    assert risk.on("test").value(w) == pytest.approx(float(expected), rel=1e-10)
    assert risk.on("test").samples == 16 and risk.samples == 64


def test_float32_agrees_with_float64() -> None:
    problem = classification()
    single, double = (EmpiricalRisk(problem, dtype=d) for d in (torch.float32, torch.float64))
    w = single.space.pack(problem.model).float()
    assert single.value(w) == pytest.approx(double.value(w.double()), rel=1e-5)
    assert single.gradient(w).dtype == torch.float32


def test_a_risk_is_a_landscape_and_says_what_it_measures() -> None:
    risk = EmpiricalRisk(classification(), batchnorm="frozen")
    assert isinstance(risk, Landscape)
    assert risk.described["batchnorm"] == "batch-norm statistics frozen at the model's buffers"
    assert risk.described["dtype"] == "float32"
    assert 1 <= risk.batch_size <= 64


@pytest.mark.parametrize("inner", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_counted(inner: float) -> None:
    risk = EmpiricalRisk(classification())
    w = torch.zeros(risk.space.size)
    w[3] = inner
    with pytest.raises(InvalidWeights, match=r"1 of \d+ weights are NaN or infinite: 1 of \d+ in"):
        risk.value(w)


def test_a_noisy_model_is_refused() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * random.random()  # not torch's, which are held fixed

    problem = Problem(Noisy(2, 3), nn.CrossEntropyLoss(), (torch.ones(4, 2), torch.zeros(4).long()))
    with pytest.raises(NotDeterministic, match="the first samples gave two answers"):
        EmpiricalRisk(problem)


def test_dropout_in_train_mode_is_said_and_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    data = (torch.ones(4, 2), torch.zeros(4).long())
    with caplog.at_level(logging.WARNING, "thalweg"):
        risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), data))
    assert "1 (Dropout) is in train mode" in caplog.text
    w = risk.space.pack(model)
    assert risk.value(w) == risk.value(w)


def opaque(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_a_loss_of_model_and_batch_gives_the_same_risk() -> None:
    problem = classification(batchnorm=False)
    other = Problem(problem.model, opaque, problem.train)
    risk = EmpiricalRisk(problem, dtype=torch.float64)
    same = EmpiricalRisk(other, dtype=torch.float64, batch_size=10)
    w = risk.space.pack(problem.model).double()
    assert same.value(w) == pytest.approx(risk.value(w), rel=1e-12)
    torch.testing.assert_close(same.gradient(w), risk.gradient(w), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(same.sample_losses(w), risk.sample_losses(w), rtol=1e-10, atol=0)


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (
        lambda: EmpiricalRisk(classification(), batchnorm="eval"),
        InvalidArgument,
        "batchnorm='eval'; write one of 'batch', 'frozen', 'held', 'recalibrate'",
    ),
    (lambda: EmpiricalRisk(classification(), batch_size=0), InvalidArgument, "batch_size=0"),
    (lambda: EmpiricalRisk(classification(), split="test"), InvalidProblem, "test"),
]


@pytest.mark.parametrize(("call", "kind", "words"), BAD)
def test_bad_arguments_are_named(
    call: Callable[[], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_agrees_with_the_cpu() -> None:
    problem = classification()
    cpu, gpu = (EmpiricalRisk(problem, dtype=torch.float64, device=d) for d in ("cpu", "cuda"))
    w = cpu.space.pack(problem.model).double()
    assert gpu.value(w.cuda()) == pytest.approx(cpu.value(w), rel=1e-10)


def test_polynomial_activations_are_watched_in_training_steps_only() -> None:
    inputs = torch.tensor([[0.5], [3.0], [-1.0], [8.0]])
    layer = PolynomialActivation(fit_polynomial(torch.relu, 4, radius=2.0))
    linear = nn.Linear(1, 1, bias=False)
    problem = Problem(nn.Sequential(linear, layer), nn.MSELoss(), (inputs, torch.zeros(4, 1)))
    risk = EmpiricalRisk(problem)
    w = torch.ones(1)
    risk.value_and_gradient(w)
    assert risk.excursions()["1"].seen == 0
    risk.batch_gradient(w, torch.tensor([0, 1, 3]))
    seen = risk.excursions(reset=True)["1"]
    assert (seen.seen, seen.outside, seen.largest) == (3, 2, 8.0)
    assert risk.excursions()["1"].seen == 0
    assert layer.record is not None and layer.record.seen == 0
