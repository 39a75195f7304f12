"""Whatever the model: its value, its gradient and its curvature, and it is unchanged afterwards."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from evaluation_models import LABELS, MODELS, VECTORS, Padded, chain
from thalweg.errors import InvalidProblem, NotDefined
from thalweg.polynomial import PolynomialActivation

CRITERION = nn.CrossEntropyLoss()


@pytest.fixture(params=MODELS)
def case(request):
    """Give a model after a training step, as users have it, and its inputs."""
    torch.manual_seed(1)
    make, inputs = MODELS[request.param]
    model = make()
    CRITERION(model(inputs.clone()), LABELS).backward()
    return request.param, model.eval(), inputs


@pytest.fixture(params=MODELS)
def fresh(request):
    """Give a model as its constructor leaves it, in evaluation mode, and its inputs."""
    make, inputs = MODELS[request.param]
    return make().eval(), inputs


def state_of(model: nn.Module) -> dict[str, object]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    held = {name: (tensor, tensor.detach().clone()) for name, tensor in tensors.items()}
    slopes = [p.grad for p in model.parameters()]
    attributes = [dict(vars(module)) for module in model.modules()]
    contents = [
        list(value.items() if isinstance(value, dict) else value)
        for attributes_ in attributes
        for value in attributes_.values()
        if isinstance(value, dict | list | set)
    ]
    return {"tensors": held, "slopes": slopes, "attributes": attributes, "contents": contents}


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    after = state_of(model)
    assert all(a is b for a, b in zip(after["slopes"], before["slopes"], strict=True))
    for name, (tensor, values) in before["tensors"].items():
        now = after["tensors"][name][0]
        assert now is tensor and torch.equal(now.detach(), values), name
    for was, now in zip(before["attributes"], after["attributes"], strict=True):
        assert was.keys() == now.keys() and all(now[name] is was[name] for name in was)
    for was, now in zip(before["contents"], after["contents"], strict=True):
        assert len(was) == len(now) and all(a is b or a == b for a, b in zip(was, now, strict=True))


def own_gradient(model: nn.Module, inputs: Tensor) -> Tensor:
    model.zero_grad()
    CRITERION(model(inputs.clone()), LABELS).backward()
    slopes = [
        torch.zeros_like(p) if p.grad is None else p.grad.to_dense() if p.grad.is_sparse else p.grad
        for p in model.parameters()
        if p.requires_grad
    ]
    real = [torch.view_as_real(s.resolve_conj()) if s.is_complex() else s for s in slopes]
    return torch.cat([slope.reshape(-1) for slope in real])


def test_value_and_gradient_are_the_models_own(case):
    name, model, inputs = case
    before, kept = state_of(model), inputs.clone()
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (inputs, LABELS)))
    w = risk.space.pack(model)
    value, gradient = risk.value(w), risk.gradient(w)
    again, step = risk.value_and_gradient(w)[0], risk.value(w + 0.1)
    assert_unchanged(model, before)
    assert torch.equal(inputs, kept)
    model.train(name == "padded transformer")  # whose inference path gives other values
    own = CRITERION(model(inputs.clone()), LABELS).item()
    assert value == pytest.approx(own, rel=1e-5) and again == pytest.approx(value, rel=1e-6)
    assert step != value
    assert risk.output_shape == (1, 3)
    torch.testing.assert_close(gradient, own_gradient(model, inputs), rtol=1e-4, atol=1e-6)


def test_a_fresh_model_is_as_it_was(fresh):
    """Also one that nobody has called yet: libraries put hooks in place at a first call."""
    model, inputs = fresh
    before = state_of(model)
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (inputs, LABELS)))
    value = risk.value(risk.space.pack(model))
    assert_unchanged(model, before)
    if not any(isinstance(module, Padded) for module in model.modules()):
        assert value == pytest.approx(CRITERION(model(inputs.clone()), LABELS).item(), rel=1e-5)


def test_a_trace_leaves_the_model_as_it_was(case):
    """A model that is lent is exchanged while it is traced: its numbers stay numbers."""
    name, model, inputs = case
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (inputs, LABELS)), dtype=torch.float64)
    w = risk.space.pack(model).double()
    before = state_of(model)
    try:
        product = risk.hessian(w, method="trace") @ torch.ones_like(w)
    except NotDefined as refusal:
        assert "method='trace'" in str(refusal), name
    else:
        expected = risk.hessian(w) @ torch.ones_like(w)
        torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-7)
    assert_unchanged(model, before)


def test_hessian_products_are_differences_of_gradients(case):
    _, model, inputs = case
    problem = tw.Problem(model, CRITERION, (inputs, LABELS))
    exact = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = exact.space.pack(model).double()
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(len(w), dtype=torch.float64, generator=generator)
    hessian = exact.hessian(w)
    with torch.no_grad():  # as Lanczos and others call it
        product = hessian @ v
    exact.value(w + 0.5)  # the risk goes elsewhere; the operator stays at w
    again = hessian @ v
    step = 1e-5
    slope = (exact.gradient(w + step * v) - exact.gradient(w - step * v)) / (2 * step)
    torch.testing.assert_close(product, slope, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(again, product, rtol=1e-9, atol=1e-9)


def weighed(outputs: Tensor, coefficients: Tensor) -> Tensor:
    """A loss whose gradient is J' times the coefficients, over n."""
    return (outputs * coefficients).sum(1)


def test_many_points_and_risks_made_of_a_risk_are_of_the_same_function(case):
    """What a self-check found of a model holds for the float64 risk, and the points, made of it."""
    name, model, inputs = case
    generator = torch.Generator().manual_seed(3)
    coefficients = torch.randn(len(inputs), 3, generator=generator)
    risk = tw.EmpiricalRisk(tw.Problem(model, weighed, (inputs, coefficients)))
    w = risk.space.pack(model)
    aside = w + 0.1 * torch.randn(len(w), generator=generator)
    before, gradient = state_of(model), risk.gradient(aside)
    values, gradients = risk.values_and_gradients(torch.stack([w, aside]))
    assert values.tolist() == pytest.approx([risk.value(w), risk.value(aside)], rel=1e-4, abs=1e-6)
    torch.testing.assert_close(gradients[1], gradient, rtol=1e-3, atol=1e-5)
    assert risk.in_double().checked == risk.checked
    if risk.checked.functional:
        pulled = risk.pull_back(aside, coefficients.double().flatten() / len(inputs))
        torch.testing.assert_close(pulled.float(), gradient, rtol=1e-3, atol=1e-5)
    else:
        for derived in (lambda: risk.gram(aside), lambda: tw.degeneracy(risk, aside)):
            with pytest.raises(NotDefined, match="no call can replace"):
                derived()
        with pytest.raises(InvalidProblem, match="together=False"):
            risk.copies(2)
    assert_unchanged(model, before)
    assert risk.checked.functional or name in (
        "parameters in a list",
        "hook that closes over a weight",
    )


@pytest.mark.parametrize("name", ["hook that closes over a layer", "forward wrapped", "plain"])
def test_degeneracy_counts_the_rank_of_the_users_model(name):
    """In float64, of a float32 risk: the model that is measured there is the same one."""
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    model, own = make().eval(), make().double().eval()
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (inputs, LABELS)))
    w = risk.space.pack(model)
    w[: len(w) // 3] = 0  # fewer directions count than at the model's own weights
    own.load_state_dict(risk.space.unpack(w.double()), strict=False)
    rows = [
        torch.cat(
            [t.flatten() for t in torch.autograd.grad(y, own.parameters(), retain_graph=True)]
        )
        for y in own(inputs.double()).flatten()
    ]
    expected = int(torch.linalg.matrix_rank(torch.stack(rows)))
    assert tw.degeneracy(risk, w).rank == expected
    assert tw.degeneracy(risk, risk.space.pack(model)).rank != expected


def test_what_cannot_be_copied_is_lent_and_said(caplog):
    make, inputs = MODELS["hook that closes over a layer"]
    with caplog.at_level(logging.WARNING, "thalweg"):
        risk = tw.EmpiricalRisk(tw.Problem(make(), CRITERION, (inputs, LABELS)))
    assert risk.checked.borrowed
    assert "given back as it was" in caplog.text


def test_a_lent_model_is_given_back_after_an_error():
    angry = [False]

    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MODELS["holds a lock"][0]()

        def forward(self, x: Tensor) -> Tensor:
            if angry[0]:
                raise RuntimeError("no")
            return self.inner(x)

    model = Moody().train()
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (MODELS["plain"][1], LABELS)))
    before = state_of(model)
    angry[0] = True
    with pytest.raises(RuntimeError, match="no"):
        risk.value(risk.space.pack(model) + 1)
    assert_unchanged(model, before)
    assert model.training


def test_the_padding_row_that_the_loss_depends_on_has_its_slope():
    torch.manual_seed(0)
    model = MODELS["padded transformer"][0]()
    padded = type(model)(padding_idx=0)
    padded.load_state_dict(model.state_dict())
    inputs = MODELS["padded transformer"][1]
    one, other = (
        tw.EmpiricalRisk(tw.Problem(m, CRITERION, (inputs, LABELS)), dtype=torch.float64)
        for m in (model, padded)
    )
    w = one.space.pack(model).double()
    torch.testing.assert_close(other.gradient(w), one.gradient(w))
    assert padded.embed.padding_idx == 0
    dense = other.gauss_newton(w).to_dense()
    torch.testing.assert_close(dense, dense.T)


class Halfway(nn.Module):
    """Numbers of two dtypes, one of which its outputs have."""

    def __init__(self, number: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("number", number)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.number


@pytest.mark.parametrize(
    "model",
    [
        Halfway(torch.tensor(2.0)),
        Halfway(torch.tensor(2.0, dtype=torch.float64)),
        Halfway(torch.full((3,), 2.0, dtype=torch.float64)),
        nn.Sequential(nn.Linear(4, 3), PolynomialActivation.from_coefficients([0, 0, 1])),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()).double(),
    ],
)
def test_a_model_is_measured_in_the_dtype_that_it_computes_in(model):
    x = torch.randn(5, 4).to(next(model.parameters()))
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, (x, torch.arange(5) % 3)))
    assert risk.dtype == model(x).dtype


def test_no_structure_is_read_off_a_copy_that_is_not_the_model():
    """Its outputs would show a symmetry that the model does not have: a hook reads the original."""

    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
            first, numbers = self.first, torch.arange(1.0, 7.0)
            self.last.register_forward_hook(
                lambda _, __, outputs: outputs + (torch.tanh(first.bias) * numbers).sum()
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.first(x)))

    targets = torch.randn(len(LABELS), 3)
    risk = tw.EmpiricalRisk(tw.Problem(Hooked(), nn.MSELoss(), (VECTORS, targets)))
    w = torch.randn(2, risk.space.size)
    with pytest.raises(NotDefined, match="no copy is the model"):
        tw.align(risk, *w)
    found = tw.degeneracy(risk, w[0])
    assert found.nullity == sum(found.split.values())  # none of them by a structure


def test_a_model_on_parallel_devices_is_what_it_holds():
    torch.manual_seed(0)
    plain = chain()
    risks = [
        tw.EmpiricalRisk(tw.Problem(model, CRITERION, (VECTORS, LABELS)))
        for model in (plain, nn.DataParallel(plain))
    ]
    w = torch.randn(2, risks[0].space.size)
    one, other = (tw.align(risk, *w, seconds=1) for risk in risks)
    assert one.difference < 1e-12 and other.difference < 1e-12
    assert one.w.tolist() == other.w.tolist()
