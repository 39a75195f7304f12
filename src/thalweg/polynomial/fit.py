"""Polynomial fits of a scalar activation on an interval [-r, r]."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray
from torch import nn

from thalweg.errors import InvalidArgument, NotElementwise
from thalweg.polynomial.remez import Array, Scalar, alternation, remez

Method = Literal["minimax", "chebyshev", "interpolation", "legendre"]
Status = Literal["converged", "rounding", "stalled", "direct"]
Activation = Callable[[torch.Tensor], torch.Tensor]

# Panels of Gauss nodes, with a border at the origin: exact for a kink there, 1e-6 for others.
_PANELS, _NODES = 128, 32


@dataclass(frozen=True, eq=False)
class PolynomialFit:
    """A polynomial that approximates an activation on [-radius, radius].

    Parameters
    ----------
    method
        ``"minimax"``, ``"chebyshev"``, ``"interpolation"`` or ``"legendre"``.
    radius
        Half-width r of the interval.
    chebyshev
        Coefficients of T_k(x / r), shape (degree + 1,), float64.
    power
        Coefficients of x**k, from the constant up, shape (degree + 1,), float64.
    error
        Sup-norm of the error on [-r, r], evaluated at its peaks, kinks included.
    lower_bound
        Lower bound on the error of every polynomial of this degree (de la Vallée Poussin),
        for ``"minimax"``; 0 for the other methods.
    status
        ``"converged"`` (the error equioscillates), ``"rounding"`` (the error is at float64's
        level) or ``"stalled"`` for ``"minimax"``; ``"direct"`` for methods without iterations.
    iterations
        Remez exchanges made.
    """

    method: Method
    radius: float
    chebyshev: Array
    power: Array
    error: float
    lower_bound: float
    status: Status
    iterations: int

    @property
    def degree(self) -> int:
        """Degree asked for; leading coefficients may be zero."""
        return len(self.chebyshev) - 1

    def __call__(self, x: NDArray[np.floating]) -> Array:
        """Value at `x`, any shape, in float64, by Clenshaw's recurrence."""
        value: Array = chebyshev.chebval(np.asarray(x, float) / self.radius, self.chebyshev)
        return value


def fit_polynomial(
    activation: Activation, degree: int, *, radius: float = 1.0, method: Method = "minimax"
) -> PolynomialFit:
    """Fit a polynomial to a scalar activation on [-radius, radius].

    Parameters
    ----------
    activation
        Module or function that maps a tensor element by element: ``torch.relu``,
        ``nn.GELU()``, ``lambda x: torch.sin(3 * x)``.
    degree
        Degree of the polynomial, at least 0.
    radius
        Half-width r of the interval, positive and finite.
    method
        ``"minimax"``: smallest sup-norm error (Remez exchange). ``"chebyshev"``: least squares
        with weight 1/sqrt(1 - (x/r)**2). ``"legendre"``: least squares with weight 1.
        ``"interpolation"``: at the degree + 1 Chebyshev points of the first kind.

    Returns
    -------
    PolynomialFit
        Coefficients in the Chebyshev and the power basis, sup-norm error and status.

    Raises
    ------
    InvalidArgument
        For a degree, radius or method that cannot be used, or an activation that is not finite
        on the interval.
    NotElementwise
        For a function that mixes elements, changes the shape or is random.

    References
    ----------
    L. N. Trefethen, *Approximation Theory and Approximation Practice* (2013), chapters 3, 4, 10.

    Examples
    --------
    The best quadratic for the absolute value on [-1, 1] is ``x**2 + 1/8``.

    >>> fit = fit_polynomial(torch.abs, 2)
    >>> fit.power.round(6).tolist(), round(fit.error, 6), fit.status
    ([0.125, 0.0, 1.0], 0.125, 'converged')
    """
    _check_arguments(degree, radius, method)
    function = _on_unit_interval(activation, radius)
    lower, iterations = 0.0, 0
    status: Status = "direct"
    if method == "minimax":
        exchange = remez(function, degree)
        coefficients, lower = exchange.coefficients, exchange.lower_bound
        status, iterations = exchange.status, exchange.iterations
    elif method == "interpolation":
        coefficients = _interpolate(function, degree)
    else:
        project = _chebyshev_projection if method == "chebyshev" else _legendre_projection
        coefficients = project(function, degree)
    coefficients = _with_symmetry(function, coefficients)
    return PolynomialFit(
        method=method,
        radius=float(radius),
        chebyshev=coefficients,
        power=_power(coefficients) / float(radius) ** np.arange(degree + 1),
        error=float(np.abs(alternation(function, coefficients)[1]).max()),
        lower_bound=lower,
        status=status,
        iterations=iterations,
    )


def check_radius(radius: float) -> None:
    """Refuse a half-width that is not a positive finite number."""
    if isinstance(radius, bool) or not isinstance(radius, (int, float, np.floating)):
        raise InvalidArgument(f"radius must be a number, got {radius!r}; write radius=8.0")
    if not (math.isfinite(radius) and radius > 0):
        raise InvalidArgument(f"radius must be positive and finite, got {radius}")


def _check_arguments(degree: int, radius: float, method: str) -> None:
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)) or degree < 0:
        raise InvalidArgument(f"degree must be an integer of at least 0, got {degree!r}")
    check_radius(radius)
    if method not in get_args(Method):
        raise InvalidArgument(f"method must be one of {get_args(Method)}, got {method!r}")


def _on_unit_interval(activation: Activation, radius: float) -> Scalar:
    """Turn the activation into a float64 numpy function on [-1, 1], checked to be elementwise."""
    if not callable(activation):
        raise NotElementwise(
            f"activation must be a module or function of a tensor, got {activation!r}; "
            "write torch.relu or nn.ReLU()"
        )
    if isinstance(activation, nn.Module):
        activation = copy.deepcopy(activation).double()

    def function(points: Array) -> Array:
        with torch.no_grad():
            values = activation(torch.tensor(radius * points, dtype=torch.float64))
        return np.asarray(torch.as_tensor(values, dtype=torch.float64))

    points = np.cos(np.arange(1.0, 65.0))
    values = function(points)
    alone = np.concatenate(
        [np.ravel(function(points_part)) for points_part in np.split(points[::-1], 16)]
    )
    if values.shape != points.shape or not np.allclose(
        alone[::-1], values, rtol=1e-12, atol=1e-12, equal_nan=True
    ):
        raise NotElementwise(
            f"{activation!r} does not act on each element by itself (its values change with the "
            "other elements, the shape or the call); give a deterministic scalar function such "
            "as torch.relu"
        )
    if not np.isfinite(values).all():
        raise InvalidArgument(
            f"{activation!r} is not finite on [-{radius}, {radius}]; write a smaller radius"
        )
    return function


def _panels(low: float, high: float) -> tuple[Array, Array]:
    """Nodes and weights of a composite Gauss-Legendre rule on [low, high]."""
    nodes, weights = legendre.leggauss(_NODES)
    half = (high - low) / (2 * _PANELS)
    centres = low + half * (2 * np.arange(_PANELS) + 1)
    return (centres[:, None] + half * nodes).ravel(), np.tile(half * weights, _PANELS)


def _chebyshev_projection(function: Scalar, degree: int) -> Array:
    angles, weights = _panels(0.0, np.pi)
    values = weights * function(np.cos(angles))
    coefficients: Array = np.cos(np.outer(np.arange(degree + 1), angles)) @ values * (2 / np.pi)
    coefficients[0] /= 2
    return coefficients


def _legendre_projection(function: Scalar, degree: int) -> Array:
    points, weights = _panels(-1.0, 1.0)
    moments = legendre.legvander(points, degree).T @ (weights * function(points))
    series = moments * (2 * np.arange(degree + 1) + 1) / 2
    # Interpolation changes the basis without the power basis in between, which loses digits.
    return _interpolate(lambda at: legendre.legval(at, series), degree)


def _interpolate(function: Scalar, degree: int) -> Array:
    # numpy's annotation asks for a function of one number; it calls it with an array.
    coefficients: Array = chebyshev.chebinterpolate(cast(Any, function), degree)
    return coefficients


def _with_symmetry(function: Scalar, coefficients: Array) -> Array:
    """Restore an odd part that is linear (ReLU, GELU, softplus) or a constant even part.

    All four methods keep that symmetry in exact arithmetic, and averaging with the mirror
    image cannot enlarge the error; zeros instead of rounding halve the evaluation's work.
    """
    points = np.cos(np.linspace(0.0, np.pi / 2, 257))
    at_plus, at_minus = function(points), function(-points)
    odd, even = (at_plus - at_minus) / 2, (at_plus + at_minus) / 2
    atol = 8 * np.finfo(float).eps * float(np.abs(at_plus).max() + np.abs(at_minus).max())
    symmetric = coefficients.copy()
    if len(coefficients) > 1 and np.allclose(odd, odd[0] * points, rtol=0, atol=atol):
        symmetric[1::2] = 0.0
        symmetric[1] = odd[0]
    if np.allclose(even, even[0], rtol=0, atol=atol):
        symmetric[0::2] = 0.0
        symmetric[0] = even[0]
    return symmetric


def _power(coefficients: Array) -> Array:
    """Power basis of a Chebyshev series, keeping its length."""
    power = chebyshev.cheb2poly(coefficients)
    return np.pad(power, (0, len(coefficients) - len(power)))
