"""The norm of a convolution, and errors behind it, against the map written out and more digits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw
from certificates.cases import jacobian
from thalweg.certificates.ball import bound_ball
from thalweg.certificates.chain import Chain, Layer
from thalweg.certificates.convolution import convolution_norm
from thalweg.certificates.extended import Extended, has_long_double
from thalweg.certificates.forward import run_forward
from thalweg.certificates.nonlinearity import Activation
from thalweg.problems.networks import AllConv
from thalweg.tracing import chain as links


def _geometry(shape, kernel, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    sizes = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return {"shape": list(shape), **{name: list(pair) for name, pair in sizes.items()}}


GEOMETRIES = {
    "plain": _geometry((2, 7, 6), (3, 3)),
    "padded": _geometry((3, 8, 8), (3, 3), padding=(1, 1)),
    "stride 2": _geometry((3, 8, 8), (3, 3), (2, 2), (1, 1)),
    "unequal": _geometry((2, 9, 7), (3, 2), (2, 3), (1, 0), (1, 2)),
    "dilated": _geometry((2, 8, 8), (3, 3), (1, 1), (2, 2), (2, 2)),
    "stride beyond the kernel": _geometry((1, 9, 9), (2, 2), (3, 3)),
    "one place": _geometry((4, 3, 3), (3, 3)),
    "far padding": _geometry((1, 2, 2), (3, 3), (2, 2), (3, 3)),
}


def _written_out(kernel, geometry):
    """Apply the convolution to each unit image: shape (outputs, inputs)."""
    unit = torch.eye(int(np.prod(geometry["shape"])), dtype=torch.float64)
    images = unit.view(-1, *geometry["shape"])
    four = torch.from_numpy(kernel).view(len(kernel), -1, *geometry["kernel"])
    options = (tuple(geometry[name]) for name in ("stride", "padding", "dilation"))
    return F.conv2d(images, four, None, *options).flatten(1).T.numpy()


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("kind", ["random", "constant", "alternating"])
def test_the_norm_is_that_of_the_map_written_out(name, kind):
    geometry = GEOMETRIES[name]
    size = geometry["shape"][0] * int(np.prod(geometry["kernel"]))
    kernel = {
        "random": lambda: np.random.default_rng(0).standard_normal((5, size)),
        "constant": lambda: np.ones((5, size)),
        "alternating": lambda: np.where(np.arange(5 * size) % 2, -1.0, 1.0).reshape(5, size),
    }[kind]()
    true = np.linalg.norm(_written_out(kernel, geometry), 2)
    # Of the cyclic convolution, or of the kernel on patches that overlap.
    found = Layer("", kernel, np.zeros(5), (True, True), Activation("identity"), geometry).gain
    assert true <= convolution_norm(kernel, geometry) * (1 + 1e-12)
    assert true <= found * (1 + 1e-12)
    if "padding" not in name and min(geometry["shape"][1:]) > 6:
        assert found <= 1.5 * true


def test_a_cyclic_norm_is_nearly_reached_on_large_images():
    geometry = _geometry((2, 40, 40), (3, 3), (2, 2), (1, 1))
    kernel = np.random.default_rng(3).standard_normal((4, 18))
    x = torch.randn(1, 2, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    four = torch.from_numpy(kernel).view(4, 2, 3, 3)
    for _ in range(100):
        x = x / x.norm()
        y = F.conv2d(x, four, None, 2, 1)
        x = F.conv_transpose2d(y, four, None, 2, 1, output_padding=1)
    assert float(y.norm()) <= convolution_norm(kernel, geometry) <= 1.15 * float(y.norm())


def _deep(activation="poly10", seed=0, samples=4):
    """Make a risk of three strided convolutions, far from small in its derivatives."""
    torch.manual_seed(seed)
    model = AllConv((2, 9, 9), 3, (4, 5, 6), activation, batchnorm=False, seed=seed)
    data = 1.5 * torch.randn(samples, 2, 9, 9), torch.randn(samples, 3)
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)


def _chain(risk, w):
    return Chain.of(links.Chain(risk), w), risk.problem.train[0].double().flatten(1).numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("activation", ["poly10", "tanh"])
def test_errors_of_outputs_are_within_their_bounds(activation, seed):
    if not has_long_double():
        pytest.skip("there is nothing to compare pairs of float64 with")
    risk = _deep(activation, seed)
    chain, x = _chain(risk, risk.space.pack(risk.problem.model).double())
    _, outputs, error = run_forward(chain, x, Extended(double_double=False))
    pairs = Extended(double_double=True)
    true, rest = pairs.parts(run_forward(chain, x, pairs)[1])
    wrong = np.linalg.norm(np.asarray(outputs - true - rest, float), axis=1)
    assert (wrong <= error).all() and (error <= 1e-13).all() and wrong.max() > 0


@pytest.mark.parametrize("activation", ["poly10", "tanh"])
def test_the_jacobian_of_deep_convolutions_moves_no_faster_than_claimed(activation):
    risk = _deep(activation)
    w = risk.space.pack(risk.problem.model).double()
    chain, x = _chain(risk, w)
    passed, _, _ = run_forward(chain, x, Extended())
    generator = torch.Generator().manual_seed(0)
    for radius in (1e-6, 1e-3, 1e-2):
        lipschitz = bound_ball(chain, passed, radius).lipschitz
        for _ in range(2):
            ends = [torch.randn(len(w), dtype=w.dtype, generator=generator) for _ in range(2)]
            v, u = (w + radius * end / end.norm() for end in ends)
            moved = torch.linalg.matrix_norm(jacobian(risk, v) - jacobian(risk, u), 2)
            assert 0 < moved <= lipschitz * (u - v).norm()
        # Along the direction in which the largest singular value grows fastest, too.
        v = w + radius * _steepest(risk, w)
        moved = torch.linalg.matrix_norm(jacobian(risk, v) - jacobian(risk, w), 2)
        assert moved <= lipschitz * radius


def _steepest(risk, w):
    model = copy.deepcopy(risk.problem.model).double()
    nn.utils.vector_to_parameters(w, model.parameters())
    parameters = list(model.parameters())
    outputs = model(risk.problem.train[0].double()).reshape(-1)
    slope = torch.autograd.grad(outputs.sum(), parameters, create_graph=True)
    size = sum(part.square().sum() for part in slope)
    bends = torch.autograd.grad(size, parameters, materialize_grads=True)
    direction = torch.cat([part.reshape(-1) for part in bends])
    return direction / direction.norm()
