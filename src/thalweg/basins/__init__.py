"""Basins of a landscape: labels by gradient flow, signatures, models of basins, trees."""

from thalweg.basins.families import FAMILIES, features, simulate
from thalweg.basins.fit import (
    BasinFit,
    Library,
    fit_basins,
    posterior_predictive,
    simulate_library,
)
from thalweg.basins.labels import BasinLabels, basin_labels
from thalweg.basins.memory import Memory, memory, nested_at_all_widths, pooled, without_structure
from thalweg.basins.signature import Design, Signature, signature
from thalweg.basins.tree import DisconnectivityGraph, disconnectivity_graph, merge_levels

__all__ = [
    "FAMILIES",
    "BasinFit",
    "BasinLabels",
    "Design",
    "DisconnectivityGraph",
    "Library",
    "Memory",
    "Signature",
    "basin_labels",
    "disconnectivity_graph",
    "features",
    "fit_basins",
    "memory",
    "merge_levels",
    "nested_at_all_widths",
    "pooled",
    "posterior_predictive",
    "signature",
    "simulate",
    "simulate_library",
    "without_structure",
]
