"""Systems of polynomial equations: zero empirical error counted and solved, critical points."""

from __future__ import annotations

from thalweg.algebra.count import Count, count, count_solutions
from thalweg.algebra.critical import CriticalPoints, critical_points
from thalweg.algebra.critical_bound import bound_on_critical_points
from thalweg.algebra.critical_picture import plot_critical_points
from thalweg.algebra.critical_point import CriticalPoint, classify
from thalweg.algebra.layers import Layer, convolution, dense
from thalweg.algebra.model import load_solution, read_model
from thalweg.algebra.msolve import ExactDegree, exact_degree, find_msolve, real_solutions
from thalweg.algebra.multihomogeneous import Bezout, bezout, multihomogeneous_bezout
from thalweg.algebra.network import Network, network
from thalweg.algebra.penalties import Stratum
from thalweg.algebra.rank import GenericRank, generic_rank
from thalweg.algebra.real import RealPoints, Walk, sample_real, walk
from thalweg.algebra.solve import Solutions, solve
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import (
    ZeroSystem,
    critical_system,
    random_system,
    zero_system,
)

__all__ = [
    "Bezout",
    "Count",
    "CriticalPoint",
    "CriticalPoints",
    "ExactDegree",
    "Gauge",
    "GenericRank",
    "Layer",
    "Network",
    "RealPoints",
    "Solutions",
    "Stratum",
    "Walk",
    "ZeroSystem",
    "bezout",
    "bound_on_critical_points",
    "classify",
    "convolution",
    "count",
    "count_solutions",
    "critical_points",
    "critical_system",
    "dense",
    "exact_degree",
    "find_msolve",
    "generic_rank",
    "load_solution",
    "multihomogeneous_bezout",
    "network",
    "plot_critical_points",
    "random_system",
    "read_model",
    "real_solutions",
    "sample_real",
    "solve",
    "walk",
    "zero_system",
]
