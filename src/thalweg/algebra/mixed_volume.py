"""Bernstein's bound for equations that share one Newton polytope: its normalized volume."""

from __future__ import annotations

import math

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.polynomials import PolynomialSystem

LARGEST = 6
"""Largest dimension in which a general convex hull is computed."""


def mixed_volume(system: PolynomialSystem) -> int | None:
    """Mixed volume of a square system whose equations have the same monomials.

    It bounds the number of isolated solutions without zero coordinates (Bernstein 1975), and is
    ``n!`` times the volume of the Newton polytope. Dense data give all samples the same monomials.

    Returns
    -------
    int or None
        None for systems that are not square, whose equations have different polytopes, or whose
        polytope is no simplex and has more than 6 dimensions.

    Examples
    --------
    >>> from thalweg.algebra import network, random_system
    >>> cube = random_system(network((2, 2, 1), (0, 0, 0, 1), bias=True), samples=6)
    >>> mixed_volume(cube.explicit)
    729
    """
    from scipy.spatial import ConvexHull, QhullError

    n = len(system.names)
    supports = {frozenset(p) for p in system.equations}
    if len(supports) != 1 or len(system.equations) != n:
        return None
    points = np.array(sorted(supports.pop()))
    highest = int(points.sum(axis=1).max())
    if _is_simplex(points, highest):
        return int(highest**n)
    if n > LARGEST:
        return None
    try:
        return (
            round(ConvexHull(points).volume * math.factorial(n)) if n > 1 else int(np.ptp(points))
        )
    except QhullError:
        return 0


def _is_simplex(points: Array, highest: int) -> bool:
    """Whether the polytope is all exponents up to a degree: its corners are among the points."""
    present = {tuple(p) for p in points.tolist()}
    corners = np.vstack(
        [np.zeros(points.shape[1], dtype=int), highest * np.eye(points.shape[1], dtype=int)]
    )
    return all(tuple(c) in present for c in corners.tolist())
