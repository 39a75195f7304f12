"""The range of an activation on an interval, rounding counted."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor, nn

from thalweg.errors import NotDefined
from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.layers import layer_type

# torch's exponentials, hyperbolic tangents and error functions in float64 are within 4 units in
# the last place of the exact values (of intermediate ones, where they are subtracted); we allow 16.
_LIBRARY = 16 * 2.0**-53
_EXACT = (nn.ReLU, nn.Identity)
_INCREASING = (nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.ReLU6)
# Where these have their only minimum: below it they fall, above it they rise.
_MINIMA: dict[type[nn.Module], float] = {
    nn.GELU: -0.7517915246935645,
    nn.SiLU: -1.2784645427610738,
}
_TANH_GELU_MINIMUM = -0.7524614220710162


def is_activation(module: nn.Module) -> bool:
    """Say whether a range is known for this module."""
    return layer_type(module) in (*_EXACT, *_INCREASING, *_MINIMA, PolynomialActivation)


def enclose_activation(module: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """
    Enclose the values of an activation on intervals.

    Parameters
    ----------
    module : nn.Module
        One for which `is_activation`.
    low, high : Tensor
        Ends of the intervals, float64, of one shape.

    Returns
    -------
    low, high : Tensor
        Bounds of its exact values, of that shape.

    Raises
    ------
    NotDefined
        If the module falls where it should rise (LeakyReLU with a negative slope, ...).
    """
    if isinstance(module, PolynomialActivation):
        return _polynomial(module, low, high)
    if isinstance(module, _EXACT):
        return module(low), module(high)
    _check_rising(module)
    first, last = module(low.clone()), module(high.clone())
    room = _LIBRARY * (1 + low.abs() + high.abs()) + _step(module, low, high)
    bottom = torch.minimum(first, last)
    turn = _turning_point(module)
    if turn is not None:
        least = module(torch.full_like(low, turn))
        bottom = torch.where((low <= turn) & (turn <= high), torch.minimum(bottom, least), bottom)
    return bottom - room, torch.maximum(first, last) + room


def _turning_point(module: nn.Module) -> float | None:
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        return _TANH_GELU_MINIMUM
    return next((turn for kind, turn in _MINIMA.items() if isinstance(module, kind)), None)


def _step(module: nn.Module, low: Tensor, high: Tensor) -> Tensor:
    """Bound how far torch's softplus falls at its threshold, beyond which it is the identity."""
    if not isinstance(module, nn.Softplus):
        return torch.zeros_like(low)
    ends = torch.full_like(low, module.threshold / module.beta)
    fall = nn.functional.softplus(-ends * module.beta, threshold=1e9) / module.beta
    return torch.where((low <= ends * (1 + 1e-9)) & (high >= ends * (1 - 1e-9)), 2 * fall, 0.0)


def _check_rising(module: nn.Module) -> None:
    slope = getattr(module, "negative_slope", getattr(module, "alpha", 1.0))
    if not (slope >= 0 and getattr(module, "beta", 1.0) > 0):
        raise NotDefined(
            f"no range is known for {module}: it falls where it should rise. Give it a slope from 0"
            " on and a positive beta."
        )


def _polynomial(module: PolynomialActivation, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """
    Enclose by the Taylor series at the centre, all of whose terms are taken by their sizes.

    With p(c + t) = sum b_k t**k, the values for abs(t) <= r are within sum_{k>0} abs(b_k) r**k of
    b_0. Every rounding error is at most a multiple of sum_j abs(a_j) (abs(c) + r)**j.
    """
    powers = power_coefficients(
        tuple(module.coefficients.tolist()), float(module.radius), module.basis
    )
    center = (low + high) / 2
    radius = torch.maximum(high - center, center - low) * (1 + 4 * _LIBRARY)
    taylor = [torch.full_like(center, a) for a in powers]
    degree = len(taylor) - 1
    for start in range(degree):  # Horner's scheme again and again: a Taylor shift
        for k in range(degree - 1, start - 1, -1):
            taylor[k] = torch.addcmul(taylor[k], taylor[k + 1], center)
    spread, size = torch.zeros_like(center), torch.zeros_like(center)
    outer = center.abs() + radius
    for k in range(degree, -1, -1):
        size = size * outer + abs(powers[k])
        if k:
            spread = (spread + taylor[k].abs()) * radius
    error = (8 * degree + 16) * 2.0**-53 * size
    return taylor[0] - spread - error, taylor[0] + spread + error


@lru_cache(maxsize=64)
def power_coefficients(
    coefficients: tuple[float, ...], radius: float, basis: str
) -> tuple[float, ...]:
    """
    Convert a polynomial to powers of x, exactly but for one final rounding.

    Parameters
    ----------
    coefficients : tuple of float
        Of T_k(x / radius) or of x**k, from the constant up.
    radius : float
        Half-width of the interval; not used by the power basis.
    basis : {"chebyshev", "power"}
        Which of the two.

    Examples
    --------
    >>> power_coefficients((0.0, 0.0, 1.0), 2.0, "chebyshev")
    (-1.0, 0.0, 0.5)
    """
    if basis == "power":
        return coefficients
    zero, total = Fraction(0), [Fraction(0)] * len(coefficients)
    before, last = [Fraction(1)], [zero, Fraction(1) / Fraction(radius)]
    for c in coefficients:
        for k, a in enumerate(before):
            total[k] += Fraction(c) * a
        doubled = [zero, *(2 * a / Fraction(radius) for a in last)]
        before, last = (
            last,
            [a - (before[k] if k < len(before) else zero) for k, a in enumerate(doubled)],
        )
    return tuple(float(a) for a in total)
