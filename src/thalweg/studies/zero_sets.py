"""Tasks: how many weights have zero error, of which dimension, how degenerate in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from thalweg.algebra import (
    Count,
    RealPoints,
    Solutions,
    ZeroSystem,
    count,
    count_solutions,
    sample_real,
    solve,
    walk,
)
from thalweg.algebra.nullity import invariant_directions
from thalweg.curvature.ranks import singular_cutoff
from thalweg.run import Report, Run
from thalweg.studies.polynomial_networks import PolynomialNetwork, build

NOISE = 0.1
"""Relative size of the perturbation after which the error is no longer zero."""
_COUNTS = (
    "weights",
    "equations",
    "multihomogeneous",
    "generic_rank",
    "degree",
    "solutions_complex",
    "solutions_modulo_symmetry",
    "symmetry_order",
    "continuous_symmetry",
)


def zero_minimizers(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Count and find the weights of zero error of one network, for each of several draws of samples.

    Parameters
    ----------
    run : Run
        Not read.
    arguments : dict
        ``network``, ``samples``, ``seeds``, ``targets``, ``solve`` (whether all complex solutions
        are sought), ``points`` (real ones wanted) and ``seconds`` for the exact degree.
    report : callable
        Told the share of draws done.

    Returns
    -------
    dict
        ``draws``: a dict a draw; ``points``: columns over all real zero-minimizers.
    """
    net = build(arguments["network"])
    draws: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for number, seed in enumerate(arguments["seeds"], start=1):
        system = net.system(arguments["samples"], seed, arguments["targets"])
        counted, solutions = _counted(system, arguments, seed)
        real = _real_points(system, solutions, arguments["points"], seed)
        coranks = _coranks(system, solutions, real)
        draws.append(
            {
                "seed": seed,
                **_figures(counted),
                "dimension_expected": system.weights - system.equations,
                "dimension_low": min(coranks, default=None),
                "dimension_high": max(coranks, default=None),
                "exists": _exists(solutions, real),
                "real": len(real.weights),
                "tried": real.tried,
            }
        )
        points += [{"seed": seed, **row} for row in _in_torch(net, system, real)]
        report(number * arguments["units"] // len(arguments["seeds"]))
    return {"draws": draws, "points": points}


def gallery(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Give what the pictures show: all complex solutions, and a curve over its loss surface.

    Parameters
    ----------
    run : Run
        Not read.
    arguments : dict
        ``solutions`` and ``curve``, each with ``network`` and ``samples``; ``seed``; ``extent`` of
        the surface, in distances of the curve from the origin, and its ``points``.
    report : callable
        Not used.

    Returns
    -------
    dict
        ``solutions``, complex of shape (S, W) split into ``real`` and ``imaginary``, with ``kind``;
        ``axis``, ``loss`` of shape (points, points) and the ``curve``, shape (steps, 2).
    """
    chosen, seed = arguments["solutions"], arguments["seed"]
    system = build(chosen["network"]).system(chosen["samples"], seed)
    solutions = solve(system, seed=seed, exact=False)
    orbits = np.stack([system.gauge.orbit(w) for w in solutions.weights])
    drawn = arguments["curve"]
    flat = build(drawn["network"]).system(drawn["samples"], seed)
    starts = sample_real(flat, 40, seed=seed).weights
    middle = starts[np.linalg.norm(starts, axis=1).argmin()]
    extent = arguments["extent"] * float(np.linalg.norm(middle))
    axis = np.linspace(-extent, extent, arguments["points"])
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    residuals = flat.evaluate(grid)[0] - flat.targets.ravel()
    return {
        "real_part": orbits.real.reshape(-1, system.weights),
        "imaginary_part": orbits.imag.reshape(-1, system.weights),
        "real": np.repeat(solutions.real, orbits.shape[1]),
        "solution_class": np.repeat(np.arange(len(orbits)), orbits.shape[1]),
        "axis": axis,
        "loss": (residuals**2).mean(axis=1).reshape(len(axis), len(axis)),
        "curve": _both_ways(flat, middle, extent),
    }


def _counted(
    system: ZeroSystem, arguments: dict[str, Any], seed: int
) -> tuple[Count, Solutions | None]:
    if not arguments["solve"]:
        return count(system, seed=seed, bounds=True), None
    solutions = solve(system, seed=seed, seconds=arguments["seconds"])
    return count_solutions(solutions), solutions


def _figures(counted: Count) -> dict[str, Any]:
    figures = {name: getattr(counted, name) for name in _COUNTS}
    return figures | {
        "bezout": counted.bezout.value,
        "complete": counted.complete,
        "method": counted.method,
    }


def _real_points(
    system: ZeroSystem, solutions: Solutions | None, number: int, seed: int
) -> RealPoints:
    if solutions is not None and solutions.dimension == 0:
        residuals = system.relative_residual(solutions.real_weights, solutions.real_signs)
        return RealPoints(
            solutions.real_weights, solutions.real_signs, residuals, len(solutions.weights)
        )
    return sample_real(system, number, seed=seed)


def _exists(solutions: Solutions | None, real: RealPoints) -> bool | None:
    """Whether there is a solution; unknown where none was found and not all were sought."""
    if solutions is not None:
        return solutions.dimension is not None
    return True if len(real.weights) else None


def _coranks(system: ZeroSystem, solutions: Solutions | None, real: RealPoints) -> list[int]:
    """
    Dimension of the kernel of the Jacobian at every point found, complex or real.

    Where the rank is the number of equations, the solution set is a manifold of this dimension.
    """
    jacobians = [system.evaluate(real.weights, real.signs)[1]] if len(real.weights) else []
    if solutions is not None and len(solutions.weights):
        jacobians.append(system.evaluate(solutions.weights)[1])
    sizes = [np.linalg.svd(jacobian, compute_uv=False) for stack in jacobians for jacobian in stack]
    least = singular_cutoff(jacobians[0].shape[1:]) if jacobians else 0.0
    return [system.weights - int((s > least * s.max()).sum()) for s in sizes]


def _in_torch(net: PolynomialNetwork, system: ZeroSystem, real: RealPoints) -> list[dict[str, Any]]:
    """Load each real zero-minimizer into torch: its loss and the rank of its Jacobian there.

    With zero residuals the Hessian is J^T J up to a factor, and its nullity W minus the rank of J;
    its eigenvalues are squares, of which those of small singular values drown in rounding.
    """
    if not len(real.weights):
        return []
    risk = net.risk(system)
    rng = np.random.default_rng(0)
    rows = []
    for weights, signs in zip(real.weights, real.signs, strict=True):
        w = net.loaded(system, weights, signs)
        jacobian = risk.jacobian(w).to_dense().cpu().numpy()
        sizes = np.linalg.svd(jacobian, compute_uv=False)
        rank = int((sizes > singular_cutoff(jacobian.shape) * sizes[0]).sum())
        rounding = len(w) * np.finfo(np.float64).eps * sizes[0]
        symmetric, _ = invariant_directions(system, w.cpu().numpy(), np.zeros(len(w)))
        noise = torch.from_numpy(rng.normal(size=len(w)))
        rows.append(
            {
                "loss": risk.value(w),
                "loss_perturbed": risk.value(w + NOISE * w.abs() * noise),
                "at_zero": float((system.targets**2).mean()),
                "residual": float(risk.residuals(w).abs().max()),
                "all_weights": len(w),
                "nullity": len(w) - rank,
                "nullity_symmetry": symmetric.shape[1],
                "gap": float(sizes[rank - 1] / max([rounding, *sizes[rank:]])),
            }
        )
    return rows


def _both_ways(system: ZeroSystem, middle: Any, extent: float) -> Any:
    """Walk a curve from a point on it in both directions, out of the square that is drawn."""
    paths: list[Any] = []
    for seed in range(20):
        path = walk(system, middle, steps=120, length=extent / 40, seed=seed).weights
        if not paths or (path[1] - middle) @ (paths[0][1] - middle) < 0:
            paths.append(path)
        if len(paths) == 2:
            break
    return np.concatenate([paths[-1][:0:-1], paths[0]]) if len(paths) == 2 else paths[0]
