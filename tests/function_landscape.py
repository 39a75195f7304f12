"""A landscape from a function of its coordinates."""

from __future__ import annotations

import torch

from thalweg.landscape.space import ParameterSpace


class FunctionLandscape:
    """A function of some weights, with its gradient by autograd."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, function, weights=2):
        self.function, self.space = function, ParameterSpace.euclidean(weights)

    def value(self, w):
        return float(self.function(*w.to(self.dtype)))

    def gradient(self, w, batch=None):
        leaf = w.detach().clone().to(self.dtype).requires_grad_()
        return torch.autograd.grad(self.function(*leaf), leaf)[0]
