"""How weight vectors are joined: lines and paths between them, orders of units in common."""

from thalweg.connectivity.align import align, align_all
from thalweg.connectivity.alignment import Alignment
from thalweg.connectivity.basin import OneBasin, one_basin
from thalweg.connectivity.curve import Path, connect
from thalweg.connectivity.line import barrier
from thalweg.connectivity.mean import mean_state
from thalweg.connectivity.neighbours import neighbour_barriers

__all__ = [
    "Alignment",
    "OneBasin",
    "Path",
    "align",
    "align_all",
    "barrier",
    "connect",
    "mean_state",
    "neighbour_barriers",
    "one_basin",
]
