"""Any result as a picture, as words, as a table: one way for all of them."""

from thalweg.display.draw import plot
from thalweg.display.words import explain, table_of

__all__ = ["explain", "plot", "table_of"]
