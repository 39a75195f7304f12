"""How much of each part of a check-up fits into the time that is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from thalweg.curvature.vector_products import Method
from thalweg.errors import ThalwegError
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk

Sizes = dict[str, Any]
# Timed on so many samples, fewer where these are slow; on the second number where they are quick.
_TIMED, _TIMED_FIRST, _TIMED_AGAIN = 32, 4, 256
_QUICK, _SLOW = 0.05, 1.0
# Of the time that is given; the rest is for what is not counted: reading, pictures, the page.
OF_ALL = 0.8
# Share of the time for the self-check; gradients that it costs a sample, most in float64; the
# samples whose derivatives it compares, the fewest that it may, and no bound.
_FOR_CHECK, _CHECK_GRADIENTS, _CHECKED, _LEAST_CHECKED, _ALL_OF_CHECK = 0.03, 40, 8, 2, 10**9
# What each part may take of what is left for it and those after it, in the order in which they are
# done.
SHARES = {
    "fit": 0.17,
    "lines": 0.17,
    "flatness": 0.44,
    "inside": 0.02,
    "degeneracy": 0.07,
    "surface": 0.07,
    "aligned": 0.06,
}
# Evaluations of a pair of noise, and of the bisection of a copy.
_OF_A_PAIR, _OF_A_COPY = 2, 12
# Products for an eigenvalue and for the trace, gradients of ascents: the first that fit.
_CURVATURE = ((40, 40, 40), (24, 40, 30), (24, 0, 30), (16, 0, 20))
# Of ascents: each costs a product, of about a gradient, and a value.
_STARTS = 14
# Below so many samples an answer would say little of the others.
_LEAST = 32
_LEAST_CURVED = 10
# Numbers that a search may hold.
_MOST_HELD = 10**8
# Seconds a weight of a matching by weights, measured on networks with up to 512 units a layer.
_MATCHING = 1e-6
# Outputs times weights whose Jacobian is factored.
_MOST_EQUATIONS = 4 * 10**9


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
        ``seconds`` a sample of a ``value``, ``gradient`` and ``product``; ``method`` of products;
        ``checked``, the self-check; and the sizes of each part of `SHARES`, with the ``seconds``
        that it is expected to take, None where it does not fit.
    """
    start = time.perf_counter()
    subject.check = subject.checked_on(_samples_of_check(subject, 60 * minutes))
    few = subject.limited(_TIMED_AGAIN, _TIMED_AGAIN)  # statistics of all would take too long
    method = _method(few)
    plan: dict[str, Any] = {
        "checked": subject.check.to_dict(),
        "seconds": _seconds(few, method),
        "method": method,
        "minutes": minutes,
        "points": len(subject.points),
        "pairs": len(subject.pairs),
        "weights": few.risk.space.size,
        "train": len(subject.problem.samples("train")),
        "test": 0 if subject.problem.test is None else len(subject.problem.samples("test")),
        "parted": subject.parted,
    }
    left = OF_ALL * 60 * minutes - (time.perf_counter() - start)
    for part in SHARES:
        plan[part] = allot(plan, part, left)
        left -= 0.0 if plan[part] is None else plan[part]["seconds"]
    return plan


def allot(plan: dict[str, Any], part: str, left: float, slow: float = 1.0) -> Sizes | None:
    """
    Choose the sizes of a part.

    Parameters
    ----------
    plan : dict
        Of `make_plan`, with the parts before this one.
    part : str
        Which.
    left : float
        Seconds for it and those that come after it.
    slow : float
        How many times slower the machine has become since it was timed.

    Returns
    -------
    dict or None
        None where it does not fit, or there is nothing to be done.
    """
    names = list(SHARES)
    later = names[names.index(part) :]
    if plan["points"] == 1:
        later = [name for name in later if name not in _OF_PAIRS]
    if part not in later:
        return None
    budget = left * SHARES[part] / sum(SHARES[name] for name in later)
    found = _BY_PART[part](plan, budget / slow)
    return None if found is None else found | {"seconds": found["seconds"] * slow}


def smaller(first: Sizes | None, last: Sizes | None) -> Sizes | None:
    """Give the sizes that take less time."""
    if first is None or last is None:
        return None
    return min(first, last, key=lambda sizes: sizes["seconds"])


def _samples_of_check(subject: Subject, seconds: float) -> int:
    """Choose on how many samples the self-check is made: all of its own where these are quick."""
    problem = subject.sampled(_TIMED_FIRST)
    try:
        risk = EmpiricalRisk(problem, batchnorm="frozen", dtype=subject.dtype, check=False)
        w = risk.space.pack(problem.model).to(risk.dtype)
        risk.gradient(w)  # the first call loads what it needs
        each = _timed(lambda: risk.gradient(w)) / risk.samples
    except (RuntimeError, TypeError, ThalwegError):  # the check says what is wrong
        return _ALL_OF_CHECK
    affordable = int(_FOR_CHECK * seconds / (_CHECK_GRADIENTS * each))
    return _ALL_OF_CHECK if affordable >= _CHECKED else max(_LEAST_CHECKED, affordable)


def _seconds(subject: Subject, method: Method | None) -> dict[str, float]:
    """Give seconds a sample of a value, a gradient and a product with the Hessian."""
    _seconds_on(subject, _TIMED_FIRST, method)  # the first calls load what they need
    first = _seconds_on(subject, _TIMED_FIRST, method)
    if first["product"] * _TIMED_FIRST > _SLOW:
        return _seconds_on(subject, 2 * _TIMED_FIRST, method)
    found = _seconds_on(subject, _TIMED, method)
    again = found["product"] * _TIMED < _QUICK
    return _seconds_on(subject, _TIMED_AGAIN, method) if again else found


def _seconds_on(subject: Subject, samples: int, method: Method | None) -> dict[str, float]:
    risk, w = subject.few(0, samples)
    v = torch.ones_like(w)
    hessian = risk.hessian(w, method=method)
    hessian @ v  # prepares the others
    work: dict[str, Callable[[], object]] = {
        "value": lambda: risk.value(w),
        "gradient": lambda: risk.gradient(w),
        "product": lambda: hessian @ v,
    }
    return {name: _timed(call) / risk.samples for name, call in work.items()}


def _method(subject: Subject) -> Method | None:
    """Choose how products are taken: tracing, which few of them do not repay, only where needed."""
    risk, w = subject.few(0, _TIMED_FIRST)
    try:
        risk.hessian(w, method="graph") @ torch.ones_like(w)
    except (RuntimeError, TypeError, ThalwegError):  # some models refuse, each in its own way
        return None
    return "graph"


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _fit(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Statistics of the training set; losses; outputs of the data that are judged.
    value, points = plan["seconds"]["value"], plan["points"]
    train, test = plan["train"], plan["test"]
    passes = (2 * train + 2 * test) if test else 3 * train
    share = min(1.0, budget / (value * points * passes))
    if share < 1 and not plan["parted"]:
        return None
    sizes = {"train": _part_of(train, share), "test": _part_of(test, share)}
    return sizes | {"seconds": value * points * passes * share}


def _part_of(samples: int, share: float) -> int:
    return min(samples, max(_LEAST, int(share * samples)))


def _lines(plan: dict[str, Any], budget: float) -> Sizes | None:
    value = plan["seconds"]["value"] * plan["pairs"]
    train, test = plan["fit"]["train"], plan["fit"]["test"]
    for points in (21, 11, 7):
        # Statistics are re-estimated at each point: a second pass over the training set.
        whole = value * points * (2 * train + test)
        if whole <= budget:
            return {"points": points, "samples": train, "seconds": whole}
    samples = min(train, int(budget / (value * points * 3)))
    if samples < min(train, _LEAST):
        return None
    return {"points": points, "samples": samples, "seconds": value * points * 3 * samples}


def _flatness(plan: dict[str, Any], budget: float) -> Sizes | None:
    seconds, points, train = plan["seconds"], plan["points"], plan["fit"]["train"]
    for products, of_trace, gradients in _CURVATURE:
        curved = seconds["product"] * (products + of_trace)
        curved += seconds["gradient"] * (gradients + _STARTS) + seconds["value"] * _STARTS
        few = min(train, int(0.55 * budget / (points * curved)))
        if few >= min(train, 3 * _LEAST_CURVED):
            break
    for draws in (20, 12, 8, 6):
        values = seconds["value"] * draws * (_OF_A_PAIR + _OF_A_COPY)
        many = min(train, int(0.45 * budget / (points * values)))
        if many >= min(train, 4 * _LEAST):
            break
    if few < min(train, _LEAST_CURVED) or many < min(train, _LEAST):
        return None
    sizes = {"samples": many, "draws": draws, "curved_samples": few, "products": products}
    sizes |= {"trace_products": of_trace, "gradients": gradients}
    sizes |= {"method": plan["method"], **_held(plan["weights"])}
    return sizes | {"seconds": points * (values * many + curved * few)}


def _held(weights: int) -> Sizes:
    """Bound what searches hold: basis vectors, ascents of two vectors, steps they remember."""
    vectors = _MOST_HELD // weights
    return {
        "basis": min(32, max(8, vectors)),
        "starts": min(_STARTS, max(5, vectors // 2)),
        "memory": min(8, max(3, vectors // 4)),
    }


def _inside(plan: dict[str, Any], budget: float) -> Sizes | None:
    each = plan["seconds"]["value"] * plan["points"] * 2
    samples = min(plan["fit"]["test"] or plan["fit"]["train"], int(budget / each), 1000)
    return {"samples": samples, "seconds": each * samples} if samples >= _LEAST else None


def _degeneracy(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Measured: about sixty gradients over the samples, by Jacobian, kernel and quadrature.
    each = 60 * plan["seconds"]["gradient"] * plan["points"]
    train = plan["fit"]["train"]
    samples = min(train, int(budget / each), 100, _MOST_EQUATIONS // (10 * plan["weights"]))
    if samples < min(train, _LEAST_CURVED):
        return None
    return {"samples": samples, "seconds": each * samples}


def _surface(plan: dict[str, Any], budget: float) -> Sizes | None:
    train = plan["fit"]["train"]
    dims = 2 if plan["points"] > 2 else 1
    for along in (25, 17, 11) if dims == 2 else (41, 21, 11):
        cells = 2 * plan["seconds"]["value"] * along**dims
        samples = min(train, int(budget / cells))
        if samples >= min(train, 8 * _LEAST):
            break
    if samples < min(train, _LEAST):
        return None
    return {"samples": samples, "points": along, "dims": dims, "seconds": cells * samples}


def _aligned(plan: dict[str, Any], budget: float) -> Sizes | None:
    # Matching takes what multiplying all weights by the widest layer takes; swaps have a clock.
    pairs = plan["pairs"]
    matching = pairs * _MATCHING * plan["weights"]
    for restarts in (10, 3, 0):
        if matching * (3 + restarts) <= 0.4 * budget:
            break
    else:
        return None
    swaps = min(6.0, 0.2 * budget / pairs)
    left = budget - matching * (3 + restarts) - pairs * swaps
    line = _lines(plan, left)
    if line is None:
        return None
    return line | {"restarts": restarts, "swaps": swaps, "seconds": budget - left + line["seconds"]}


_OF_PAIRS = ("lines", "inside", "aligned")
_BY_PART: dict[str, Callable[[dict[str, Any], float], Sizes | None]] = {
    "fit": _fit,
    "lines": _lines,
    "flatness": _flatness,
    "inside": _inside,
    "degeneracy": _degeneracy,
    "surface": _surface,
    "aligned": _aligned,
}


def told_plan(plan: dict[str, Any]) -> list[str]:
    """Write the sizes in words, one line a part."""
    rows = [
        f"sizes for {plan['minutes']:g} min: {plan['weights']:,} weights, {plan['train']:,}"
        f" training and {plan['test']:,} test samples"
    ]
    for part, told in _TOLD.items():
        if plan["points"] > 1 or part not in _OF_PAIRS:
            sizes = plan.get(part)
            words = _NONE if sizes is None else f"{told(sizes)}; about {_time(sizes['seconds'])}"
            rows.append(f"  {_CALLED[part]}: {words}")
    return rows


_NONE = "does not fit; give more --minutes"
_CALLED = {
    "fit": "loss, error, confidence",
    "lines": "lines between checkpoints",
    "flatness": "flatness",
    "inside": "what inner layers compute",
    "degeneracy": "degeneracy",
    "surface": "surface",
    "aligned": "lines between aligned checkpoints",
}


def _told_fit(sizes: Sizes) -> str:
    test = f" and {sizes['test']:,} test" if sizes["test"] else ""
    return f"{sizes['train']:,} training{test} samples"


def _told_flatness(sizes: Sizes) -> str:
    trace = f", {sizes['trace_products']} of the trace" if sizes["trace_products"] else ", no trace"
    return (
        f"{sizes['draws']} draws of noise on {_of(sizes['samples'])}, curvature on"
        f" {sizes['curved_samples']:,}: {sizes['products']} products{trace}, {sizes['gradients']}"
        " gradients"
    )


def _told_surface(sizes: Sizes) -> str:
    shape = " x ".join([str(sizes["points"])] * sizes["dims"])
    return f"{shape} points on {_of(sizes['samples'])}"


def _told_line(sizes: Sizes) -> str:
    return f"{sizes['points']} points on {_of(sizes['samples'])}"


_TOLD: dict[str, Callable[[Sizes], str]] = {
    "fit": _told_fit,
    "lines": _told_line,
    "flatness": _told_flatness,
    "inside": lambda sizes: f"{sizes['samples']:,} samples",
    "degeneracy": lambda sizes: _of(sizes["samples"]),
    "surface": _told_surface,
    "aligned": _told_line,
}


def _of(samples: int) -> str:
    return f"{samples:,} training samples"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
