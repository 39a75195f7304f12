"""How much of each part of a check-up fits into the time that is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from thalweg.measurements.checkup_subject import Subject

# Timed on so many samples; on the second number where the first is too quick to tell.
_TIMED, _TIMED_AGAIN = 32, 256
_QUICK = 0.05
# Of the time that is given; the rest is for what is not counted: reading, pictures, the page.
_SHARE = 0.7
_SHARES = {"flatness": 0.5, "lines": 0.25, "surface": 0.13, "degeneracy": 0.12}
# Evaluations of a pair of noise, and of the bisection of a copy.
_OF_A_PAIR, _OF_A_COPY = 2, 12
PRODUCTS, TRACE_PRODUCTS, GRADIENTS = 40, 40, 40
# Below so many samples an answer would say little of the others.
_LEAST = 32
_LEAST_CURVED = 16


def make_plan(subject: Subject, minutes: float) -> dict[str, Any]:
    """
    Time one value, gradient and product, and allot the time.

    Parameters
    ----------
    subject : Subject
        Problem and points.
    minutes : float
        That all parts may take together.

    Returns
    -------
    dict
        ``seconds`` a sample of a ``value``, ``gradient`` and ``product``; and the sizes of
        ``flatness``, ``lines``, ``degeneracy`` and ``surface``, each None where it does not fit,
        with ``why``.
    """
    start = time.perf_counter()
    seconds = _seconds(subject)
    train, test = len(subject.problem.samples("train")), 0
    if subject.problem.test is not None:
        test = len(subject.problem.samples("test"))
    points, pairs = len(subject.points), max(1, len(subject.pairs))
    fit = seconds["value"] * points * (3 * train + 2 * test)
    left = _SHARE * (60 * minutes - (time.perf_counter() - start)) - fit
    budget = {name: max(0.0, left * share) for name, share in _SHARES.items()}
    if points == 1:
        budget["flatness"] += budget.pop("lines")
        budget["lines"] = 0.0
    weights = subject.risk.space.size
    return {
        "seconds": seconds,
        "minutes": minutes,
        "pairs": len(subject.pairs),
        "weights": weights,
        "train": train,
        "test": test,
        "flatness": _flatness(seconds, train, budget["flatness"] / points),
        "lines": _lines(seconds, train, test, budget["lines"] / pairs) if points > 1 else None,
        "degeneracy": _degeneracy(seconds, train, weights, budget["degeneracy"] / points),
        "surface": _surface(seconds, train, points, budget["surface"]),
    }


def _seconds(subject: Subject) -> dict[str, float]:
    """Give seconds a sample of a value, a gradient and a product with the Hessian."""
    found = _seconds_on(subject, _TIMED)
    return _seconds_on(subject, _TIMED_AGAIN) if found["product"] * _TIMED < _QUICK else found


def _seconds_on(subject: Subject, samples: int) -> dict[str, float]:
    risk, w = subject.few(0, samples)
    v = torch.ones_like(w)
    hessian = risk.hessian(w)
    work: dict[str, Callable[[], object]] = {
        "value": lambda: risk.value(w),
        "gradient": lambda: risk.gradient(w),
        "product": lambda: hessian @ v,
    }
    return {name: _timed(call) / risk.samples for name, call in work.items()}


def _timed(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _flatness(seconds: dict[str, float], train: int, budget: float) -> dict[str, int] | None:
    curved = seconds["product"] * (PRODUCTS + TRACE_PRODUCTS) + seconds["gradient"] * GRADIENTS
    few = min(train, int(0.55 * budget / curved))
    for draws in (20, 12, 8):
        values = seconds["value"] * draws * (_OF_A_PAIR + _OF_A_COPY)
        many = min(train, int(0.45 * budget / values))
        if many >= min(train, 4 * _LEAST):
            break
    if few < min(train, _LEAST_CURVED) or many < min(train, _LEAST):
        return None
    return {"samples": many, "draws": draws, "curved_samples": few}


def _lines(
    seconds: dict[str, float], train: int, test: int, budget: float
) -> dict[str, int] | None:
    for points in (21, 11, 7):
        # Statistics are re-estimated at each point: a second pass over the training set.
        whole = seconds["value"] * points * (2 * train + test)
        if whole <= budget:
            return {"points": points, "samples": train}
    samples = int(budget / (seconds["value"] * points * 3))
    return {"points": points, "samples": min(train, samples)} if samples >= _LEAST else None


def _degeneracy(
    seconds: dict[str, float], train: int, weights: int, budget: float
) -> dict[str, int] | None:
    # Measured: about sixty gradients over the samples, by Jacobian, kernel and quadrature.
    samples = min(train, int(budget / (60 * seconds["gradient"])), 100)
    return {"samples": samples} if samples >= min(train, _LEAST_CURVED) else None


def _surface(
    seconds: dict[str, float], train: int, points: int, budget: float
) -> dict[str, int] | None:
    dims = 2 if points > 2 else 1
    for along in (25, 17, 11) if dims == 2 else (41, 21, 11):
        samples = min(train, int(budget / (2 * seconds["value"] * along**dims)))
        if samples >= min(train, 8 * _LEAST):
            break
    if samples < min(train, _LEAST):
        return None
    return {"samples": samples, "points": along, "dims": dims}


def told_plan(plan: dict[str, Any]) -> list[str]:
    """Write the sizes in words, one line a part."""
    flat, line, kernel, drawn = (
        plan[name] for name in ("flatness", "lines", "degeneracy", "surface")
    )
    none = "does not fit; give more --minutes"
    rows = [
        f"sizes for {plan['minutes']:g} min: {plan['weights']:,} weights, {plan['train']:,}"
        f" training and {plan['test']:,} test samples",
        "  loss, error, confidence: all samples",
        "  flatness: "
        + (
            none
            if flat is None
            else f"{flat['draws']} draws of noise on {flat['samples']:,} training samples,"
            f" curvature on {flat['curved_samples']:,}"
        ),
        f"  degeneracy: {none if kernel is None else _of(kernel['samples'])}",
    ]
    if plan["pairs"]:
        told = none if line is None else f"{line['points']} points on {_of(line['samples'])}"
        rows.insert(2, f"  lines between checkpoints: {told}")
    shape = "" if drawn is None else " x ".join([str(drawn["points"])] * drawn["dims"])
    rows.append(
        "  surface: " + (none if drawn is None else f"{shape} points on {_of(drawn['samples'])}")
    )
    return rows


def _of(samples: int) -> str:
    return f"{samples:,} training samples"
