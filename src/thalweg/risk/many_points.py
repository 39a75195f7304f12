"""Values and gradients at many points of one risk, as one batch of models where that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.evaluation.vectorized import vectorized

if TYPE_CHECKING:
    from thalweg.risk.risk import EmpiricalRisk


def evaluate_points(
    risk: EmpiricalRisk, measured: ModelCopy, points: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Evaluate value and gradient at points, shape (k, W): shapes (k,), float64, and (k, W).

    Networks with batch norm, data that are batches as given, and models that decide by values, or
    keep their weights where no call can replace them, are evaluated one point after another.
    """
    one_by_one = measured.norms or measured.watched or not measured.functional
    if risk.data.joined and not one_by_one:
        try:
            return _as_one(risk, measured, points)
        except (RuntimeError, UserWarning):  # a model or its loss decides by values, or is unknown
            pass
    pairs = [risk.value_and_gradient(point) for point in points]
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float64, device=points.device)
    return values, torch.stack([gradient for _, gradient in pairs])


def _as_one(risk: EmpiricalRisk, measured: ModelCopy, points: Tensor) -> tuple[Tensor, Tensor]:
    def total(w: Tensor, batch: Any) -> Tensor:
        return measured.forward_with(measured.space.unpack(w), batch).total(torch.float64)

    values = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    gradients = torch.zeros(points.shape, dtype=torch.float64, device=points.device)
    size = max(1, risk.batch_size // len(points))
    for start in range(0, risk.samples, size):
        batch = measured.moved(risk.data.slice(start, min(start + size, risk.samples)))
        with one_function(), vectorized():  # backward, too
            slopes, sums = vmap(grad_and_value(total), (0, None))(points, batch)
        values += sums.double()
        gradients += slopes.double()
    weight = risk.totals.weight
    return values / weight, (gradients / weight).to(points.dtype)
