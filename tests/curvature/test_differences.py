"""Derivatives by differences: exact on polynomials, right where torch has none."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw
from evaluation_models import LABELS, MODELS, chain
from thalweg.curvature.differences import along
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.evaluation import call

CRITERION = nn.CrossEntropyLoss()


def risk_of(name: str) -> tuple[tw.EmpiricalRisk, torch.Tensor]:
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    risk = tw.EmpiricalRisk(tw.Problem(make(), CRITERION, (inputs, LABELS)), dtype=torch.float64)
    return risk, risk.space.pack(risk.problem.model).double()


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_polynomials_up_to_degree_four_are_exact(degree):
    x = torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64)
    v = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    (slope,), error = along(lambda p: (p[0] ** degree,), (x,), (v,))
    torch.testing.assert_close(slope, degree * x ** (degree - 1) * v, rtol=1e-10, atol=1e-10)
    assert error < 1e-6


def test_the_stated_error_covers_the_true_one():
    x, v = torch.linspace(-2, 2, 50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    for frequency in (1.0, 30.0, 300.0):
        (slope,), error = along(lambda p, f=frequency: (torch.sin(f * p[0]),), (x,), (v,))
        true = frequency * torch.cos(frequency * x)
        assert float((slope - true).norm() / true.norm()) < error


def test_a_direction_of_zeros_gives_zeros():
    (slope,), error = along(lambda p: (p[0] ** 2,), (torch.ones(2),), (torch.zeros(2),))
    assert slope.tolist() == [0.0, 0.0] and error == 0.0


@pytest.mark.parametrize("method", ["graph", "recompute", "differences"])
@pytest.mark.parametrize("name", ["plain", "padded transformer", "LSTM", "complex"])
def test_all_ways_give_one_jacobian_and_one_gauss_newton(name, method):
    risk, w = risk_of(name)
    # Training mode, without dropout: the inference path of transformers gives other values.
    model, inputs = risk.problem.model.double().train(), MODELS[name][1]
    data = inputs.double() if inputs.is_floating_point() else inputs

    def outputs(flat):
        return torch.func.functional_call(model, risk.space.unpack(flat), (data,)).flatten()

    dense = torch.autograd.functional.jacobian(outputs, w)
    jacobian = risk.jacobian(w, method=method)
    v, u = (torch.randn(n, dtype=torch.float64) for n in reversed(dense.shape))
    torch.testing.assert_close(jacobian @ v, dense @ v, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(jacobian.T @ u, dense.T @ u, rtol=1e-9, atol=1e-9)
    probabilities = outputs(w).reshape(len(LABELS), 3).softmax(1)
    blocks = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None]
    expected = dense.T @ torch.block_diag(*blocks) @ dense / len(LABELS)
    found = risk.gauss_newton(w, method=method)
    torch.testing.assert_close(found @ v, expected @ v, rtol=1e-6, atol=1e-7)
    assert found.method == method


@pytest.mark.parametrize("name", ["bag of embeddings", "sparse bag, padding", "cdist"])
def test_gauss_newton_and_jacobian_without_second_derivatives(name):
    risk, w = risk_of(name)
    jacobian = risk.jacobian(w)
    dense = jacobian.T.to_dense().T  # one derivative backward, which torch has
    v = torch.randn(len(w), dtype=torch.float64)
    assert "products" not in jacobian.described  # nothing was differenced yet
    product = jacobian @ v
    off = float((product - dense @ v).norm() / (dense @ v).norm())
    assert off <= jacobian.error < 1e-5
    assert jacobian.described["products"] == f"differences, relative error {jacobian.error:.1e}"
    matrix = risk.gauss_newton(w).to_dense()
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-5, atol=1e-8)
    assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-8


def test_what_keeps_its_weights_to_itself_has_no_jacobian():
    risk, w = risk_of("parameters in a list")
    assert risk.hessian(w) @ torch.ones_like(w) is not None
    with pytest.raises(NotDefined, match="no Jacobian"):
        risk.jacobian(w) @ torch.ones_like(w)


def test_layers_of_a_hessian_by_differences_are_its_block():
    risk, w = risk_of("plain")
    whole = risk.hessian(w).to_dense()
    block = risk.hessian(w, layers=["2"], method="differences")
    at = block.entries
    torch.testing.assert_close(block.to_dense(), whole[at][:, at], rtol=1e-6, atol=1e-8)


def test_an_unknown_way_is_refused():
    risk = tw.EmpiricalRisk(tw.Problem(chain(), CRITERION, (MODELS["plain"][1], LABELS)))
    with pytest.raises(InvalidArgument, match="differences"):
        risk.gauss_newton(risk.space.pack(risk.problem.model), method="fast")


@pytest.mark.parametrize("method", ["graph", "recompute", "trace"])
def test_a_way_that_torch_cannot_take_is_refused_in_our_words(method):
    risk, w = risk_of("bag of embeddings")
    words = rf"Hessian of .* by method='{method}' \(.+\). Leave method= out"
    with pytest.raises(NotDefined, match=words):
        risk.hessian(w, method=method) @ w


def test_a_refusal_without_words_is_quoted_by_its_class():
    class Mute(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx, slope):
            if torch.is_grad_enabled():
                raise NotImplementedError
            return 2 * ctx.saved_tensors[0] * slope

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return Mute.apply(self.linear(x))

    x = torch.randn(len(LABELS), 4)
    risk = tw.EmpiricalRisk(tw.Problem(Net(), CRITERION, (x, LABELS)), dtype=torch.float64)
    w = risk.space.pack(risk.problem.model).double()
    with pytest.raises(NotDefined, match=r"method='graph' \(NotImplementedError\)"):
        risk.hessian(w, method="graph") @ w


def test_a_model_that_computes_in_float32_has_differences_in_float32():
    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.last = nn.EmbeddingBag(9, 4), nn.Linear(4, 3)

        def forward(self, tokens):
            return F.linear(self.bag(tokens).float(), self.last.weight, self.last.bias)

    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (len(LABELS), 5))
    risk = tw.EmpiricalRisk(tw.Problem(Quantized(), CRITERION, (tokens, LABELS)))
    w = risk.space.pack(risk.problem.model)
    v = torch.randn(len(w))
    hessian = risk.hessian(w)
    product = hessian @ v
    precise = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 3))
    exact = tw.EmpiricalRisk(tw.Problem(precise, CRITERION, (tokens, LABELS)), dtype=torch.float64)
    expected = exact.hessian(w.double()) @ v.double()
    assert hessian.method == "differences"
    off = float((product.double() - expected).norm() / expected.norm())
    assert off <= max(hessian.error, 1e-3) < 0.05


def mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean()


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of torch, of TorchScript
    scripted_mean_square = torch.jit.script(mean_square)


@pytest.mark.parametrize("guarded", [True, False])
def test_functions_of_torchscript_keep_their_derivatives(guarded, monkeypatch):
    """Torch (2.13) gives zeros forward once a function has been optimized, after some calls."""
    if not guarded:  # then the comparison of two ways finds it
        monkeypatch.setattr(call, "_outside_of_transforms", lambda function: function)
    torch.manual_seed(0)
    data = MODELS["plain"][1].double(), torch.randn(len(LABELS), 3, dtype=torch.float64)
    model = chain().double()
    risk, plain = (
        tw.EmpiricalRisk(tw.Problem(model, loss, data))
        for loss in (scripted_mean_square, nn.MSELoss())
    )
    w = risk.space.pack(risk.problem.model)
    v, u = torch.randn(len(w), dtype=w.dtype), torch.randn(3 * len(LABELS), dtype=w.dtype)
    for product in (
        lambda r: r.hessian(w) @ v,
        lambda r: r.gauss_newton(w) @ v,
        lambda r: r.jacobian(w) @ v,
        lambda r: r.jacobian(w).T @ u,
        lambda r: r.gram(w),
        lambda r: r.values_and_gradients(torch.stack([w, w + 0.1]))[1],
    ):
        torch.testing.assert_close(product(risk), product(plain), rtol=1e-9, atol=1e-12)
    assert tw.degeneracy(risk, w).rank == tw.degeneracy(plain, w).rank
    for method in ("recompute", "trace"):
        with pytest.raises(NotDefined, match="Leave method= out"):
            risk.gauss_newton(w, method=method) @ v
