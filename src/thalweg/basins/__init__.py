"""Basins of a landscape: labels by gradient flow, signatures, models of basins, trees."""

from thalweg.basins.labels import BasinLabels, basin_labels
from thalweg.basins.tree import DisconnectivityGraph, disconnectivity_graph

__all__ = ["BasinLabels", "DisconnectivityGraph", "basin_labels", "disconnectivity_graph"]
