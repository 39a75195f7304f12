"""How weight vectors are joined: straight lines between them."""

from thalweg.connectivity.line import barrier

__all__ = ["barrier"]
