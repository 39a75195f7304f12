"""Models that draw noise, as landscapes: one draw of each sample, at every w and in any batch."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw
from thalweg.errors import DependsOnBatches, InvalidArgument, NotDeterministic, ThalwegError
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.risk.batched_models import Request

N = 30


class Vae(nn.Module):
    """``repeats`` draws a sample, laid out as importance-weighted autoencoders do."""

    def __init__(self, layout: str = "rows") -> None:
        super().__init__()
        self.encode, self.decode, self.layout = nn.Linear(5, 4), nn.Linear(2, 5), layout

    def forward(self, x):
        mean, logvar = self.encode(x).chunk(2, 1)
        if self.layout == "in front":
            noise = torch.randn(3, *mean.shape, dtype=x.dtype)
        elif self.layout == "repeated":
            noise = torch.randn_like(mean.repeat(3, 1)).reshape(3, *mean.shape)
        elif self.layout == "interleaved":
            noise = torch.randn_like(mean.repeat_interleave(3, 0))
            noise = noise.reshape(len(x), 3, 2).transpose(0, 1)
        else:
            noise = torch.distributions.Normal(torch.zeros_like(mean), 1.0).rsample()[None]
        return self.decode(mean + noise * (logvar / 2).exp()), mean, logvar


def elbo(model, batch):
    again, mean, logvar = model(batch["x"])
    kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)
    return (again - batch["x"]).square().sum(2).mean(0) + kl


class Deep(nn.Module):
    """Leaves a layer out for some samples; that the first ones have it by chance shows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        keep = torch.rand(len(x), 1, device=x.device) < 0.95
        return self.last(x + keep * torch.tanh(self.first(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 6), nn.Linear(2, 3)

    def forward(self, x):
        q, k, v = self.first(x.unsqueeze(-1)).chunk(3, -1)
        return self.last(F.scaled_dot_product_attention(q, k, v, dropout_p=0.3).mean(1))


def diffusion(model, batch):
    """Denoise: a time and a noise are drawn for each sample."""
    x = batch["x"]
    left = 1 - torch.randint(0, 10, (len(x), 1)) / 10
    noise = torch.randn_like(x)
    return F.mse_loss(model(left.sqrt() * x + (1 - left).sqrt() * noise), noise)


class Noisy(nn.Module):
    """Adds noise to what is between its layers."""

    def __init__(self, kind: str = "rows") -> None:
        super().__init__()
        self.first, self.last, self.kind = nn.Linear(5, 30), nn.Linear(30, 3), kind

    def forward(self, x):
        h = torch.tanh(self.first(x))
        if self.kind == "dropout":
            return self.last(F.dropout(h, 0.3, training=True))
        if self.kind == "weights":  # the same noise for all samples; N by chance in its shape
            weight = self.last.weight + 0.1 * torch.randn_like(self.last.weight)
            return F.linear(h, weight, self.last.bias)
        return self.last(h + 0.3 * torch.randn_like(h))


def noisy_criterion(outputs, targets):
    return F.cross_entropy(outputs + 0.5 * torch.randn_like(outputs), targets, reduction="none")


X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 3
KINDS = {
    "vae": (Vae, elbo, {"x": X}),
    "vae, draws in front": (lambda: Vae("in front"), elbo, {"x": X}),
    "vae, draws repeated": (lambda: Vae("repeated"), elbo, {"x": X}),
    "vae, draws interleaved": (lambda: Vae("interleaved"), elbo, {"x": X}),
    "vae, its mean": (Vae, lambda model, batch: elbo(model, batch).mean(), {"x": X}),
    "noise between layers": (Noisy, nn.CrossEntropyLoss(), (X, Y)),
    "dropout that is meant": (lambda: Noisy("dropout"), nn.CrossEntropyLoss(), (X, Y)),
    "noise on weights": (lambda: Noisy("weights"), nn.CrossEntropyLoss(), (X, Y)),
    "noise in the loss": (lambda: nn.Linear(5, 3), noisy_criterion, (X, Y)),
    "stochastic depth": (Deep, nn.CrossEntropyLoss(weight=torch.ones(3)), (X, Y)),
    "attention with dropout": (Attention, nn.CrossEntropyLoss(), (X, Y)),
    "diffusion": (lambda: nn.Linear(5, 5), diffusion, {"x": X}),
    "noise in both": (Noisy, noisy_criterion, (X, Y)),
}


def problem(kind: str, **options) -> Problem:
    make, loss, data = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().double()
    return Problem(model, loss, data, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_one_function_whatever_the_batches(kind: str) -> None:
    answers = []
    for size in (1, 4, 7, N):
        torch.manual_seed(size)
        risk = EmpiricalRisk(problem(kind, draws="fixed"), batch_size=size)
        w = risk.space.pack(risk.problem.model)
        answers.append((risk.value(w), *risk.value_and_gradient(w), risk.sample_losses(w)))
        assert risk.value(w) == answers[-1][0]
        assert risk.described["draws"] == "fixed for each sample"
    for value, again, gradient, losses in answers:
        assert value == pytest.approx(answers[0][0], rel=1e-12)
        assert again == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(gradient, answers[0][2], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(losses, answers[0][3], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_the_value(kind: str) -> None:
    risk = EmpiricalRisk(problem(kind, draws="fixed"), batch_size=8)
    w = risk.space.pack(risk.problem.model)
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = 1e-5
    slope = (risk.value(w + h * v) - risk.value(w - h * v)) / (2 * h)
    assert float(risk.gradient(w) @ v) == pytest.approx(slope, rel=1e-6)
    difference = (risk.gradient(w + h * v) - risk.gradient(w - h * v)) / (2 * h)
    for method in ("graph", "recompute", "trace"):
        product = risk.hessian(w, method=method) @ v
        torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)
    if "vae" not in kind and kind != "diffusion":
        operator = risk.gauss_newton(w)
        factors = operator.jacobian.T @ (operator.loss_hessian @ (operator.jacobian @ v))
        torch.testing.assert_close(operator @ v, factors, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["vae", "noise between layers", "noise in both"])
def test_all_ways_to_a_sample_see_its_draw(kind: str) -> None:
    risk = EmpiricalRisk(problem(kind, draws="fixed"), batch_size=8)
    w = risk.space.pack(risk.problem.model)
    losses = risk.sample_losses(w)
    order = torch.tensor([7, 3, 21, 0])
    chosen = risk.draw(order)
    found = chosen.measures(chosen.features(w)[None])["loss"][0]
    torch.testing.assert_close(found, losses[order])
    assert risk.value_and_gradient(w, order)[0] == pytest.approx(float(losses[order].mean()))
    copies = risk.copies(2)
    copies.prepare([Request(i, w, order[2 * i : 2 * i + 2]) for i in range(2)])
    for i, member in enumerate(copies.members):
        loss, _, gradient = member.batch_gradient(w, order)
        mean = losses[order[2 * i : 2 * i + 2]].mean()
        assert float(loss) == pytest.approx(float(mean))
        alone = risk.gradient(w, order[2 * i : 2 * i + 2])
        torch.testing.assert_close(gradient, alone, rtol=1e-9, atol=1e-12)


def test_the_value_is_a_draw_of_the_loss() -> None:
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(3))
    model = Vae()
    with torch.no_grad(), torch.random.fork_rng():
        draws = torch.stack([elbo(model, {"x": x}).mean() for _ in range(200)])
    risk = EmpiricalRisk(Problem(model, elbo, {"x": x}))
    value = risk.value(risk.space.pack(model))
    assert abs(value - float(draws.mean())) < 4 * float(draws.std())


def test_noise_that_is_found_is_said(caplog) -> None:
    with caplog.at_level(logging.WARNING, "thalweg"):
        EmpiricalRisk(problem("vae"))
    assert "draws random numbers (noise)" in caplog.text and "draws='fixed'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "thalweg"):
        EmpiricalRisk(problem("vae", draws="fixed"))
        plain = EmpiricalRisk(Problem(nn.Linear(5, 3), nn.CrossEntropyLoss(), (X.float(), Y)))
    assert not caplog.text and "draws" not in plain.described
    with pytest.raises(InvalidArgument, match=r"draws='new'; write 'fixed'"):
        problem("vae", draws="new")


def test_train_and_test_have_draws_of_their_own() -> None:
    make, loss, data = KINDS["vae"]
    both = Problem(make().double(), loss, data, test=data, draws="fixed")
    risk = EmpiricalRisk(both)
    w = risk.space.pack(both.model)
    assert risk.value(w) != risk.on("test").value(w)


def test_given_batches_and_wholes_keep_a_draw_each() -> None:
    for data, words in (
        (tw.Batches([{"x": X[:11]}, {"x": X[11:]}]), "batch"),
        (tw.Whole({"x": X}), "batch"),
    ):
        model = Vae().double()
        risk = EmpiricalRisk(Problem(model, elbo, data, draws="fixed"))
        w = risk.space.pack(model)
        assert risk.described["draws"] == f"fixed for each {words}"
        v, h = torch.ones_like(w), 1e-5
        slope = (risk.value(w + h * v) - risk.value(w - h * v)) / (2 * h)
        assert float(risk.gradient(w) @ v) == pytest.approx(slope, rel=1e-6)


class NumpyNoise(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.from_numpy(np.random.randn(len(x), 3))


class Leaky(nn.Linear):
    def forward(self, x):
        return F.rrelu(super().forward(x), training=True)


class Gamma(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.distributions.Gamma(2.0, 1.0).sample((len(x), 1))


class OneByOne(nn.Linear):
    def forward(self, x):
        return super().forward(torch.stack([row + torch.randn(5, dtype=x.dtype) for row in x]))


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        Counting.calls += 1
        return super().forward(x) * Counting.calls


@pytest.mark.parametrize("model", [NumpyNoise, Counting])
def test_what_is_no_noise_of_torchs_is_refused(model) -> None:
    with pytest.raises(NotDeterministic, match=r"no random numbers of torch.*NumPy.*randn_like"):
        EmpiricalRisk(Problem(model(5, 3).double(), nn.CrossEntropyLoss(), (X, Y)))


@pytest.mark.parametrize(
    ("model", "name"), [(Leaky, "torch.nn.functional.rrelu"), (Gamma, "_standard_gamma")]
)
def test_a_law_that_cannot_be_held_is_named(model, name) -> None:
    with pytest.raises(ThalwegError, match=rf"random numbers \(noise\) (of|by) {name}"):
        EmpiricalRisk(Problem(model(5, 3).double(), nn.CrossEntropyLoss(), (X, Y)))


def test_numbers_drawn_sample_by_sample_need_one_batch() -> None:
    made = Problem(OneByOne(5, 3).double(), nn.CrossEntropyLoss(), (X, Y), draws="fixed")
    with pytest.raises(DependsOnBatches, match="5 times for 5 samples and 7 times for 7"):
        EmpiricalRisk(made)
    risk = EmpiricalRisk(made, batch_size=N)
    w = risk.space.pack(made.model)
    assert risk.described["data"] == "one whole" and risk.value(w) == risk.value(w)
