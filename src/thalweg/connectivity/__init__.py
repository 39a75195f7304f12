"""How weight vectors are joined: straight lines between them, and orders of units in common."""

from thalweg.connectivity.align import Alignment, align, align_all
from thalweg.connectivity.basin import OneBasin, one_basin
from thalweg.connectivity.line import barrier
from thalweg.connectivity.mean import mean_state
from thalweg.connectivity.neighbours import neighbour_barriers

__all__ = [
    "Alignment",
    "OneBasin",
    "align",
    "align_all",
    "barrier",
    "mean_state",
    "neighbour_barriers",
    "one_basin",
]
