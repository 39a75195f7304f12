"""How weight vectors are joined: straight lines between them."""

from thalweg.connectivity.line import barrier
from thalweg.connectivity.neighbours import neighbour_barriers

__all__ = ["barrier", "neighbour_barriers"]
