"""Which basin a point is in: where gradient flow leads from it, at two tolerances of the solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.basins.many import values_at
from thalweg.dynamics import gradient_flow, train
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Landscape, words_of
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import torch_generator

_TIGHTER = 0.1
# Places of a line, one at random in each of so many equal parts: an even grid would miss the walls
# of a lattice that it falls in with.
_PLACES = 33


@dataclass(frozen=True)
class BasinLabels:
    """
    Basins of points.

    Attributes
    ----------
    labels : Tensor
        Shape (k,), int64, by the tighter tolerance: equal ones are of one basin, numbered as met.
    loose : Tensor
        The same by the looser tolerance.
    changed : float
        Share of points of which both differ: what the solver's error decides.
    ends : Tensor
        Shape (k, W): where the flows of the tighter tolerance came to.
    rest : Tensor
        Shape (k,), bool: whether both flows of a point came to rest.
    elsewhere : dict of str to float
        Share of points from which a descent led to another basin than the flow, by its name.
    tolerances : tuple of float
        Looser first.
    provenance : dict
        Which function it is.
    """

    labels: Tensor
    loose: Tensor
    changed: float
    ends: Tensor = field(repr=False)
    rest: Tensor = field(repr=False)
    elsewhere: dict[str, float]
    tolerances: tuple[float, float]
    provenance: dict[str, Any] = field(repr=False)


def basin_labels(
    landscape: Landscape,
    points: Tensor,
    *,
    height: float,
    rtol: float = 1e-3,
    stationary: float = 1e-4,
    max_gradients: int = 10_000,
    descents: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress = silent,
) -> BasinLabels:
    """
    Say in which basin each point is, how surely, and where other descents go from there.

    Two points are in one basin if the straight line between the ends of their gradient flows rises
    by at most ``height`` over the higher of them: ends on one flat bottom differ. Each end is
    compared with the first of every basin, so that bottoms must be convex; one that is not falls
    into several labels, and never do two basins fall into one.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    points : Tensor
        Shape (k, W).
    height : float
        The least wall that parts two basins, in units of the value.
    rtol, stationary, max_gradients
        As in `gradient_flow`; the second flow has a tenth of ``rtol``.
    descents : mapping of str to mapping, optional
        Other descents, as arguments of `train`: ``{"sgd": {"lr": 0.1, "steps": 200}}``. Flow goes
        on from their ends.
    progress : Progress
        Shows points.

    Raises
    ------
    InvalidArgument
        If ``points`` is not a matrix of points, or ``height`` is not positive.

    Examples
    --------
    >>> from thalweg.landscape.synthetic import RuggedField
    >>> field = RuggedField(2)
    >>> points = torch.stack([field.well(0), field.well(0) + 0.1, field.well(2)])
    >>> found = basin_labels(field, points, height=0.01)
    >>> found.labels.tolist(), found.changed
    ([0, 0, 1], 0.0)
    """
    if points.dim() != 2 or not len(points) or not height > 0:
        raise InvalidArgument(
            f"points of shape {tuple(points.shape)} and height={height}; write points of shape"
            " (k, W), one a row, and a positive height."
        )
    tolerances = (rtol, rtol * _TIGHTER)
    options: dict[str, Any] = {
        "stationary": stationary,
        "max_gradients": max_gradients,
        "check": False,
    }
    basins = _Basins(landscape, height)
    columns: dict[str, list[int]] = {name: [] for name in ("loose", "tight", *(descents or {}))}
    ends, rest = [], []
    with progress(len(points), "points") as bar:
        for i, point in enumerate(points):
            flows = [gradient_flow(landscape, point, rtol=r, **options) for r in tolerances]
            columns["loose"].append(basins.find(flows[0].w))
            columns["tight"].append(basins.find(flows[1].w))
            ends.append(flows[1].w)
            rest.append(all(flow.ended == "stationary" for flow in flows))
            for name, arguments in (descents or {}).items():
                end = train(landscape, point, **{"seed": i, **arguments}).w
                flow = gradient_flow(landscape, end, rtol=tolerances[1], **options)
                columns[name].append(basins.find(flow.w))
            bar.update(1)
    labels = {name: torch.tensor(column) for name, column in columns.items()}
    tight = labels["tight"]
    return BasinLabels(
        labels=tight,
        loose=labels["loose"],
        changed=_differing(labels["loose"], tight),
        ends=torch.stack(ends),
        rest=torch.tensor(rest),
        elsewhere={name: _differing(labels[name], tight) for name in descents or {}},
        tolerances=tolerances,
        provenance=words_of(landscape),
    )


def _differing(labels: Tensor, others: Tensor) -> float:
    return float((labels != others).double().mean())


class _Basins:
    """The basins met so far, each by the first end in it."""

    def __init__(self, landscape: Landscape, height: float) -> None:
        self.landscape, self.height = landscape, height
        self.first: list[Tensor] = []
        jitter = torch.rand(_PLACES, generator=torch_generator(0, "line"), dtype=torch.float64)
        self.places = (torch.arange(_PLACES) + jitter) / _PLACES

    def find(self, end: Tensor) -> int:
        nearest = sorted(range(len(self.first)), key=lambda i: float((self.first[i] - end).norm()))
        # The nearest alone, mostly; the others as one batch of lines.
        for some in (nearest[:1], nearest[1:]):
            joined = self._joined(torch.stack([self.first[i] for i in some]), end) if some else []
            for i, holds in zip(some, joined, strict=True):
                if holds:
                    return i
        self.first.append(end)
        return len(self.first) - 1

    def _joined(self, some: Tensor, end: Tensor) -> list[bool]:
        places = torch.cat([self.places, self.places.new_tensor([0.0, 1.0])]).to(end)
        lines = some[:, None] + places[:, None] * (end - some)[:, None]
        values = values_at(self.landscape, lines.flatten(0, 1)).reshape(len(some), -1)
        top = values[:, -2:].amax(1) + self.height
        return [bool(holds) for holds in values.amax(1) <= top]
