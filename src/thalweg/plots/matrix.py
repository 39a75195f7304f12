"""A matrix of distances as a heat map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from thalweg.errors import InvalidArgument
from thalweg.plots.axes import axes_or_new, literal
from thalweg.plots.palette import COLORMAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_matrix(
    matrix: ArrayLike,
    *,
    labels: Sequence[str],
    title: str,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """
    Draw a square matrix as colours, with blocks of equal labels marked.

    Parameters
    ----------
    matrix : array-like
        Shape (n, n).
    labels : sequence of str
        One a row; a run of equal ones is labelled once and parted from the next by a line.
    title : str
        Of the colour bar, with units.
    ax : matplotlib Axes, optional
        Where to draw.
    **kwargs
        Given on to ``ax.imshow``.

    Returns
    -------
    matplotlib Axes
        The first row on top.

    Raises
    ------
    InvalidArgument
        If the matrix is not square or labels do not fit it.
    """
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape != (len(labels), len(labels)):
        raise InvalidArgument(
            f"a matrix of shape {values.shape} with {len(labels)} labels; expected (n, n) and n."
        )
    axes = axes_or_new(ax)
    image = axes.imshow(values, **{"cmap": COLORMAP, "interpolation": "nearest", **kwargs})
    edges = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    for edge in edges:
        axes.axhline(edge - 0.5, color="white", linewidth=0.8)
        axes.axvline(edge - 0.5, color="white", linewidth=0.8)
    bounds = [0, *edges, len(labels)]
    middles = [(a + b - 1) / 2 for a, b in itertools.pairwise(bounds)]
    names = [literal(labels[start]) for start in bounds[:-1]]
    axes.set_yticks(middles, names, fontsize="small")
    axes.set_xticks(middles, names, fontsize="small", rotation=90)
    axes.figure.colorbar(image, ax=axes, label=title, shrink=0.8)
    return cast("Axes", axes)
