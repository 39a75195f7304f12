"""Where the weights to embed come from, and an array of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument


class Block(NamedTuple):
    """A run of weights that belong together: one parameter, or one named slice."""

    name: str
    size: int
    layer: str | None


class WeightSource(Protocol):
    """Points of R^W that can be read in pieces.

    ``describe(point)`` names a point in messages.
    """

    @property
    def points(self) -> int:
        """Number of points n."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The W weights of a point, in order, as named blocks."""

    def read(self, point: int, name: str, start: int, stop: int) -> NDArray[Any]:
        """Weights ``start:stop`` of block ``name`` of one point, shape (stop - start,)."""

    def describe(self, point: int) -> str:
        """Name one point, for messages."""


def layer_of(parameter: str) -> str:
    """Module a parameter belongs to: its name up to the last dot.

    Examples
    --------
    >>> layer_of("features.0.weight"), layer_of("scale")
    ('features.0', 'scale')
    """
    return parameter.rpartition(".")[0] or parameter


class ArraySource:
    """The rows of an array.

    Parameters
    ----------
    weights : array of shape (n, W), real
        One point a row. It is not copied.
    layers : mapping of layer name to slice of columns, optional
        Must cover every column once.

    Raises
    ------
    InvalidArgument
        For an array that is not a real matrix, or layers that leave gaps or overlap.
    """

    def __init__(self, weights: NDArray[Any], *, layers: Mapping[str, slice] | None = None) -> None:
        self._weights = np.asarray(weights)
        if self._weights.ndim != 2 or self._weights.dtype.kind not in "fiu":
            raise InvalidArgument(
                f"got an array of shape {self._weights.shape} and type {self._weights.dtype}, "
                "expected a real (n, W) array: one row of W weights for each point"
            )
        width = self._weights.shape[1]
        slices = _tiling(layers, width) if layers else {"weights": slice(0, width)}
        self._offsets = {name: columns.start for name, columns in slices.items()}
        self._blocks = tuple(
            Block(name, columns.stop - columns.start, name if layers else None)
            for name, columns in slices.items()
        )

    @property
    def points(self) -> int:
        """Number of rows n."""
        return int(self._weights.shape[0])

    @property
    def blocks(self) -> tuple[Block, ...]:
        """One block for each layer, or one for all columns."""
        return self._blocks

    def read(self, point: int, name: str, start: int, stop: int) -> NDArray[Any]:
        """Weights ``start:stop`` of block ``name`` of one row; a view."""
        offset = self._offsets[name]
        piece: NDArray[Any] = self._weights[point, offset + start : offset + stop]
        return piece

    def describe(self, point: int) -> str:
        """Name one row, for messages."""
        return f"row {point} of the array"


def _tiling(layers: Mapping[str, slice], width: int) -> dict[str, slice]:
    """Return the slices in column order, each with its start and stop, once they tile the row."""
    spans = {name: columns.indices(width) for name, columns in layers.items()}
    ordered = sorted(spans.items(), key=lambda item: item[1][0])
    reached = 0
    for name, (start, stop, step) in ordered:
        if start != reached or step != 1:
            raise InvalidArgument(
                f"got layer {name!r} at columns {start}:{stop}:{step}, expected it to begin at "
                f"column {reached} with step 1: the layers must cover every column once"
            )
        reached = stop
    if reached != width:
        raise InvalidArgument(
            f"got layers that end at column {reached}, expected {width}: "
            "the layers must cover every column once"
        )
    return {name: slice(start, stop) for name, (start, stop, _) in ordered}
