"""Graphs that products keep are freed with their operator, and those beyond the budget at once."""

from __future__ import annotations

import gc
import weakref
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw


class Token:
    """Lives as long as the node of a graph that holds it."""

    alive: ClassVar[weakref.WeakSet[Token]] = weakref.WeakSet()

    def __init__(self) -> None:
        Token.alive.add(self)


class Tanh(torch.autograd.Function):
    """Keeps its own output, as torch's own tanh does, and a token beside it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.token = Token()
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        answer: Tensor = slope * (1 - output.square())
        return answer


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = Tanh.apply(self.norm(self.first(x)))
        answer: Tensor = self.last(torch.tanh(hidden))
        return answer


@pytest.mark.parametrize("policy", ["recalibrate", "held"])
@pytest.mark.parametrize("name", ["hessian", "gauss_newton"])
def test_no_graph_outlives_its_operator(policy: Any, name: str) -> None:
    # A graph with hooks on what it saves held itself by its own outputs: 270 MB more at each
    # product on 1,000 images, until the machine had no memory left.
    torch.manual_seed(0)
    model = Network()
    problem = tw.Problem(model, nn.MSELoss(), (torch.randn(40, 3), torch.randn(40, 1)))
    risk = tw.EmpiricalRisk(problem, batchnorm=policy)
    w = risk.space.pack(model)
    gc.collect()
    before = len(Token.alive)
    operator = getattr(risk, name)(w, method="graph")
    _ = operator @ w
    kept = len(Token.alive)
    assert kept > before
    for _ in range(3):
        _ = operator @ w
    gc.collect()
    assert len(Token.alive) <= kept
    del operator
    gc.collect()
    assert len(Token.alive) == before
