"""Landscapes of which basins, barriers and dimensions are known: controls in any dimension."""

from thalweg.landscape.synthetic.basins import BasinTree, FlatBasins, convex_bowl
from thalweg.landscape.synthetic.fields import NestedField, RuggedField
from thalweg.landscape.synthetic.known import KnownLandscape
from thalweg.landscape.synthetic.multifractal import MultifractalField
from thalweg.landscape.synthetic.samples import Noisy, Rescaled
from thalweg.landscape.synthetic.valley import Valley

__all__ = [
    "BasinTree",
    "FlatBasins",
    "KnownLandscape",
    "MultifractalField",
    "NestedField",
    "Noisy",
    "Rescaled",
    "RuggedField",
    "Valley",
    "convex_bowl",
]
