"""
Derivatives by differences at many steps, with their error: the judge of contract tests.

Measurements, which cannot afford fourteen evaluations, take theirs from `curvature.differences`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Steps halve; an even error expansion in the step is assumed, so each extrapolation gains h^2.
_STEPS, _RATIO = 7, 2.0


@dataclass(frozen=True)
class Difference:
    """
    A derivative by differences.

    Attributes
    ----------
    value : Tensor
        float64, shaped as what was differentiated.
    error : float
        Estimate of the largest entry's error: what the last extrapolation changed, and rounding.
        Large where the function has a kink within reach of every step.
    """

    value: Tensor
    error: float


def difference(function: Callable[[float], Tensor | float], step: float, eps: float) -> Difference:
    """
    Differentiate a function of one real number at 0.

    Central differences at seven steps from ``step`` down by halves, extrapolated to none.

    Parameters
    ----------
    function : callable
        A number or tensor of a number.
    step : float
        The largest step.
    eps : float
        Relative rounding error of the function's values, such as 2.2e-16.

    Returns
    -------
    Difference
        That of the smallest error among all extrapolations.

    References
    ----------
    C. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software
    4 (1982); the tableau is Neville's.

    Examples
    --------
    >>> import math
    >>> found = difference(math.exp, 0.1, 2.2e-16)
    >>> abs(float(found.value) - 1.0) <= found.error < 1e-11
    True
    """
    best = Difference(torch.tensor(torch.nan), torch.inf)
    row: list[Tensor] = []
    for level in range(_STEPS):
        h = step / _RATIO**level
        ahead, behind = _float64(function(h)), _float64(function(-h))
        rounding = eps * max(_largest(ahead), _largest(behind)) / h
        above, row = row, [(ahead - behind) / (2 * h)]
        for order, previous in enumerate(above):
            gain = _RATIO ** (2 * order + 2)
            row.append((gain * row[order] - previous) / (gain - 1))
            error = max(_largest(row[-1] - row[-2]), _largest(row[-1] - previous)) + rounding
            if error < best.error:
                best = Difference(row[-1], error)
    return best


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
