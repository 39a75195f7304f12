"""A model with its loss as one module, of which any tensor can be replaced by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from thalweg.problems.functional import call_with
from thalweg.problems.loss import Evaluation
from thalweg.problems.problem import Problem


class Forward(nn.Module):
    """
    A model with its loss, as one module.

    Parameters
    ----------
    problem : Problem
        Whose loss it is.
    model : nn.Module
        That is evaluated.
    """

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        super().__init__()
        self.problem, self.model = problem, model

    def forward(self, batch: Any) -> Evaluation:
        """Evaluate losses and outputs of a batch."""
        return self.problem.evaluate(self.model, batch)

    def with_tensors(self, tensors: Mapping[str, Tensor], batch: Any) -> Evaluation:
        """Evaluate a batch with tensors in place of the model's own, by their names in it."""
        named = {f"model.{name}": tensor for name, tensor in tensors.items()}
        evaluation: Evaluation = call_with(self, named, (batch,))
        return evaluation
