"""The sizes that each part of a check-up may have in a time, by what one evaluation takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Sizes = dict[str, Any]
# What each part may take of the time for all, beyond the least that it needs. Their order is that
# of their worth: in it they are let in, done, and done again where time is left.
SHARES = {
    "fit": 0.17,
    "lines": 0.17,
    "noise": 0.19,
    "curvature": 0.25,
    "inside": 0.02,
    "degeneracy": 0.07,
    "surface": 0.07,
    "aligned": 0.06,
}
# Parts that compare points.
OF_PAIRS = ("lines", "inside", "aligned")
# Evaluations of a pair of noise, and of the bisection of a copy.
_OF_A_PAIR, _OF_A_COPY = 2, 12
# Products for an eigenvalue and for the trace, gradients of ascents: the first that fit.
_CURVATURE = ((40, 40, 40), (24, 40, 30), (24, 0, 30), (16, 0, 20))
# Of ascents: each costs a product, of about a gradient, and a value.
_STARTS = 14
# Below so many samples an answer would say little of the others.
LEAST = 32
_LEAST_CURVED = 10
# Numbers that a search may hold.
_MOST_HELD = 10**8
# Seconds a weight of a matching by weights, measured on networks with up to 512 units a layer.
_MATCHING = 1e-6
# Passes of a sample that finding which units may change places takes, in float64; and the time of
# matching by activations, as a multiple of that of the line.
_SYMMETRIES, _ACTIVATIONS = 5000, 5
# Seconds a weight of what explains a degeneracy, whatever the samples: null spaces of layers.
_EXPLAINING = 4e-5
# Outputs times weights whose Jacobian is factored.
_MOST_EQUATIONS = 4 * 10**9
# Seconds for which every part is whole.
_NO_END = 1e12


def sizes_of(plan: dict[str, Any], part: str, seconds: float) -> Sizes | None:
    """
    Choose the largest sizes of a part that fit into a time.

    Parameters
    ----------
    plan : dict
        Of `thalweg.measurements.checkup_plan.make_plan`, with ``fit`` where that is decided.
    part : str
        Of `SHARES`.
    seconds : float
        That it may take.

    Returns
    -------
    dict or None
        With the ``seconds`` that it is expected to take. None where it does not fit, or there is
        nothing to be done. The fit of a few samples is always made.
    """
    if plan["points"] == 1 and part in OF_PAIRS:
        return None
    return _BY_PART[part](plan, max(seconds, 0.0))


def whole_of(plan: dict[str, Any], part: str) -> Sizes | None:
    """Give the sizes of a part that time does not limit."""
    return sizes_of(plan, part, _NO_END)


def _splits(plan: dict[str, Any]) -> tuple[int, int]:
    """Give how many training and test samples there are for all parts: those of the fit."""
    fit = plan.get("fit") or plan
    return fit["train"], fit["test"]


def _fit(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Statistics of the training set; losses; outputs of the data that are judged.
    each = float(plan["seconds"]["value"] * plan["points"])
    train, test = plan["train"], plan["test"]

    def seconds(of_train: int, of_test: int) -> float:
        return each * (2 * of_train + 2 * of_test if test else 3 * of_train)

    share = min(1.0, budget / seconds(train, test))
    if share < 1 and not plan["parted"]:
        return None
    sizes = {"train": _part_of(train, share), "test": _part_of(test, share)}
    return sizes | {"seconds": seconds(**{f"of_{k}": size for k, size in sizes.items()})}


def _part_of(samples: int, share: float) -> int:
    return min(samples, max(LEAST, int(share * samples)))


def _lines(plan: dict[str, Any], budget: float) -> Sizes | None:
    value = plan["seconds"]["value"] * plan["pairs"]
    train, test = _splits(plan)
    for points in (21, 11, 7):
        # Statistics are re-estimated at each point: a second pass over the training set.
        whole = value * points * (2 * train + test)
        if whole <= budget:
            return {"points": points, "samples": train, "seconds": whole}
    samples = min(train, int(budget / (value * points * 3)))
    if samples < min(train, LEAST):
        return None
    return {"points": points, "samples": samples, "seconds": value * points * 3 * samples}


def _noise(plan: dict[str, Any], budget: float) -> Sizes | None:
    points, train = plan["points"], _splits(plan)[0]
    for draws in (20, 12, 8, 6):
        values = plan["seconds"]["value"] * draws * (_OF_A_PAIR + _OF_A_COPY) * points
        samples = min(train, int(budget / values))
        if samples >= min(train, 4 * LEAST):
            break
    if samples < min(train, LEAST):
        return None
    return {"samples": samples, "draws": draws, "seconds": values * samples}


def _curvature(plan: dict[str, Any], budget: float) -> Sizes | None:
    seconds, points, train = plan["seconds"], plan["points"], _splits(plan)[0]
    for products, of_trace, gradients in _CURVATURE:
        each = seconds["product"] * (products + of_trace)
        each += seconds["gradient"] * (gradients + _STARTS) + seconds["value"] * _STARTS
        samples = min(train, int(budget / (points * each)))
        if samples >= min(train, 3 * _LEAST_CURVED):
            break
    if samples < min(train, _LEAST_CURVED):
        return None
    sizes = {"samples": samples, "products": products, "trace_products": of_trace}
    sizes |= {"gradients": gradients, "method": plan["method"], **_held(plan["weights"])}
    return sizes | {"seconds": points * each * samples}


def _held(weights: int) -> Sizes:
    """Bound what searches hold: basis vectors, ascents of two vectors, steps they remember."""
    vectors = _MOST_HELD // weights
    return {
        "basis": min(32, max(8, vectors)),
        "starts": min(_STARTS, max(4, vectors // 2)),
        "memory": min(8, max(2, vectors // 4)),
    }


def _inside(plan: dict[str, Any], budget: float) -> Sizes | None:
    each = plan["seconds"]["value"] * plan["points"] * 2
    train, test = _splits(plan)
    there = test or train
    samples = min(there, int(budget / each), 1000)
    return {"samples": samples, "seconds": each * samples} if samples >= min(there, LEAST) else None


def _degeneracy(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Measured: about sixty gradients over the samples, by Jacobian, kernel and quadrature.
    each = 60 * plan["seconds"]["gradient"] * plan["points"]
    fixed = _EXPLAINING * plan["weights"] * plan["points"]
    train = _splits(plan)[0]
    fitting = int(max(budget - fixed, 0.0) / each)
    samples = min(train, fitting, 100, _MOST_EQUATIONS // (10 * plan["weights"]))
    if samples < min(train, _LEAST_CURVED):
        return None
    return {"samples": samples, "seconds": fixed + each * samples}


def _surface(plan: dict[str, Any], budget: float) -> Sizes | None:
    train = _splits(plan)[0]
    dims = 2 if plan["points"] > 2 else 1
    for along in (25, 17, 11) if dims == 2 else (41, 21, 11):
        cells = 2 * plan["seconds"]["value"] * along**dims
        samples = min(train, int(budget / cells))
        if samples >= min(train, 8 * LEAST):
            break
    if samples < min(train, LEAST):
        return None
    return {"samples": samples, "points": along, "dims": dims, "seconds": cells * samples}


def _aligned(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Matching takes what multiplying all weights by the widest layer takes; swaps have a clock.
    pairs = plan["pairs"]
    matching = pairs * _MATCHING * plan["weights"]
    held = max(3, _MOST_HELD // plan["weights"] // 2)  # each matching holds all weights
    for restarts in (10, 3, 0):
        if 3 + restarts <= held and matching * (3 + restarts) <= 0.4 * budget:
            break
    else:
        return None
    swaps = min(6.0, 0.2 * budget / pairs)
    before = matching * (3 + restarts) + pairs * (swaps + _SYMMETRIES * plan["seconds"]["value"])
    line = _lines(plan, (budget - before) / (1 + _ACTIVATIONS))
    if line is None:
        return None
    seconds = before + (1 + _ACTIVATIONS) * line["seconds"]
    return line | {"restarts": restarts, "swaps": swaps, "seconds": seconds}


_BY_PART: dict[str, Callable[[dict[str, Any], float], Sizes | None]] = {
    "fit": _fit,
    "lines": _lines,
    "noise": _noise,
    "curvature": _curvature,
    "inside": _inside,
    "degeneracy": _degeneracy,
    "surface": _surface,
    "aligned": _aligned,
}
