"""Landscapes whose trainings the tests know: a quadratic bowl, and a small classification."""

from __future__ import annotations

import torch
from torch import nn

from thalweg.landscape import ParameterSpace
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk


class Bowl:
    """L(w) = sum(curvature * w**2) / 2: gradient descent multiplies w by 1 - lr * curvature."""

    def __init__(self, curvature):
        self.curvature = torch.tensor(curvature, dtype=torch.float64)
        self.space = ParameterSpace.euclidean(len(curvature))

    def value(self, w):
        return float((self.curvature * w.square()).sum() / 2)

    def gradient(self, w, batch=None):
        return self.curvature * w


def classification(*, dtype=torch.float64, samples=90, batchnorm=True):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator)
    y = (x[:, 0] + x[:, 1].square() > 0.7).long()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        norm = [nn.BatchNorm1d(12)] if batchnorm else []
        model = nn.Sequential(nn.Linear(6, 12), *norm, nn.ReLU(), nn.Linear(12, 2))
    return EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), (x, y)), dtype=dtype), model, x, y


def start_of(risk, model):
    return risk.space.pack(model).to(risk.dtype)
