"""Tasks: critical points of small losses, and cases in which they are degenerate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from thalweg.algebra import (
    CriticalPoint,
    CriticalPoints,
    classify,
    critical_points,
    network,
    random_system,
    zero_system,
)
from thalweg.run import Report, Run
from thalweg.studies.polynomial_networks import build

CUBE, SQUARE = (0, 0, 0, 1), (0, 0, 1)


def critical(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Find and classify the critical points of one network's loss, for each of several draws.

    Parameters
    ----------
    run : Run
        Not read.
    arguments : dict
        ``network``, ``samples``, ``seeds``, ``penalty`` and ``seconds`` for the exact degree.
    report : callable
        Told the share of draws done.

    Returns
    -------
    dict
        ``draws``: a dict a draw; ``points``: a dict a real critical point.
    """
    net = build(arguments["network"])
    draws, points = [], []
    for number, seed in enumerate(arguments["seeds"], start=1):
        system = net.system(arguments["samples"], seed)
        solutions = critical_points(
            system,
            penalty=arguments["penalty"],
            solver="homotopy",
            seed=seed,
            seconds=arguments["seconds"],
        )
        draws.append({"seed": seed, "weights": system.weights, **_figures(solutions)})
        at_zero = float((system.targets**2).sum() / 2)
        points += [{"seed": seed, **_point(p), "at_zero": at_zero} for p in solutions.real_points]
        report(number * arguments["units"] // len(arguments["seeds"]))
    return {"draws": draws, "points": points}


def counterexamples(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Classify the critical points that speak against "nonzero minima are not degenerate".

    Parameters
    ----------
    run : Run
        Not read.
    arguments : dict
        ``seed`` of the samples, and ``splits``: factors by which a unit is split in two.
    report : callable
        Not used.

    Returns
    -------
    dict
        ``cases``: dicts with ``case``, what `classify` finds, and ``singular``, the paths that
        ended at multiple or non-isolated critical points, where all of these were sought.
    """
    seed = arguments["seed"]
    cases = [*_cube_at_zero(), *_quadratic_line(), *_dead_inputs(seed), *_rotations(seed)]
    return {"cases": [*cases, *_split_units(seed, arguments["splits"])]}


def _cube_at_zero() -> Iterator[dict[str, Any]]:
    """A cube of one weight, one sample: the Hessian vanishes at w = 0, where the loss is 1/2."""
    system = zero_system(network((1, 1, 1), CUBE), [[1.0]], [1.0])
    solutions = critical_points(system, penalty=0.0, exact=False)
    at_zero = max(solutions.real_points, key=lambda point: point.value)
    yield {"case": "cube", **_point(at_zero), "singular": solutions.singular}


def _quadratic_line() -> Iterator[dict[str, Any]]:
    """A square that reads two inputs, one sample with target -1: a line of minima."""
    system = zero_system(network((2, 1, 1), SQUARE), [[1.0, 1.0]], [-1.0])
    for place in (0.0, 0.5, 2.0):
        yield {"case": "line", **_point(classify(system, [place, -place, 1.0]))}


def _dead_inputs(seed: int) -> Iterator[dict[str, Any]]:
    """A cube that reads one living and two dead inputs, at its one minimum."""
    rng = np.random.default_rng([seed, 37])
    x, y = rng.normal(size=(2, 5))
    system = zero_system(network((3, 1, 1), CUBE), np.outer(x, [1.0, 0.0, 0.0]), y)
    slope = np.cbrt((y * x**3).sum() / (x**6).sum())
    yield {"case": "dead", **_point(classify(system, [slope, 0.3, -0.2, 1.0]))}


def _rotations(seed: int) -> Iterator[dict[str, Any]]:
    """Two linear units under one penalty for all weights: rotations leave a circle of minima."""
    system = random_system(network((1, 2, 1), (0, 1)), samples=1, seed=seed)
    solutions = critical_points(system, penalty=0.01, solver="homotopy", seed=seed, exact=False)
    point = min(solutions.real_points, key=lambda point: point.value)
    yield {"case": "rotation", **_point(point), "singular": solutions.singular}


def _split_units(seed: int, splits: list[float]) -> Iterator[dict[str, Any]]:
    """
    Split the unit of a minimum in two, a and b times the unit with a**3 + b**3 = 1.

    These are critical points of the network with two units, in a curve, and minima on a part of it:
    Fukumizu and Amari, Neural Networks 13 (2000).
    """
    narrow = random_system(network((1, 1, 1), CUBE, bias=True), samples=6, seed=seed)
    wide = zero_system(network((1, 2, 1), CUBE, bias=True), narrow.inputs, narrow.targets)
    solutions = critical_points(narrow, penalty=0.0, seed=seed, exact=False)
    for point in (p for p in solutions.real_points if p.kind == "minimum"):
        w, b, _ = point.weights
        for a in splits:
            c = float(np.cbrt(1 - a**3))
            yield {"case": "split", **_point(classify(wide, [a * w, c * w, a * b, c * b, 1, 1]))}


def _figures(solutions: CriticalPoints) -> dict[str, Any]:
    return {
        "unknowns": solutions.complex_points.shape[1],
        "critical_complex": len(solutions.complex_points),
        "critical_real": len(solutions.real_points),
        "singular": solutions.singular,
        "paths": solutions.paths,
        "infinite": solutions.infinite,
        "complete": solutions.complete,
        "method": solutions.method,
    }


def _point(point: CriticalPoint) -> dict[str, Any]:
    names = ("value", "index", "nullity", "nullity_symmetry", "nullity_dead", "kind")
    return {
        **{name: getattr(point, name) for name in names},
        "all_weights": len(point.weights),
        "gap": point.gap if np.isfinite(point.gap) else None,
    }
