"""A strongly convex landscape: one lowest point, to which every descent returns."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.landscape.space import ParameterSpace


class Bowl:
    """
    The quadratic ``sum(curvature * (w - lowest)**2) / 2``, a control for claims of flatness.

    Parameters
    ----------
    curvature : Tensor
        Shape (W,), float64; entries of zero are flat directions.

    Examples
    --------
    >>> bowl = Bowl(torch.tensor([1.0, 3.0], dtype=torch.float64))
    >>> bowl.value(bowl.lowest + 1.0)
    2.0
    """

    def __init__(self, curvature: Tensor) -> None:
        self.curvature = curvature
        self.space = ParameterSpace.euclidean(curvature.numel())
        # Away from zero, for perturbations are proportional to the weights.
        self.lowest = torch.ones_like(curvature)

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return float((self.curvature * (w - self.lowest).square()).sum() / 2)

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate the gradient at ``w``, shape (W,)."""
        return self.curvature * (w - self.lowest)
