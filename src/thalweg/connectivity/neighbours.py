"""Barriers between neighbours: the lines that join each checkpoint of a trajectory to the next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from thalweg.connectivity.line import barrier
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Function
from thalweg.problems.between import gathered_notes
from thalweg.problems.checkpoints import Point
from thalweg.run.progress import Progress, silent, within

if TYPE_CHECKING:
    import xarray as xr


def neighbour_barriers(
    risk: Function,
    path: Sequence[Tensor | Point],
    *,
    points: int = 21,
    test: bool = True,
    progress: Progress = silent,
) -> xr.Dataset:
    """
    Measure the line from each point of a path to the next, as `barrier` does.

    Parameters
    ----------
    risk : Function
        An `EmpiricalRisk`, or anything with a ``space`` and a ``value``.
    path : sequence of Tensor or Point
        n points in order.
    points, test
        As for `barrier`.
    progress : Progress
        Told of every point of every line.

    Returns
    -------
    xarray.Dataset
        What `barrier` gives, with a dim ``pair`` of n - 1 before all others; ``length (pair)`` is
        the distance of its ends, and ``between (pair)`` says what differs besides the weights.

    Raises
    ------
    InvalidArgument
        If there are fewer than two points.

    Examples
    --------
    >>> import torch
    >>> from thalweg.landscape import Quadratic
    >>> path = [torch.tensor([-1.0]), torch.tensor([0.0]), torch.tensor([2.0])]
    >>> found = neighbour_barriers(Quadratic(torch.ones(1)), path, points=3)
    >>> found.barrier.values[:, 0].tolist()
    [-0.125, -0.5]
    """
    import xarray as xr

    if len(path) < 2:
        raise InvalidArgument(f"a path of {len(path)} points; neighbours need two.")
    lines = []
    with progress(points * (len(path) - 1), "lines between neighbours") as bar:
        for w0, w1 in itertools.pairwise(path):
            lines.append(barrier(risk, w0, w1, points=points, test=test, progress=within(bar)))
    whole = xr.concat(lines, "pair", combine_attrs="override")
    # What differs from pair to pair is data, not an attribute.
    lengths, between = (
        [line.attrs.pop(name, none) for line in lines]
        for name, none in (("length", 0.0), ("between", ""))
    )
    whole.attrs = {n: value for n, value in whole.attrs.items() if n not in ("length", "between")}
    notes = gathered_notes([point for point in path if isinstance(point, Point)])
    whole["t"].attrs["units"] = "share of the way"
    about = {"long_name": "distance of the ends", "units": "weights"}
    return whole.assign(length=("pair", lengths, about), between=("pair", between)).assign_attrs(
        notes=notes
    )
