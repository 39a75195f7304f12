"""
A checker of certificates that trusts nobody.

It shares no code with what finds certificates: it reads arrays and an architecture, derives all
else (W, M, activations and their constants), proves anew, and compares. A sum of n products is
wrong by gamma_n times the sum of sizes (Higham 2002, lemma 3.1); errors are Euclidean norms, and
every bound is widened by more than its own rounding. Digests are compared by `store.verify`: they
tell of damage, and prove nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.blas import dsyrk

from thalweg.certificates.checker_box import prove_margin
from thalweg.certificates.checker_layers import (
    BATCH,
    FINE,
    STRICT,
    TINY,
    UNIT,
    WIDER,
    Array,
    Layer,
    Silent,
    Unknown,
    counts_of,
    gamma,
    need,
    norm,
    positive,
    product,
    read_network,
)
from thalweg.errors import InvalidArgument

FORMATS = {f"thalweg {kind} certificate 2": kind for kind in ("zero", "path", "margin")}
ASSUMPTIONS = (
    "float64 and long double arithmetic is IEEE 754 to nearest",
    "entries of matrix products are sums in some order, each operation rounded or fused",
    "the backward error bound of Cholesky factorization, gamma_(M+1) times the trace",
    "exp, log1p, tanh, sin, cos and the normal distribution function of the libraries are right to"
    " 32 units in the last place of 1 + |x|",
)
COARSE = 2.0**-60  # sums of numbers of 64 bits are finer than this
_TRUSTED = ASSUMPTIONS[1:3]  # not, where all products are numpy's own loops
# What a claim of each kind holds: numbers that have to be equal, those that may only be larger
# than what is proved, and those that may only be smaller.
CLAIMS: dict[str, tuple[str, ...]] = {
    "zero": (
        *("equations", "weights", "dimension", "nullity", "radius", "residual", "lipschitz"),
        *("distance", "singular_value", "slope"),
    ),
    "path": ("equations", "weights", "steps", "length", "direct", "strays", "smallest_radius"),
    "margin": ("weights", "samples", "half_widths", "margin"),
}
_ABOVE = ("residual", "lipschitz", "distance", "strays")
_BELOW = ("singular_value", "slope", "smallest_radius", "margin")
_CONTENT = {"format", "claim", "problem", "network", "outputs", "numbers", "sha256", "assumptions"}
_LABELS = {"state"}  # may be left out: nothing is proved of it


@dataclass(frozen=True)
class Verdict:
    """
    The answer of `check`.

    Attributes
    ----------
    verdict : {"verified", "refused"}
        Verified: the claim is no stronger than what was proved anew.
    reasons : tuple of str
        Why not.
    certificate : SimpleNamespace or None
        The numbers that were proved anew, as `CLAIMS` names them; None where nothing was tried.
    assumptions : tuple of str
        All that the proof takes for granted.
    """

    verdict: str
    reasons: tuple[str, ...]
    certificate: SimpleNamespace | None = None
    assumptions: tuple[str, ...] = ASSUMPTIONS

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values; what is not finite becomes None."""
        numbers = {} if self.certificate is None else vars(self.certificate)
        lost = {k for k, v in numbers.items() if isinstance(v, float) and not math.isfinite(v)}
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "certificate": (numbers | dict.fromkeys(lost)) or None,
            "assumptions": list(self.assumptions),
        }


def check(
    path: str | os.PathLike[str], *, strict: bool = False, progress: Callable[..., Any] = Silent
) -> Verdict:
    """
    Prove a stored certificate anew, from nothing but the numbers beside it.

    Parameters
    ----------
    path : path
        The JSON file.
    strict : bool
        Trust no library's matrix products or factorization: products are numpy's own loops of long
        double, and Cholesky factors are multiplied out.
        Some 10 times slower for M = 200, 50 times for M = 600.
    progress : callable
        Makes a bar of a number of steps and a label.

    Returns
    -------
    Verdict
        Refused with one line where anything is damaged or unknown.

    Raises
    ------
    InvalidArgument
        If there is no certificate.
    """
    try:
        content = parse(Path(path).read_bytes())
        kind = FORMATS[content["format"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidArgument(
            f"{path} is no certificate that can be read ({error!r}); give a file that"
            " `thalweg certify ... --out CERT.json` wrote."
        ) from None
    try:
        arrays = read(Path(path), content)
        _check_claim(kind, content)
        proved, reasons = prove(content, arrays, strict=strict, progress=progress)
        reasons += _compare(content["claim"], proved)
    except (Unknown, ArithmeticError, MemoryError, np.linalg.LinAlgError) as error:
        return Verdict("refused", (str(error) or repr(error),))
    if reasons and FINE > COARSE:
        reasons.append(
            f"this machine has no 80-bit long double, and bounds residuals to {FINE:.1g} of their"
            " terms: one that has it may prove what is refused here"
        )
    trusted = tuple(text for text in ASSUMPTIONS if not (strict and text in _TRUSTED))
    verdict = "refused" if reasons else "verified"
    return Verdict(verdict, tuple(reasons), SimpleNamespace(**proved), trusted)


def prove(
    content: dict[str, Any],
    arrays: dict[str, Array],
    *,
    strict: bool = False,
    progress: Callable[..., Any] = Silent,
) -> tuple[dict[str, Any], list[str]]:
    """
    Prove what a certificate asks for: give the numbers, and why they are no proof if they are none.

    Of the claim are used: the radius, or half-widths, and the singular value that are to be proved.
    """
    kind, before = FORMATS[content["format"]], STRICT.set(strict)
    try:
        with np.errstate(all="ignore"):  # what is not finite proves nothing
            proved, reasons = _PROOFS[kind](content, arrays, progress)
    finally:
        STRICT.reset(before)
    claimed, count = content["network"]["weights"], proved["weights"]
    if claimed != count:
        reasons.append(f"the network is said to have {claimed} weights and has {count}")
    return proved, reasons


# What the files say


def parse(text: bytes) -> Any:
    """Read JSON in which no name is given twice and every number is one."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "a name is given twice")
        return dict(pairs)

    def never(name: str) -> None:
        raise Unknown(f"{name} is no number")

    return json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=never)


def read(path: Path, content: dict[str, Any]) -> dict[str, Array]:
    """Read the numbers beside a certificate (safetensors): float64, finite, and nothing else."""
    complete = set(content) - _LABELS == _CONTENT
    need(complete, f"it holds {sorted(content)}, expected {sorted(_CONTENT)}")
    name, arrays, end = content["numbers"], {}, 0
    need(isinstance(name, str) and name == Path(name).name, f"numbers {name!r} is no plain name")
    need(isinstance(content["problem"], dict | None), "the problem is neither null nor a table")
    need(isinstance(content.get("state"), str | None), "the digest of the state is no text")
    try:
        data = (path.parent / name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = parse(data[8:start])
        for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            shape = counts_of(entry["shape"], len(entry["shape"]), 1)
            last = end + 8 * math.prod(shape)
            need(entry["data_offsets"] == [end, last], f"{key} is not as long as its shape says")
            need(set(entry) == {"dtype", "shape", "data_offsets"}, f"{key} says too much")
            need(entry["dtype"] == "F64", f"{key} is not of float64")
            values = np.frombuffer(data[start + end : start + last], "<f8").reshape(shape)
            need(np.isfinite(values).all(), f"{key} holds numbers that are not finite")
            arrays[str(key)], end = values.astype(np.float64), last
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unknown(f"{name}: no numbers that can be read ({error})") from None
    need(start + end == len(data), f"{name} is longer or shorter than it says")
    return arrays


def _check_claim(kind: str, content: dict[str, Any]) -> None:
    claim, names = content["claim"], CLAIMS[kind]
    keys = sorted(("verdict", "reasons", *names))
    need(isinstance(claim, dict) and sorted(claim) == keys, f"a claim holds {keys}")
    says = "connected" if kind == "path" else "certified"
    need(claim["verdict"] == says, f"the certificate itself says {claim['verdict']!r}")
    need(claim["reasons"] == [], "the certificate gives reasons against itself")
    need(content["assumptions"] == list(ASSUMPTIONS), "the assumptions are not those of the proof")
    for name in names:
        several = name == "half_widths" and isinstance(claim[name], list)
        for number in claim[name] if several else [claim[name]]:
            right = type(number) in (int, float) and 0 <= number < math.inf
            need(right, f"{name} is {number!r}, expected a number from 0 up")


def _compare(claim: dict[str, Any], proved: dict[str, Any]) -> list[str]:
    def holds(name: str, claimed: Any, found_here: Any) -> bool:
        if name in _ABOVE or name in _BELOW:
            return bool(claimed >= found_here if name in _ABOVE else claimed <= found_here)
        return claimed == found_here or (
            type(found_here) is float and math.isclose(claimed, found_here, rel_tol=1e-12)
        )

    wrong = [
        name for name, found_here in proved.items() if not holds(name, claim[name], found_here)
    ]
    return [f"{name}: recorded {claim[name]}, proved {proved[name]}" for name in wrong]


# An exact zero


class _Equations(NamedTuple):
    samples: Array  # each input once
    targets: Array
    rows: Array  # combinations of outputs that are to vanish, orthogonal, of norms below 2
    total: float | None  # what the outputs' sum is held at by equations on the last layer


def _equations(
    content: dict[str, Any], arrays: dict[str, Array], layers: list[Layer]
) -> _Equations:
    """Find independent equations; where there are two ways, the recorded M tells which."""
    samples, targets, last = arrays["inputs"], arrays["targets"], layers[-1]
    outputs = targets.shape[1]
    need(len(last.weight) * len(last.reads) == outputs, f"targets of {outputs} numbers do not fit")
    _, first, group = np.unique(samples, axis=0, return_index=True, return_inverse=True)
    alike = np.array_equal(targets, targets[first[group.reshape(-1)]])
    need(alike, "samples with one input have two targets: no function fits both")
    samples, targets = samples[np.sort(first)], targets[np.sort(first)]
    chosen, features = content["outputs"], last.weight.shape[1] + 1
    if chosen is not None:
        chosen = counts_of(chosen, len(chosen) if isinstance(chosen, list) else 0)
        right = 0 < len(set(chosen)) == len(chosen) and max(chosen) < outputs
        need(right, f"outputs {chosen} are not some of {outputs}")
        return _Equations(samples, targets, np.eye(outputs)[chosen], None)
    if content["claim"]["equations"] != len(samples) * (outputs - 1) + features:
        return _Equations(samples, targets, np.eye(outputs), None)
    total = math.fsum(targets[0])
    exact = all(math.fsum([*row, -total]) == 0 for row in targets) and all(last.trained)
    need(exact and len(last.reads) == 1 < outputs, "the outputs' sum cannot be held")
    rows = np.zeros((outputs - 1, outputs))  # Helmert's, scaled by powers of two
    for k in range(1, outputs):
        rows[k - 1, :k], rows[k - 1, k] = 1.0, -k
        rows[k - 1] *= 0.5 ** math.floor(math.log2(math.sqrt(k * (k + 1))))
    return _Equations(samples, targets, rows, total)


class _Pass(NamedTuple):
    """What a forward pass knows of a layer at n samples; of vectors, one number a sample."""

    patches: Array  # (n, T, in), float64
    size: Array  # of all patches, with their error
    wide: Array  # of the largest patch and a 1, with their error
    lost: Array  # error of the patches
    z: Array  # (n, units), float64
    z_lost: Array
    slopes: Array  # (n, units), float64
    slopes_lost: Array  # the largest


def _forward(layers: list[Layer], samples: Array) -> tuple[list[_Pass], Any, Array]:
    """Evaluate in long double, with a bound of each sample's error."""
    a, lost, passes = samples.astype(np.longdouble), np.zeros(len(samples)), []
    for layer in layers:
        fine = layer.patches(a)
        patches, places = fine.astype(np.float64), len(layer.reads)
        size = norm(patches, (1, 2))
        z = (fine @ layer.weight.T + layer.bias).transpose(0, 2, 1).reshape(len(a), -1)
        height = size * norm(layer.weight) + math.sqrt(places) * norm(layer.bias)
        z_lost = (layer.gain * lost + gamma(fine.shape[2] + 2, FINE) * height) * WIDER + TINY
        inner = (layer.overlap * lost + 2 * UNIT * size) * WIDER
        wide = np.hypot(norm(patches, 2).max(axis=1), 1) + inner
        slopes, wrong = layer.evaluate(z, 1)
        steep = (wrong + UNIT * np.abs(slopes).astype(np.float64)).max(axis=1)
        coarse = z.astype(np.float64), z_lost + UNIT * norm(z, 1), slopes.astype(np.float64)
        passes.append(_Pass(patches, size + inner, wide, inner, *coarse, steep))
        values, wrong = layer.evaluate(z, 0)
        lost = (_steepest(layer, passes[-1], z_lost)[0] * z_lost + norm(wrong, 1)) * WIDER
        a = values
    return passes, a, lost


def _steepest(layer: Layer, passed: _Pass, around: Array) -> tuple[Array, float]:
    """Bound slopes and second derivative as far as ``around`` from each pre-activation."""
    first, second = layer.bounds(float((np.abs(passed.z).max(axis=1) + around).max()) * WIDER)
    near = np.abs(passed.slopes).max(axis=1) + passed.slopes_lost + second * around
    return np.full(len(near), first) if layer.sided else np.minimum(first, near) * WIDER, second


def _backward(
    layers: list[Layer], passes: list[_Pass], rows: Array
) -> Iterator[tuple[Array, Array]]:
    """Pull combinations back, the last layer first: (n, k, T, out), and their errors (n, k)."""
    n, k = len(passes[0].z), len(rows)
    cut = rows.reshape(k, len(layers[-1].weight), -1).transpose(0, 2, 1)
    delta, lost = np.broadcast_to(cut, (n, *cut.shape)), np.zeros((n, k))
    for layer, below, passed in zip(layers[:0:-1], layers[-2::-1], passes[-2::-1], strict=True):
        yield delta, lost
        rounding = gamma(len(layer.weight) + layer.overlap**2 + 2) * norm(layer.weight)
        wrong = layer.gain * lost + 2 * rounding * norm(delta, (2, 3)) * layer.overlap
        pulled = layer.spread(product(delta, layer.weight))
        steep, second = _steepest(below, passed, passed.z_lost)
        bent = (second * passed.z_lost + passed.slopes_lost + 2 * UNIT * steep)[:, None]
        lost = (steep[:, None] * wrong + bent * (norm(pulled, 2) + wrong)) * WIDER
        delta = (pulled * passed.slopes[:, None]).reshape(n, k, len(below.weight), -1)
        delta = np.ascontiguousarray(delta.transpose(0, 1, 3, 2))
    yield delta, lost


class _Gram:
    """J J^T, put together of layers' factors, with what is wrong in J and in the product."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers, self.wrong, self.rounding = layers, 0.0, 0.0
        self.parts: list[list[tuple[Array, Array]]] = [[] for _ in layers]

    def add(self, passes: list[_Pass], rows: Array) -> None:
        """Take the factors of some samples."""
        pulled = list(_backward(self.layers, passes, rows))[::-1]
        for i, (passed, (delta, lost)) in enumerate(zip(passes, pulled, strict=True)):
            n, k, places, _ = delta.shape
            size, trained = norm(delta, (2, 3)), self.layers[i].trained
            reach = np.hypot(passed.size, math.sqrt(places))[:, None]
            wrong = lost * reach + size * (passed.lost[:, None] + gamma(places + 1) * reach)
            self.wrong += float(np.square(wrong).sum()) * any(trained)
            if places == 1:
                self.parts[i].append((passed.patches[:, 0], delta[:, :, 0]))
                continue
            turned = product(delta.transpose(0, 1, 3, 2).reshape(n, -1, places), passed.patches)
            pair = (turned.reshape(n * k, -1) * trained[0], delta.sum(2).reshape(n * k, -1))
            self.parts[i].append((pair[0], pair[1] * trained[1]))

    def matrix(self, rows: int) -> Array:
        """Multiply the factors, which are used up: the lower triangle."""
        total, terms = np.zeros((rows, rows)), 2 * len(self.layers)
        for i, layer in enumerate(self.layers):
            left, right = (np.concatenate(side) for side in zip(*self.parts[i], strict=True))
            self.parts[i], size = [], np.square(norm(left, 1))
            if len(layer.reads) > 1:
                for side in (left, right):
                    _add_square(total, side)
                trace = float(size.sum() + np.square(norm(right)))
            else:
                scale = layer.trained[0] * size + layer.trained[1]
                trace = float((np.square(norm(right, 2)) * scale[:, None]).sum())
                _add_product(total, left, right, layer.trained)
            inner = left.shape[1] + right.shape[-1] + terms + 10
            self.rounding += gamma(inner) * trace * WIDER
        return total


def _add_square(total: Array, side: Array) -> None:
    """Add ``side side^T`` to the lower triangle."""
    if not STRICT.get():
        dsyrk(1.0, side.T, beta=1.0, c=total.T, trans=1, lower=0, overwrite_c=1)
        return
    for start in range(0, len(side), BATCH):
        rows = slice(start, start + BATCH)
        total[rows, : start + BATCH] += product(side[rows], side[: start + BATCH].T)


def _add_product(total: Array, a: Array, delta: Array, trained: tuple[bool, bool]) -> None:
    """Add ``(a_i . a_j + 1) (delta_ik . delta_jl)`` to the lower triangle."""
    n, k, _ = delta.shape
    flat = np.ascontiguousarray(delta.reshape(n * k, -1))
    for start in range(0, n if any(trained) else 0, BATCH):
        stop = min(start + BATCH, n)
        inputs = trained[0] * product(a[start:stop], a[:stop].T) + trained[1]
        pairs = product(flat[start * k : stop * k], flat[: stop * k].T).reshape(-1, k, stop, k)
        pairs *= inputs[:, None, :, None]
        total[start * k : stop * k, : stop * k] += pairs.reshape(-1, stop * k)


def _second(layers: list[Layer], passes: list[_Pass], radius: float) -> tuple[Array, Array, int]:
    """
    Bound second derivatives over the ball, how far the last layer's inputs move, and who leaves.

    With D and S bounds of the first two derivatives of a layer's inputs, an affine layer of norm
    omega gives ``D' = |(|(a, 1)|, omega D)|``, and its second derivative at (v, v) is at most
    ``2 |V| |Da| + omega S``: no more than the larger eigenvalue of ((0, D), (D, omega S)).
    """
    moved = first = second = before = np.zeros(len(passes[0].z))
    leaving = 0
    for layer, passed in zip(layers, passes, strict=True):
        before, (weight, bias) = moved, layer.trained
        omega = layer.gain + radius * weight * layer.overlap
        lift = np.sqrt(weight * passed.size**2 + bias * len(layer.reads))
        shift = radius * lift + omega * moved
        steep = np.hypot(lift + layer.overlap * moved, omega * first)
        wide = (passed.wide + layer.overlap * moved) * (weight or bias)
        row = float(norm(layer.weight, 1).max()) + radius * weight
        drift = np.minimum(radius * wide + row * moved, shift)
        around = (drift + passed.z_lost) * WIDER
        slope, curvature = _steepest(layer, passed, around)
        leaving += layer.leaving(passed.z - around[:, None], passed.z + around[:, None])
        mixed, carried = weight * layer.overlap * first, omega * second
        bent = (carried + np.sqrt(carried**2 + 4 * mixed**2)) / 2
        second = (curvature * np.hypot(wide, row * first) * steep + slope * bent) * WIDER
        moved, first = slope * shift * WIDER, slope * steep * WIDER
    return second, before, leaving


def _prove_zero(
    layers: list[Layer],
    equations: _Equations,
    claim: dict[str, Any],
    progress: Callable[..., Any] = Silent,
) -> tuple[dict[str, Any], list[str]]:
    """
    Prove an exact zero next to w, with the radius and the singular value that are claimed.

    If singular values of J are at least mu on the ball of radius rho, and ``|F(w)| < mu rho``, the
    flow ``w' = -J^T (J J^T)^-1 F`` ends in a zero within ``|F(w)| / mu`` of w.
    """
    samples, targets, rows, total = equations
    radius, low, k = float(claim["radius"]), float(claim["singular_value"]), len(rows)
    weights, last, sum_error = sum(layer.size for layer in layers), layers[-1], 0.0
    count = len(samples) * k + (last.weight.shape[1] + 1 if total is not None else 0)
    need(count <= weights, f"W = {weights} is less than M = {count}")
    if total is not None:  # rows that sum to (0, ..., 0, total): orthonormal, J = 1 on them
        sums = [math.fsum(column) for column in last.weight.T]
        sums.append(math.fsum([*last.bias, -total]))
        sum_error, low = float(norm(np.array(sums))) / math.sqrt(len(last.weight)), min(low, 1.0)
    gram, squares, seconds, moves, leaving = _Gram(layers), np.zeros(2), 0.0, 0.0, 0
    features, stretch = [], 1.0 if np.isin(rows, (0.0, 1.0)).all() else 2.0
    batches = -(-len(samples) // BATCH)
    with progress(3 * batches, "proof") as bar:
        for start in range(0, len(samples), BATCH):
            batch_targets = targets[start : start + BATCH]
            passes, outputs, lost = _forward(layers, samples[start : start + BATCH])
            size = norm(outputs, 1) + norm(batch_targets, 1)
            lost = stretch * (lost + gamma(3 + len(rows.T), FINE) * size * math.sqrt(k))
            squares += [np.square(norm((outputs - batch_targets) @ rows.T)), np.square(lost).sum()]
            gram.add(passes, rows)
            second, moved, leave = _second(layers, passes, radius)
            seconds, leaving = seconds + float(np.square(second).sum()), leaving + leave
            moves += float(np.square(passes[-1].lost + moved).sum())
            features.append(passes[-1].patches[:, 0])
            bar.update(1)
        matrix = gram.matrix(len(samples) * k)
        bar.update(batches)
        least = (low + math.sqrt(gram.wrong)) * WIDER
        least = least * least + gram.rounding
        low = low if low > 0 and positive(matrix, least * WIDER) else 0.0
        bar.update(batches)
    computed, wrong = (float(root) * WIDER for root in np.sqrt(squares))
    residual = math.hypot(computed + wrong, sum_error) * WIDER
    lipschitz = stretch * math.sqrt(seconds) * WIDER
    slope = (low - lipschitz * radius * WIDER) / WIDER
    distance = residual / slope * WIDER if slope > 0 else math.inf
    reasons = [f"{leaving} units may leave a piece of their activation"] * (leaving > 0)
    if total is not None and not _independent(np.concatenate(features), moves):
        reasons.append("the last layer's features are not shown to be independent")
    if not distance < radius:
        reasons.append(f"the distance {distance:.3g} is not below the radius {radius:.3g}")
    numbers = (count, weights, weights - count, weights - count, radius, residual, lipschitz)
    proved = dict(zip(CLAIMS["zero"], (*numbers, distance, low, slope), strict=True))
    return proved, reasons


def _independent(features: Array, moves: float) -> bool:
    """Prove that features and their 1, wrong by a norm whose square is given, are independent."""
    a = np.column_stack([features, np.ones(len(features))])
    matrix = product(a.T, a)
    least = float(np.linalg.eigvalsh(matrix)[0]) / 2
    proved = least > 0 and positive(matrix, least + gamma(len(a) + 1) * float(norm(a)) ** 2)
    return bool(proved and least > moves * WIDER**2)


# A path of zeros


def _prove_path(
    content: dict[str, Any], arrays: dict[str, Array], progress: Callable[..., Any]
) -> tuple[dict[str, Any], list[str]]:
    """
    Prove that zeros join those next to each two consecutive points.

    Both zeros and the segment between them lie within ``d = |v - w| + e_w + e_v`` of w; F vanishes
    at its ends, so along it ``|F| <= L d^2 / 8``, and the flow carries the segment to zeros, no
    point by more than ``L d^2 / (8 mu)``: into the ball around w, where that and d are below rho.
    """
    named = {name for name in arrays if name[0].isdigit()}
    marks, points = {"radius", "singular_value"}, len(arrays.get("radius", ()))
    stacked = [arrays[name] for name in sorted(named | (marks & set(arrays)))]
    need(points > 1 and all(len(a) == points for a in stacked), "stacks of points do not fit")
    need(all(arrays[name].ndim == 1 for name in marks & set(arrays)), "a ball has two radii")
    zeros, reasons = [], []
    with progress(points, "proof of the path") as bar:
        for p in range(points):
            start = {name: a[p] if name in named | marks else a for name, a in arrays.items()}
            layers = read_network(content, start, marks)
            claim = {name: float(start[name]) for name in marks} | {"equations": -1}
            zero, wrong = _prove_zero(
                layers, _equations(content | {"claim": claim}, start, layers), claim
            )
            zeros.append(zero)
            reasons += [f"point {p}: {reason}" for reason in wrong]
            bar.update(1)
    parts = []
    for name in sorted(named):
        flat = arrays[name].reshape(points, -1)
        trained = layers[int(name.split(".")[0])].trained[name.endswith("bias")]
        need(trained or (flat == flat[0]).all(), f"{name} is not trained and changes on the path")
        parts.append(flat)
    w = np.concatenate(parts, 1)
    moves, strays = np.linalg.norm(np.diff(w, axis=0), axis=1), zeros[0]["distance"]
    for p, (start, end) in enumerate(pairwise(zeros)):
        d = (float(moves[p]) * WIDER + start["distance"] + end["distance"]) * WIDER
        across = start["lipschitz"] * d * d / (8 * start["slope"]) * WIDER
        strays = max(strays, (start["distance"] + end["distance"] + across) * WIDER)
        if not (start["slope"] > 0 and (d + across) * WIDER < start["radius"]):
            reasons.append(f"the balls of points {p} and {p + 1} do not overlap enough")
    numbers = (zeros[0]["equations"], zeros[0]["weights"], points - 1, float(moves.sum()))
    more = (float(np.linalg.norm(w[-1] - w[0])), strays, float(arrays["radius"].min()))
    return dict(zip(CLAIMS["path"], numbers + more, strict=True)), reasons


def _zero(
    content: dict[str, Any], arrays: dict[str, Array], progress: Callable[..., Any]
) -> tuple[dict[str, Any], list[str]]:
    layers = read_network(content, arrays, set())
    return _prove_zero(layers, _equations(content, arrays, layers), content["claim"], progress)


_PROOFS = {"zero": _zero, "path": _prove_path, "margin": prove_margin}
