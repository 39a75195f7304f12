"""Basins of a landscape: labels by gradient flow, signatures, models of basins, trees."""

from thalweg.basins.labels import BasinLabels, basin_labels

__all__ = ["BasinLabels", "basin_labels"]
