"""Families of landscapes that a signature may be of, with priors, and simulated signatures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thalweg.basins.signature import Design, Floats, Signature, signature
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import (
    KnownLandscape,
    MultifractalField,
    NestedField,
    Noisy,
    RuggedField,
    Valley,
    convex_bowl,
)
from thalweg.run.seeds import derive_seed, numpy_generator, torch_generator

Params = dict[str, float]
# A batch of the simulated trainings, of so many samples; their steps. After 80 the slow directions
# of many trees were still descending: large basins did not lead copies back, and a third of the
# trees were not told from basins of one size.
_BATCH, _SAMPLES, _STEPS = 8, 64, 200


@dataclass(frozen=True)
class Family:
    """
    Landscapes of one kind.

    Attributes
    ----------
    words : str
        What they are.
    draw : callable
        From a generator to parameters: the prior.
    make : callable
        From parameters and a seed to a landscape and its largest curvature.
    """

    words: str
    draw: Callable[[np.random.Generator], Params]
    make: Callable[[Params, int], tuple[Any, float]]


def _lattice(landscape: Any) -> tuple[Any, float]:
    return landscape, landscape.curvature


def _log_uniform(r: np.random.Generator, low: float, high: float) -> float:
    return math.exp(r.uniform(math.log(low), math.log(high)))


def _draw_tree(r: np.random.Generator) -> Params:
    spacing = r.uniform(0.28, 0.4)
    return {
        "spacing": spacing,
        "wide": spacing * r.uniform(7, 11),
        "low": r.uniform(0.15, 0.35),
        "per_level": float(r.integers(8, 17)),
    }


def _make_tree(p: Params, seed: int) -> tuple[Any, float]:
    return _lattice(
        NestedField(
            int(p["dims"]),
            heights=(1.0, p["low"]),
            spacings=(p["wide"], p["spacing"]),
            per_level=int(p["per_level"]),
            seed=seed,
        )
    )


def _make_valley(p: Params, seed: int) -> tuple[Any, float]:
    flat = int(p["dims"] * p["flat"])
    valley = Valley(int(p["dims"]), flat=flat, amplitude=p["amplitude"], seed=seed)
    return valley, 1 + p["amplitude"] ** 2


# Priors, stated before any fit. All in units of a typical weight, as perturbations are.
FAMILIES: dict[str, Family] = {
    "bowl": Family(
        "one convex bowl, well to ill conditioned",
        lambda r: {"condition": _log_uniform(r, 1, 1e6)},
        lambda p, seed: (
            convex_bowl(int(p["dims"]), condition=p["condition"], seed=seed),
            1.0,
        ),
    ),
    "valley": Family(
        "one connected valley with a winding floor",
        lambda r: {"flat": r.uniform(0.5, 0.95), "amplitude": r.uniform(0.3, 2)},
        _make_valley,
    ),
    "basins": Family(
        "basins side by side, each with a flat bottom",
        lambda r: {"spacing": _log_uniform(r, 0.4, 3), "walls": float(r.integers(8, 33))},
        lambda p, seed: _lattice(
            RuggedField(
                int(p["dims"]),
                spacing=p["spacing"],
                flat=int(p["dims"] - p["walls"]),
                seed=seed,
            )
        ),
    ),
    "tree": Family("basins inside basins, with flat bottoms", _draw_tree, _make_tree),
    "rugged": Family(
        "wells in all directions, without hierarchy",
        lambda r: {"spacing": _log_uniform(r, 0.3, 3)},
        lambda p, seed: _lattice(RuggedField(int(p["dims"]), spacing=p["spacing"], seed=seed)),
    ),
    "multifractal": Family(
        "a multifractal field",
        lambda r: {
            "rough": float(r.integers(4, 17)),
            "hurst": r.uniform(0.4, 0.9),
            "intermittency": r.uniform(0.2, 0.7),
            "octaves": float(r.integers(3, 5)),
        },
        lambda p, seed: _lattice(
            MultifractalField(
                int(p["dims"]),
                rough=int(p["rough"]),
                hurst=p["hurst"],
                intermittency=p["intermittency"],
                octaves=int(p["octaves"]),
                seed=seed,
            )
        ),
    ),
}


def draw_parameters(family: str, seed: int) -> Params:
    """
    Draw from a family's prior, and from that of what all have: W, learning rate, noise.

    Raises
    ------
    InvalidArgument
        If there is no such family.
    """
    if family not in FAMILIES:
        raise InvalidArgument(f"family {family!r}; write one of {', '.join(FAMILIES)}.")
    r = numpy_generator(seed, "prior", family)
    common = {
        "dims": float(r.integers(120, 251)),
        # In units of one over the largest curvature, and of that curvature.
        "lr": r.uniform(0.1, 0.5),
        "noise": _log_uniform(r, 0.001, 0.03) if r.random() < 0.5 else 0.0,
    }
    return common | {name: float(value) for name, value in FAMILIES[family].draw(r).items()}


def simulate(
    family: str, seed: int, *, design: Design | None = None, params: Params | None = None
) -> Signature:
    """
    Simulate the signature of a landscape drawn from a family.

    Parameters
    ----------
    family : str
        Of `FAMILIES`.
    seed : int
        Of parameters, landscape, trainings.
    design : Design, optional
        The branches.
    params : dict, optional
        Parameters, instead of a draw from the prior.

    Returns
    -------
    Signature
        As `thalweg.signature` gives it of anything else.
    """
    design = design or Design()
    params = draw_parameters(family, seed) if params is None else params
    landscape, curvature = FAMILIES[family].make(params, derive_seed(seed, "landscape", family))
    dims = int(params["dims"])
    generator = torch_generator(seed, "starts", family)
    starts = torch.randn(design.parents, dims, generator=generator, dtype=torch.float64)
    if family == "bowl":
        starts = starts + landscape.centre
    training = {"lr": params["lr"] / curvature, "steps": _STEPS, "batch_size": None}
    if params["noise"] and isinstance(landscape, KnownLandscape):
        noise = params["noise"] * curvature
        landscape = Noisy(landscape, samples=_SAMPLES, noise=noise, seed=seed)
        training["batch_size"] = _BATCH
    return signature(
        landscape, starts, training=training, design=design, seed=derive_seed(seed, family)
    )


# Barriers and the like below this share of the unit are alike.
_SMALLEST = 1e-3


def features(measured: Signature) -> Floats:
    """
    Give the numbers by which signatures are told apart, shape (F,).

    Means over parents of the figures of `Signature.profile` at each scale; barriers in a logarithm
    of both signs, distances of cousins over those of siblings, and barriers between parents.
    """
    figures = {name: table.mean(0) for name, table in measured.figures().items()}
    parts = []
    for name, values in figures.items():
        if name.endswith(("_barrier", "_middle")) or name in ("rise", "disagreement"):
            parts.append(_signed_log(values))
        elif not name.endswith("_distance"):
            parts.append(values)
    # At equal distance by design: what is left is by the landscape.
    ratio = figures["cousin_distance"][:-1] / figures["sibling_distance"][1:]
    parents = measured.pairs("parents")["barrier"]
    return np.concatenate([*parts, ratio, _signed_log(np.array([parents.mean(), parents.std()]))])


def feature_names(design: Design) -> list[str]:
    """Name the numbers of `features`: figure and scale."""
    scales = [f"{scale:.3g}" for scale in design.scales]
    figures = ["returned", "returned_early", "kept", "rise", "disagreement"]
    for kind in ("child", "sibling", "cousin", "descendant"):
        figures += [f"{kind}_barrier", f"{kind}_middle"]
    names = [f"{figure} at {scale}" for figure in figures for scale in scales]
    names += [f"cousins over siblings at {scale}" for scale in scales[:-1]]
    return [*names, "barrier of parents", "spread of barriers of parents"]


def _signed_log(values: Floats) -> Floats:
    scaled: Floats = np.sign(values) * np.log10(1 + np.abs(values) / _SMALLEST)
    return scaled
