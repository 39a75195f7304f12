"""Activations as functions whose values and slopes are known exactly and bounded on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import nn

from thalweg.certificates.extended import Double, Extended
from thalweg.certificates.products import WIDER, norm
from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.layers import layer_type

Array = NDArray[np.float64]
# Of the C library's exp, log1p and tanh in extended precision, and of the few operations around
# them: units in the last place of 1 + |x|.
_LIBRARY = 32.0
# Beyond it torch's softplus is the identity.
SOFTPLUS_ENDS = 20.0


@dataclass(frozen=True)
class Activation:
    """
    A function applied to every element.

    Attributes
    ----------
    kind : str
        Its name.
    coefficients : tuple of Fraction
        Of a polynomial, exact, in powers of x from the constant up; of a leaky ReLU its slope.
    """

    kind: str
    coefficients: tuple[Fraction, ...] = ()

    @property
    def sided(self) -> bool:
        """Whether it is linear on each side of zero and not across."""
        return self.kind in ("relu", "leaky_relu")

    def evaluate(self, kind: Extended, z: Any, order: int) -> tuple[Any, Array]:
        """
        Evaluate the function (order 0) or its slope (order 1) in extended precision.

        Returns
        -------
        values : extended array
            Of the shape of ``z``.
        error : ndarray
            Bound of each value's error, for the ``z`` given.
        """
        if self.kind == "polynomial":
            return _horner(kind, z, _derived(self.coefficients, order))
        if self.kind == "identity":
            return (z if order == 0 else z * 0.0 + 1.0), np.zeros(z.shape)
        if self.sided:
            slope = float(self.coefficients[0]) if self.coefficients else 0.0
            factor = np.where(kind.parts(z)[0] > 0, 1.0, slope)
            values = z * factor if order == 0 else kind.of(factor)
            return values, np.abs(kind.parts(values)[0]) * (2 * kind.unit * (order == 0))
        native, exact, _, _ = _SMOOTH[self.kind]
        if native is None and isinstance(kind, Double):
            native = _IN_DOUBLE[self.kind]
        values = (
            kind.through_mpmath(z, exact[order])
            if kind.pairs or native is None
            else native[order](z)
        )
        return values, _LIBRARY * kind.unit * (1 + np.abs(kind.parts(z)[0]))

    def bounds(self, radius: float) -> tuple[float, float]:
        """Bound the sizes of the first and second derivative on [-radius, radius]."""
        if self.kind == "polynomial":
            first, second = (_largest(_derived(self.coefficients, k), radius) for k in (1, 2))
            return first, second
        if self.kind == "identity" or self.sided:
            return max([1.0, *(abs(float(c)) * WIDER for c in self.coefficients)]), 0.0
        return _SMOOTH[self.kind][2:]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values; fractions exactly, as text."""
        return {"kind": self.kind, "coefficients": [str(c) for c in self.coefficients]}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Activation:
        """Make it from `to_dict`."""
        return cls(description["kind"], tuple(Fraction(c) for c in description["coefficients"]))

    @classmethod
    def of(cls, module: nn.Module) -> Activation | None:
        """Recognise a module; None where its bounds are not known."""
        if type(module) is PolynomialActivation:
            return cls("polynomial", _powers(module))
        if type(module) is nn.LeakyReLU and 0 <= module.negative_slope <= 1:
            return cls("leaky_relu", (Fraction(module.negative_slope),))
        if type(module) is nn.GELU and module.approximate != "none":
            return None
        if type(module) is nn.Softplus and (module.beta, module.threshold) != (1, SOFTPLUS_ENDS):
            return None
        name = _NAMES.get(layer_type(module))
        return None if name is None else cls(name)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _silu_slope(x: Any) -> Any:
    s = _sigmoid(x)
    return s * (1 + x * (1 - s))


def _gelu_slope(x: Any) -> Any:
    return ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _mp_sigmoid(mp: Any, x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


Functions = tuple[Callable[..., Any], Callable[..., Any]]
# Value and slope natively (None: not in extended precision) and by mpmath; bounds of |f'|, |f''|,
# rounded up: tanh'' is largest at tanh^2 = 1/3, sigmoid'' at s = (3 +- sqrt 3)/6, gelu'' =
# phi(x) (2 - x^2) at 0 and gelu' at sqrt 2, silu'' at 0 and silu' near 2.3994.
_SMOOTH: dict[str, tuple[Functions | None, Functions, float, float]] = {
    "tanh": (
        (np.tanh, lambda x: 1 / np.square(np.cosh(x))),
        (lambda mp, x: mp.tanh(x), lambda mp, x: mp.sech(x) ** 2),
        1.0,
        4 / (3 * math.sqrt(3)) * WIDER,
    ),
    "sigmoid": (
        (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
        (_mp_sigmoid, lambda mp, x: _mp_sigmoid(mp, x) * _mp_sigmoid(mp, -x)),
        0.25,
        WIDER / (6 * math.sqrt(3)),
    ),
    "softplus": (
        (_softplus, _sigmoid),
        (lambda mp, x: mp.log1p(mp.exp(x)), _mp_sigmoid),
        1.0,
        0.25,
    ),
    "silu": (
        (lambda x: x * _sigmoid(x), _silu_slope),
        (
            lambda mp, x: x * _mp_sigmoid(mp, x),
            lambda mp, x: _mp_sigmoid(mp, x) * (1 + x * _mp_sigmoid(mp, -x)),
        ),
        1.1,
        0.5,
    ),
    "gelu": (
        None,
        (lambda mp, x: x * mp.ncdf(x), lambda mp, x: mp.ncdf(x) + x * mp.npdf(x)),
        1.13,
        0.79789,
    ),
}
# Where extended precision has no function, and float64 has.
_IN_DOUBLE: dict[str, Functions] = {"gelu": (lambda x: x * ndtr(x), _gelu_slope)}
_NAMES: dict[type[nn.Module], str] = {
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Softplus: "softplus",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
}


def _horner(kind: Extended, z: Any, coefficients: list[Fraction]) -> tuple[Any, Array]:
    """Evaluate a polynomial; its error is below gamma_2d of the same sum in absolute values."""
    size = np.maximum(np.abs(kind.parts(z)[0]) * (1 + 2**-52), kind.floor)
    value, total = z * 0.0, np.zeros(z.shape)
    for c in reversed(coefficients):
        high = float(c)
        number = kind.join(np.float64(high), np.float64(float(c - Fraction(high))))
        value, total = value * z + number, total * size + abs(high)
    steps = 2 * len(coefficients) + 4  # two operations a degree, and the coefficients' rounding
    return value, total * (steps * kind.unit * WIDER)


def _derived(coefficients: tuple[Fraction, ...], order: int) -> list[Fraction]:
    derivative = list(coefficients)
    for _ in range(order):
        derivative = [k * c for k, c in enumerate(derivative)][1:] or [Fraction(0)]
    return derivative


def _largest(coefficients: list[Fraction], radius: float) -> float:
    """Bound a polynomial on [-r, r] by the sum of its Chebyshev coefficients there, exactly."""
    if not math.isfinite(radius):
        return math.inf
    scale, series = Fraction(radius), [Fraction(0)]
    for c in reversed(coefficients):  # Horner in the Chebyshev basis: x T_k = (T_k-1 + T_k+1) / 2
        moved = [Fraction(0)] * (len(series) + 1)
        for k, a in enumerate(series):
            moved[k + 1] += scale * a / (1 if k == 0 else 2)
            if k > 0:
                moved[k - 1] += scale * a / 2
        moved[0] += c
        series = moved
    try:
        return float(sum(abs(c) for c in series)) * (1 + 2**-50)
    except OverflowError:
        return math.inf


def _powers(module: PolynomialActivation) -> tuple[Fraction, ...]:
    """Give the exact coefficients of x^k of what the module's float64 numbers stand for."""
    coefficients = [Fraction(float(c)) for c in module.coefficients]
    if module.basis == "power":
        return tuple(coefficients)
    inverse = 1 / Fraction(float(module.radius))
    before, current = [Fraction(1)], [Fraction(0), inverse]
    powers = [Fraction(0)] * len(coefficients)
    for c in coefficients:
        for k, t in enumerate(before):
            powers[k] += c * t
        ahead = [Fraction(0)] + [2 * inverse * t for t in current]
        before, current = (
            current,
            [a - (before[k] if k < len(before) else 0) for k, a in enumerate(ahead)],
        )
    return tuple(powers)


def error_norm(errors: Array) -> Array:
    """Bound the Euclidean norm of each sample's errors: shape (N,)."""
    return np.asarray(norm(errors.reshape(len(errors), -1), axis=1))
