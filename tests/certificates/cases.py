"""Small networks trained to zero error, for proofs and for what must never be proved."""

from __future__ import annotations

import copy

import torch
from torch import nn

import thalweg as tw
from thalweg.polynomial import PolynomialActivation

ACTIVATIONS = {
    "tanh": nn.Tanh,
    "cubic": lambda: PolynomialActivation.from_coefficients([0.1, 1.0, 0.3, 0.2]),
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky relu": lambda: nn.LeakyReLU(0.1),
}


def dense(activation="tanh", seed=0, *, inputs=3, hidden=12, outputs=2, samples=10):
    """Make a risk of a network with one hidden layer on random data, M = samples * outputs."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(inputs, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, outputs)
    )
    data = torch.randn(samples, inputs), torch.randn(samples, outputs)
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)


def convolutional(seed=0, samples=6):
    """Make a risk of two convolutions with polynomials and a linear layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        PolynomialActivation.from_coefficients([0.0, 1.0, 0.2]),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    data = torch.randn(samples, 1, 5, 5), torch.randn(samples, 2)
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data), dtype=torch.float64)


def jacobian(risk, w):
    """Differentiate each output of each sample: shape (M, W)."""
    model = copy.deepcopy(risk.problem.model).double()
    nn.utils.vector_to_parameters(w, model.parameters())
    outputs = model(risk.problem.train[0].double()).reshape(-1)
    rows = [torch.autograd.grad(o, list(model.parameters()), retain_graph=True) for o in outputs]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def solved(risk, steps=40):
    """Train to a residual of rounding size."""
    w = risk.space.pack(risk.problem.model).double()
    return tw.train(risk, w, optimizer="gauss-newton", steps=steps).w
