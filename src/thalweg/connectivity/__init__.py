"""How weight vectors are joined: straight lines between them."""

from thalweg.connectivity.basin import OneBasin, one_basin
from thalweg.connectivity.line import barrier
from thalweg.connectivity.mean import mean_state
from thalweg.connectivity.neighbours import neighbour_barriers

__all__ = ["OneBasin", "barrier", "mean_state", "neighbour_barriers", "one_basin"]
