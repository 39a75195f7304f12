"""The layers that `checker` reasons about, derived from arrays, and arithmetic with bounds."""

from __future__ import annotations

import math
import re
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf
from scipy.special import ndtr

from thalweg.errors import InvalidArgument

Array = NDArray[np.float64]
_GEOMETRY = {"shape": 3, "kernel": 2, "stride": 2, "padding": 2, "dilation": 2}
# The last is above the norm of a vector whose entries have squares that underflow.
UNIT, WIDER, TINY = 2.0**-53, 1 + 1e-7, 1e-150
FINE = max(float(np.finfo(np.longdouble).eps), 2.0**-63)
SOFTPLUS_ENDS = 20.0  # beyond it torch's softplus is another function
_MOST, BATCH = 2**28, 64
STRICT: ContextVar[bool] = ContextVar("strict", default=False)


class Silent:
    """A bar that shows nothing."""

    def __init__(self, total: int, label: str) -> None:
        """Take what a bar is made of."""

    def update(self, n: int) -> None:
        """Do nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Unknown(InvalidArgument):
    """A certificate is damaged, or says what the checker does not know."""


def need(holds: object, otherwise: str) -> None:
    """Refuse with one line what is damaged or not known."""
    if not holds:
        raise Unknown(otherwise)


def counts_of(counts: Any, length: int, least: int = 0) -> list[int]:
    """Read a list of whole numbers, none below ``least``."""
    whole = isinstance(counts, list) and len(counts) == length
    right = whole and all(type(n) is int and least <= n < _MOST for n in counts)
    need(right, f"got {counts!r}, expected {length} whole numbers from {least} up")
    return list(counts)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu_slope(x: Any) -> Any:
    return ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# Value; slope; bounds of |f'| and |f''|: tanh'' is largest at tanh^2 = 1/3, sigmoid'' at
# s = (3 - sqrt 3)/6, gelu' at sqrt 2 and gelu'' at 0, silu' near 2.3994 and silu'' at 0; where the
# function has its only minimum, if it does not rise everywhere.
SMOOTH: dict[str, tuple[Any, Any, float, float, float]] = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 1.0, 0.769801, -math.inf),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x), 0.25, 0.0962251, -math.inf),
    "softplus": (_softplus, _sigmoid, 1.0, 0.25, -math.inf),
    "silu": (
        *(lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * _sigmoid(-x))),
        *(1.09985, 0.5, -1.2784645427610738),
    ),
    "gelu": (lambda x: x * ndtr(x), _gelu_slope, 1.12905, 0.797885, -0.7517915246935645),
}


# The network


@dataclass(frozen=True)
class Layer:
    """An affine layer at T places, each reading ``reads[t]`` of the inputs, and its activation."""

    weight: Array
    bias: Array
    trained: tuple[bool, bool]
    kind: str
    coefficients: tuple[Fraction, ...]
    reads: NDArray[np.int64]  # (T, in); the number of inputs stands for a zero
    inputs: int
    overlap: float  # bounds the norm of cutting into patches
    gain: float  # bounds the norm of the map from inputs to outputs

    @property
    def size(self) -> int:
        """Number of trained weights."""
        return self.weight.size * self.trained[0] + self.bias.size * self.trained[1]

    def patches(self, a: Any) -> Any:
        """Cut inputs, shape (n, inputs), into patches (n, T, in)."""
        return np.concatenate([a, np.zeros((len(a), 1))], 1)[:, self.reads]

    def spread(self, slopes: Array) -> Array:
        """Apply the transpose of `patches`: (..., T, in) to (..., inputs)."""
        total = np.zeros((*slopes.shape[:-2], self.inputs + 1))
        if len(self.reads) == 1:
            return slopes[..., 0, :]
        for column in range(self.reads.shape[1]):
            # No place is read twice at one offset, but that of the zeros, which is dropped.
            total[..., self.reads[:, column]] += slopes[..., column]
        return total[..., :-1]

    def evaluate(self, z: Any, order: int) -> tuple[Any, Array]:
        """Evaluate the activation or its slope, with a bound of each value's error."""
        if self.kind == "polynomial":
            return horner(derived(self.coefficients, order), z)
        if self.kind in SMOOTH:
            coarse = self.kind == "gelu"  # known in float64 only
            function: Any = SMOOTH[self.kind][order]
            values = function(z.astype(np.float64) if coarse else z)
            return values, (32 * (UNIT if coarse else FINE)) * (1 + np.abs(z).astype(np.float64))
        factor = np.where(z > 0, 1.0, 1.0 if self.kind == "identity" else self._below)
        values = factor * (z if order == 0 else z * 0 + 1)
        return values, 2 * FINE * np.abs(values).astype(np.float64)

    @property
    def _below(self) -> float:
        return float(self.coefficients[0]) if self.coefficients else 0.0

    @property
    def sided(self) -> bool:
        """Whether the activation is linear on either side of zero and not across."""
        return self.kind in ("relu", "leaky_relu")

    def bounds(self, reach: float) -> tuple[float, float]:
        """Bound the sizes of the first and second derivative on [-reach, reach]."""
        if self.kind == "polynomial":
            first, second = (_largest(derived(self.coefficients, order), reach) for order in (1, 2))
            return first, second
        return SMOOTH[self.kind][2:4] if self.kind in SMOOTH else (1.0, 0.0)

    def leaving(self, low: Array, high: Array) -> int:
        """Count units that could leave the piece of the activation that they are on."""
        crossing = (low <= 0) & (high >= 0) if self.sided else high >= SOFTPLUS_ENDS
        return int(crossing.sum()) if self.sided or self.kind == "softplus" else 0


def read_network(content: dict[str, Any], arrays: dict[str, Array], more: set[str]) -> list[Layer]:
    """Read the architecture; nothing in it is believed that the arrays can tell."""
    network = content["network"]
    need(isinstance(network, dict) and set(network) == {"layers", "weights"}, "there is no network")
    rows, layers = network["layers"], []
    need(isinstance(rows, list) and 0 < len(rows) < 1000, "the network has no list of layers")
    names = {f"{i}.{kind}" for i in range(len(rows)) for kind in ("weight", "bias")}
    need(set(arrays) == names | more | {"inputs", "targets"}, "arrays are missing or unknown")
    tables = arrays["inputs"].ndim == arrays["targets"].ndim == 2
    same = tables and len(arrays["inputs"]) == len(arrays["targets"])
    need(same, "inputs and targets are not tables of as many rows")
    width = arrays["inputs"].shape[1]
    for i, row in enumerate(rows):
        layers.append(_layer(row, arrays[f"{i}.weight"], arrays[f"{i}.bias"], width))
        width = len(layers[-1].weight) * len(layers[-1].reads)
    need(layers[-1].kind == "identity", "the last layer has an activation")
    return layers


def _layer(row: Any, weight: Array, bias: Array, width: int) -> Layer:
    keys = {"name", "trained", "activation", "geometry"}
    need(isinstance(row, dict) and set(row) == keys, f"a layer holds {sorted(keys)}")
    trained = row["trained"]
    pair = isinstance(trained, list) and [type(t) for t in trained] == [bool, bool]
    need(pair and isinstance(row["name"], str), "a layer says what is trained by two truth values")
    need(weight.ndim == 2 and bias.shape == weight.shape[:1], "a weight and its bias do not fit")
    kind, coefficients = _activation(row["activation"])
    reads, overlap, gain = np.arange(width)[None], 1.0, float(spectral_bound(weight))
    if row["geometry"] is not None:
        reads, symbol = _convolution(row["geometry"], weight, width)
        overlap = math.sqrt(np.bincount(reads.ravel(), minlength=width + 1)[:width].max()) * WIDER
        gain = min(symbol, gain * overlap)
    need(reads.shape[1] == weight.shape[1], f"a layer of {weight.shape[1]} inputs gets {width}")
    marks = (trained[0], trained[1])
    return Layer(weight, bias, marks, kind, coefficients, reads, width, overlap, gain)


def _activation(activation: Any) -> tuple[str, tuple[Fraction, ...]]:
    right = isinstance(activation, dict) and set(activation) == {"kind", "coefficients"}
    need(right and isinstance(activation["coefficients"], list), "an activation is not described")
    kind, texts = str(activation["kind"]), activation["coefficients"]
    number = re.compile(r"-?[0-9]{1,4000}(/[1-9][0-9]{0,3999})?")
    plain = all(isinstance(t, str) and number.fullmatch(t) for t in texts)
    need(plain and len(texts) <= 65, "coefficients of an activation are no fractions")
    coefficients = tuple(Fraction(t) for t in texts)
    lengths = {"polynomial": max(1, len(texts)), "leaky_relu": 1, "relu": 0, "identity": 0}
    lengths |= dict.fromkeys(SMOOTH, 0)
    need(lengths.get(kind) == len(texts), f"activation {kind!r} of {len(texts)} coefficients")
    slope = coefficients[0] if kind == "leaky_relu" else 0
    need(0 <= slope <= 1, f"a leaky ReLU of slope {slope}: known are 0 to 1")
    need(all(abs(c) < 2**1000 for c in coefficients), "a coefficient is beyond float64")
    return kind, coefficients


def _convolution(convolution: Any, weight: Array, width: int) -> tuple[NDArray[np.int64], float]:
    """Say where each patch is read, and bound the norm of the map of whole images."""
    need(
        isinstance(convolution, dict) and set(convolution) == set(_GEOMETRY),
        "a convolution is not described",
    )
    g = {key: counts_of(convolution[key], n, key != "padding") for key, n in _GEOMETRY.items()}
    channels, *size = g["shape"]
    padded = [n + 2 * p for n, p in zip(size, g["padding"], strict=True)]
    span = [(k - 1) * d + 1 for k, d in zip(g["kernel"], g["dilation"], strict=True)]
    fits = math.prod(g["shape"]) == width and weight.shape[1] == channels * math.prod(g["kernel"])
    fits = fits and all(n >= k for n, k in zip(padded, span, strict=True))
    counts = [(n - k) // s + 1 for n, k, s in zip(padded, span, g["stride"], strict=True)]
    need(fits and math.prod(counts) * weight.shape[1] < _MOST, "a convolution does not fit")
    at = [
        np.arange(counts[i])[:, None] * g["stride"][i]
        + (np.arange(g["kernel"][i]) * g["dilation"][i] - g["padding"][i])
        for i in (0, 1)
    ]
    y, x = at[0][:, None, None, :, None], at[1][None, :, None, None, :]
    inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    places = (np.arange(channels)[:, None, None] * size[0] + y) * size[1] + x
    reads = np.where(inside, places, width).reshape(math.prod(counts), -1)
    return reads, _symbol_norm(g, weight, padded)


def _symbol_norm(g: dict[str, list[int]], weight: Array, padded: list[int]) -> float:
    """
    Bound a convolution's norm by that on a torus that holds image and padding, from its symbol.

    A stride s folds together the s^2 frequencies that it cannot tell apart, divided by s (Sedghi,
    Gupta and Long, ICLR 2019, theorem 6, for a stride of one).
    """
    entries = weight.reshape(len(weight), g["shape"][0], *g["kernel"])
    waves, largest = [], 0.0
    for n, taps, d, s in zip(padded, g["kernel"], g["dilation"], g["stride"], strict=True):
        whole = -(-n // s) * s
        folded = np.arange(whole).reshape(s, -1).T  # a row: frequencies that are folded together
        turns = folded[:, :, None] * (np.arange(taps) * d) % whole / whole
        waves.append(np.exp(2j * np.pi * turns))
    for wave in waves[0]:
        rows = product(entries.transpose(0, 1, 3, 2) + 0j, wave.T)  # (out, C, kernel, s)
        turned = np.swapaxes(waves[1], -1, -2)[:, None, None]  # (n, 1, 1, kernel, s)
        symbol = product(np.swapaxes(rows, -1, -2)[None], turned)  # (n, out, C, s, s)
        largest = max(largest, float(spectral_bound(symbol.reshape(*symbol.shape[:2], -1)).max()))
    folds = math.sqrt(math.prod(g["stride"]))
    sizes = float(norm(np.abs(entries).sum((2, 3)))) * folds
    return (largest + gamma(1000 + 8 * math.prod(g["kernel"])) * sizes) / folds * WIDER


# Arithmetic with bounds


def product(a: Any, b: Any) -> Any:
    """Multiply matrices; strictly by numpy's own loops of long double, which call no library."""
    if not STRICT.get():
        return a @ b
    kind = np.result_type(a, b)
    wide = np.result_type(kind, np.longdouble)
    return (a.astype(wide) @ b.astype(wide)).astype(kind)


def gamma(count: float, unit: float = UNIT) -> float:
    """Bound the relative error of so many operations."""
    return count * unit / (1 - count * unit)


def norm(x: Any, axis: Any = None) -> Any:
    """Bound Euclidean norms from above."""
    return np.sqrt(np.square(np.abs(x)).sum(axis=axis)).astype(np.float64) * WIDER + TINY


def spectral_bound(a: Any) -> Any:
    """Bound largest singular values from above by the Frobenius norm of (A A^*)^4."""
    a = a if a.shape[-2] <= a.shape[-1] else np.swapaxes(a, -1, -2)
    total, lost = norm(a, (-2, -1)), []
    for _ in range(3):
        lost.append(gamma(4 * a.shape[-1] + 8) * norm(a, (-2, -1)) ** 2)
        a = product(a, np.swapaxes(a.conj(), -1, -2))
    bound = norm(a, (-2, -1))
    for error in reversed(lost):
        bound = np.sqrt(bound + error)
    return np.minimum(bound * WIDER, total)


def positive(matrix: Array, shift: float) -> bool:
    """
    Prove that a symmetric matrix, its lower triangle given, has no eigenvalue below ``shift``.

    A Cholesky factorization that runs to its end proves it up to gamma_n+1 / (1 - gamma_n+1) times
    the trace (Rump 2006, theorem 2.3). Strictly, the factor is multiplied out, and the norm of what
    it leaves has to be below that. The matrix is overwritten.
    """
    n, theta = len(matrix), gamma(len(matrix) + 1)
    diagonal = matrix.diagonal().copy()
    lost = theta / (1 - theta) * diagonal.sum() + 2 * UNIT * (diagonal.max() + shift)
    matrix.flat[:: n + 1] = diagonal - (shift + lost + n * TINY) * WIDER
    whole = matrix.copy() if STRICT.get() else None
    _, info = dpotrf(matrix.T, lower=0, overwrite_a=1, clean=0)
    run = bool(info == 0 and np.isfinite(diagonal).all() and np.isfinite(matrix.diagonal()).all())
    room = theta / (1 - theta) * diagonal.sum()
    return run and (whole is None or _distance_to_square(whole, np.tril(matrix)) < room)


def _distance_to_square(matrix: Array, factor: Array) -> float:
    """Bound the norm of a symmetric matrix, its lower triangle given, less a factor's square."""
    fine = factor.astype(np.longdouble)
    total = np.zeros(len(matrix))
    for start in range(0, len(matrix), BATCH):
        rows = slice(start, start + BATCH)
        apart = np.tril(matrix[rows] - fine[rows] @ fine.T, start)
        total[rows] = norm(apart, 1)
    rounding = gamma(len(matrix) + 2, FINE) * float(norm(factor)) ** 2
    return (math.sqrt(2) * float(norm(total)) + rounding) * WIDER


def derived(coefficients: tuple[Fraction, ...], order: int) -> tuple[Fraction, ...]:
    """Differentiate a polynomial given by its coefficients, the constant first."""
    for _ in range(order):
        coefficients = tuple(k * c for k, c in enumerate(coefficients))[1:] or (Fraction(0),)
    return coefficients


def horner(coefficients: tuple[Fraction, ...], z: Any) -> tuple[Any, Array]:
    """Evaluate a polynomial in long double, with a bound of each value's error."""
    z = np.asarray(z, np.longdouble)
    value, size, total = z * 0, np.abs(z).astype(np.float64) * WIDER, np.zeros(z.shape)
    for c in reversed(coefficients):
        high = float(c)
        value = value * z + (np.longdouble(high) + float(c - Fraction(high)))
        total = total * size + abs(high)
    return value, total * (gamma(2 * len(coefficients) + 4, FINE) * WIDER) + TINY


def _largest(coefficients: tuple[Fraction, ...], reach: float) -> float:
    """Bound a polynomial on [-reach, reach] by the sum of its Chebyshev coefficients, exactly."""
    if not reach < 1e30:
        return math.inf
    half, total = Fraction(reach) / 2, Fraction(0)
    scaled = [c * half**k for k, c in enumerate(coefficients)]
    for m in range(len(scaled)):
        terms = (scaled[k] * math.comb(k, (k - m) // 2) for k in range(m, len(scaled), 2))
        total += abs(sum(terms, Fraction(0))) * (2 if m else 1)
    return float(total) * WIDER + TINY if total < 2**1000 else math.inf
