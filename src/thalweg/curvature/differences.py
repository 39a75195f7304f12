"""Derivatives along a direction from differences, with their error: where torch has none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.curvature.linearize import Tensors

Function = Callable[[Tensors], Tensors]


def along(
    function: Function, primals: Tensors, direction: Tensors, *, share: float = 1.0
) -> tuple[Tensors, float]:
    """
    Differentiate a function along a direction by central differences of two lengths.

    With D(h) the difference quotient of length h, the answer is (4 D(h) - D(2h)) / 3, whose error
    is of fourth order in h (Richardson's extrapolation). The step is a share of the weights' own
    length: with the fourth root of the rounding unit both errors stay small where the
    derivative changes over a hundredth of it.

    Parameters
    ----------
    function : callable
        From tensors shaped as ``primals`` to tensors.
    primals, direction : tuple of Tensor
        The point, and the direction.
    share : float
        Of the usual step: a shorter one crosses fewer kinks, and loses more digits.

    Returns
    -------
    derivative : tuple of Tensor
        Shaped as what the function gives, in its dtype.
    error : float
        Estimate of the relative error: a third of the difference of D(h) and D(2h), which is the
        error of D(h) and an upper estimate of the answer's.

    References
    ----------
    L. F. Richardson, The Approximate Arithmetical Solution by Finite Differences (1911).

    Examples
    --------
    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> (slope,), error = along(lambda p: (p[0] ** 3,), (x,), (torch.ones_like(x),))
    >>> torch.allclose(slope, 3 * x**2), error < 1e-6
    (True, True)
    """
    length = _norm(direction)
    if length == 0.0:
        return tuple(torch.zeros_like(part) for part in function(primals)), 0.0
    unit = torch.finfo(primals[0].dtype).eps
    step = share * unit**0.25 * max(_norm(primals), 1e-3) / length

    def quotient(h: float) -> Tensors:
        ends = [
            function(tuple(p + sign * h * d for p, d in zip(primals, direction, strict=True)))
            for sign in (1, -1)
        ]
        return tuple((above - below) / (2 * h) for above, below in zip(*ends, strict=True))

    near, far = quotient(step), quotient(2 * step)
    derivative = tuple((4 * a - b) / 3 for a, b in zip(near, far, strict=True))
    difference = _norm(tuple(a - b for a, b in zip(near, far, strict=True)))
    return derivative, difference / 3 / max(_norm(derivative), torch.finfo(torch.float64).tiny)


def _norm(tensors: Tensors) -> float:
    norms = [tensor.detach().double().norm() for tensor in tensors]
    return float(torch.stack(norms).norm()) if norms else 0.0


def in_double(tensors: Tensors) -> Tensors:
    """Give tensors in double precision; integers as they are."""
    return tuple(double(tensor) for tensor in tensors)


def double(tensor: Tensor) -> Tensor:
    """Give a tensor in double precision; integers as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor
