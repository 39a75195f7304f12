"""Values and derivatives of polynomial activations against numpy.polynomial and autograd."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev, polynomial
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vmap,
)

from thalweg.errors import InvalidArgument
from thalweg.polynomial import PolynomialActivation, excursions, fit_polynomial

# PyTorch compiles its own forward-mode formulas with it at the first jvp.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

LAYERS = {
    "relu 10, Horner": PolynomialActivation(fit_polynomial(torch.relu, 10, radius=3.0)),
    "relu 30, Clenshaw": PolynomialActivation(fit_polynomial(torch.relu, 30, radius=3.0)),
    "tanh 9": PolynomialActivation(fit_polynomial(torch.tanh, 9, radius=3.0)),
    "elu 1": PolynomialActivation(fit_polynomial(nn.ELU(), 1, radius=3.0)),
    "constant": PolynomialActivation(fit_polynomial(nn.ELU(), 0, radius=3.0)),
    "elu 12": PolynomialActivation(fit_polynomial(nn.ELU(), 12, radius=3.0)),
    "cube": PolynomialActivation.from_coefficients([0, 0, 0, 1]),
    "mixed": PolynomialActivation.from_coefficients([0.5, -1, 0, 2, 0.25]),
}


def inputs(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 3 * (2 * torch.rand(*shape, generator=generator, dtype=dtype) - 1)


def oracle(layer, x, order=0):
    """Derivative by numpy.polynomial in float64."""
    c, x = layer.coefficients.numpy(), x.double().numpy()
    if layer.basis == "power":
        return polynomial.polyval(x, polynomial.polyder(c, order) if order else c)
    radius = float(layer.radius)
    return chebyshev.chebval(x / radius, chebyshev.chebder(c, order, scl=1 / radius))


@pytest.fixture(params=LAYERS)
def layer(request):
    return copy.deepcopy(LAYERS[request.param])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_slopes_match_numpy(layer, dtype):
    x = inputs(1000, dtype=dtype).requires_grad_()
    value = layer(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.dtype == dtype
    for got, order in ((value, 0), (slope, 1)):
        expected = oracle(layer, x.detach(), order)
        # Near the ends the slope at degree 30 turns a rounding of x into 60 of its own.
        tolerance = 200 * torch.finfo(dtype).eps * max(1e-300, np.abs(expected).max())
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("degree", [10, 16, 20, 30, 60])
def test_float32_holds_one_part_in_a_million_at_every_degree(degree):
    layer = PolynomialActivation(fit_polynomial(torch.relu, degree, radius=5.0))
    x = torch.linspace(-5, 5, 4001)
    error = np.abs(layer(x).double().numpy() - oracle(layer, x)).max() / 5
    assert error < 1e-6


def test_gradcheck_and_gradgradcheck(layer):
    x = inputs(3, 4).requires_grad_()
    assert gradcheck(
        layer, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert gradgradcheck(
        layer, x, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("outer", [jacfwd, jacrev])
@pytest.mark.parametrize("middle", [jacfwd, jacrev])
@pytest.mark.parametrize("inner", [jacfwd, jacrev])
def test_nested_transforms_of_every_kind(layer, outer, middle, inner):
    # PyTorch gives zero, without a word, for a naive jvp inside another forward transform.
    x = inputs(1)[0]
    second, third = middle(inner(layer))(x), outer(middle(inner(layer)))(x)
    for got, order in ((second, 2), (third, 3)):
        expected = oracle(layer, x, order)
        assert got.item() == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


def composed(layer):
    """The same polynomial in autograd operations of float64."""
    c = layer.coefficients.tolist()

    def function(x):
        t = x / layer.radius if layer.basis == "chebyshev" else x
        if layer.basis == "power":
            return sum(number * t**k for k, number in enumerate(c))
        last = before = torch.zeros_like(x)
        for number in c[:0:-1]:
            last, before = 2 * t * last - before + number, last
        return t * last - before + c[0]

    return function


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own linearize
def test_torch_func_agrees_with_composed_operations(layer):
    weight, x, v = inputs(4, 4) / 6, inputs(4), inputs(4, seed=1)

    def loss(activation):
        return lambda x: (activation(weight @ x) ** 2).sum() + activation(x).sum()

    ours, theirs = loss(layer), loss(composed(layer))
    expected = hessian(theirs)(x)
    close = torch.testing.assert_close
    close(hessian(ours)(x), expected)
    close(jacrev(jacrev(ours))(x), expected)
    close(jvp(grad(ours), (x,), (v,))[1], expected @ v)
    value, hvp = linearize(grad(ours), x)
    close(value, grad(theirs)(x))
    close(hvp(v), expected @ v)
    close(hvp(2 * v), 2 * expected @ v)
    batch = inputs(5, 4, seed=2)
    close(vmap(grad(ours))(batch), vmap(grad(theirs))(batch))
    close(vmap(layer, in_dims=1, out_dims=1)(batch), layer(batch))
    close(
        torch.autograd.functional.hessian(ours, x, vectorize=True),
        expected,
    )


def test_functional_call_and_an_ensemble_of_different_polynomials():
    models = [
        nn.Sequential(
            nn.Linear(2, 3), PolynomialActivation(fit_polynomial(f, 5, radius=r))
        ).double()
        for f, r in ((torch.relu, 2.0), (torch.tanh, 3.0), (torch.sin, 4.0))
    ]
    x = inputs(6, 2)
    parameters, buffers = stack_module_state(models)
    together = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([model(x) for model in models]))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    order=st.randoms(use_true_random=False),
    step=st.integers(1, 2),
)
def test_any_shape_and_stride(shape, order, step):
    layer = LAYERS["mixed"]
    axes = list(range(len(shape)))
    order.shuffle(axes)
    x = inputs(*shape) if shape else inputs(1)[0]
    x = x.permute(axes)
    x = x[..., ::step] if shape else x
    value = layer(x)
    assert value.shape == x.shape
    np.testing.assert_allclose(value.numpy(), oracle(layer, x), atol=1e-12)


def test_pieces_meet_and_memory_formats_stay():
    layer = LAYERS["relu 10, Horner"]
    x = inputs(2, 3, 200, 211, dtype=torch.float32)
    last = x.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(layer(x).numpy(), oracle(layer, x), atol=3e-6)
    assert torch.equal(layer(x), layer(last))
    assert layer(last).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    layer, x = LAYERS["relu 10, Horner"], inputs(100).to(dtype)
    assert torch.equal(layer(x), layer(x.float()).to(dtype))


def test_given_coefficients_are_exact():
    x = torch.tensor([-3.0, 0.0, 2.0, 5.0])
    cube = PolynomialActivation.from_coefficients([0, 0, 0, 1])
    assert torch.equal(cube(x), x * x * x)
    assert torch.equal(PolynomialActivation.from_coefficients([0, 0, 1])(x), x * x)
    assert cube.degree == 3 and excursions(cube) == {}


def test_state_dict_carries_the_polynomial_and_knows_its_basis():
    source = PolynomialActivation(fit_polynomial(torch.tanh, 5, radius=4.0))
    target = PolynomialActivation(fit_polynomial(torch.relu, 5, radius=1.0))
    x = inputs(20)
    assert not torch.equal(source(x), target(x))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(x), target(x))
    assert set(source.state_dict()) == {"chebyshev_coefficients", "radius"}
    assert not list(source.parameters())
    other = PolynomialActivation.from_coefficients(np.ones(6))
    with pytest.raises(RuntimeError, match="chebyshev_coefficients"):
        other.load_state_dict(source.state_dict())


def test_copies_pickles_and_casts(layer):
    x = inputs(20)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    expected = layer(x)
    torch.testing.assert_close(layer.float()(x), expected, rtol=1e-5, atol=1e-5)


def test_printing_names_degree_basis_and_radius():
    text = repr(LAYERS["tanh 9"])
    assert text == "PolynomialActivation(degree=9, basis='chebyshev', radius=3)"
    assert repr(LAYERS["cube"]) == "PolynomialActivation(degree=3, basis='power')"


@pytest.mark.parametrize("bad", [[], [1, float("nan")], [[1, 2]], "x**2", None, [1j]])
def test_bad_coefficients_are_refused(bad):
    with pytest.raises(InvalidArgument, match="from the constant up"):
        PolynomialActivation.from_coefficients(bad)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_tensors_that_are_not_real_are_refused(dtype):
    with pytest.raises(InvalidArgument, match="real floating tensor"):
        LAYERS["cube"](torch.ones(3, dtype=dtype))
