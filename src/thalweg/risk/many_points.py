"""Values and gradients at many points of one risk, as one batch of models where that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from thalweg.curvature.batch_functions import Forward
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.problems.functional import call_with
from thalweg.problems.loss import Evaluation

if TYPE_CHECKING:
    from thalweg.risk.risk import EmpiricalRisk


def evaluate_points(
    risk: EmpiricalRisk, measured: ModelCopy, points: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Evaluate value and gradient at points, shape (k, W): shapes (k,), float64, and (k, W).

    Networks with batch norm, data that are batches as given, and models that decide by values are
    evaluated one point after another.
    """
    if not measured.norms and risk.data.joined and not measured.watched:
        try:
            return _as_one(risk, measured, points)
        except RuntimeError:  # of vmap, where a model or its loss decides by values
            pass
    pairs = [risk.value_and_gradient(point) for point in points]
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float64, device=points.device)
    return values, torch.stack([gradient for _, gradient in pairs])


def _as_one(risk: EmpiricalRisk, measured: ModelCopy, points: Tensor) -> tuple[Tensor, Tensor]:
    forward = Forward(measured.problem, measured.model)

    def total(w: Tensor, batch: Any) -> Tensor:
        named = {f"model.{name}": tensor for name, tensor in measured.space.unpack(w).items()}
        evaluation: Evaluation = call_with(forward, named, (batch,))
        return evaluation.total(torch.float64)

    values = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    gradients = torch.zeros(points.shape, dtype=torch.float64, device=points.device)
    size = max(1, risk.batch_size // len(points))
    for start in range(0, risk.samples, size):
        batch = measured.moved(risk.data.slice(start, min(start + size, risk.samples)))
        slopes, sums = vmap(grad_and_value(total), (0, None))(points, batch)
        values += sums.double()
        gradients += slopes.double()
    weight = risk.totals.weight
    return values / weight, (gradients / weight).to(points.dtype)
