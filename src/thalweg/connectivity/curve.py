"""Paths of low loss between two points: trained curves, and elastic bands over a saddle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from torch import Tensor

from thalweg.connectivity.curve_training import train_curve
from thalweg.connectivity.elastic_band import relax
from thalweg.connectivity.highest import Highest, highest_between
from thalweg.connectivity.line import alike, check_line, measure_along
from thalweg.connectivity.path_shapes import Curve, Kind
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Landscape, placed, require, sample_evaluator
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point
from thalweg.result import Result
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import torch_generator

if TYPE_CHECKING:
    import xarray as xr

Status = Literal["trained", "converged", "not converged", "the line"]
# Inner points and steps of each kind where none are asked for.
_BENDS: dict[Kind, int] = {"bezier": 3, "chain": 3, "band": 15}
_STEPS: dict[Kind, int] = {"bezier": 2000, "chain": 2000, "band": 1000}
# The first steps of each weight, as a share of how far the ends' weights differ in the mean.
_STEP = 0.03
# The start leaves the line by this share of its length: on a ridge there is no slope aside.
_SHAKEN = 1e-3
# A band is at rest where no force is longer than this share of the largest gradient of the line.
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Path(Result):
    """
    A path between two points.

    Attributes
    ----------
    curve : Curve
        ``curve.at(t)`` is the point at t, from 0 to 1; the ends are exactly those given.
    profile : xarray.Dataset
        Loss and error at evenly spaced places, none of which the search looked at, and what
        `barrier` says of them.
    highest, at : float
        Largest value on the path, searched for between the places too, and its t.
    error : float
        What is left of that search: how much the values around the place still differ.
    stderr : float
        Standard error of ``highest`` over samples; 0 where there are none.
    barrier : float
        Largest excess over the chord between the values at the ends.
    line_highest, line_barrier : float
        The same on the straight line.
    status : {"trained", "converged", "not converged", "the line"}
        Of a band, whether it came to rest; ``"the line"`` where the search found nothing lower
        than the straight line, which is given then.
    steps : int
        How many the search took.
    slope : float or None
        Of a band, the length of the gradient at its highest image, as a share of the largest
        gradient on the line: small at a saddle.
    """

    curve: Curve = field(repr=False)
    profile: xr.Dataset = field(repr=False)
    highest: float
    at: float
    error: float
    stderr: float
    barrier: float
    line_highest: float
    line_barrier: float
    status: Status
    steps: int
    slope: float | None = None


def connect(
    landscape: Landscape,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    kind: Kind = "bezier",
    bends: int | None = None,
    steps: int | None = None,
    points: int = 41,
    test: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """
    Look for a path between two points along which a landscape stays low.

    A curve's inner points are trained so that the mean loss along it falls, with more weight where
    it is high. A band's images slide down across it, and the highest climbs to the saddle.

    Parameters
    ----------
    landscape : Landscape
        An `EmpiricalRisk`, or anything with values and gradients.
    w0, w1 : Tensor or Point
        The ends, as for `barrier`.
    kind : {"bezier", "chain", "band"}
        A Bezier curve, straight pieces, or a nudged elastic band with a climbing image.
    bends : int, optional
        Inner points; by default 3, or 15 images of a band.
    steps : int, optional
        By default 2000 of training, or at most 1000 of a band.
    points : int
        Odd: places at which the path is measured, beside those of the search for its highest.
    test : bool
        Evaluate the test data as well, where there are any.
    seed : int
        Of all that is drawn at random.
    progress : Progress
        Told of every step.

    Returns
    -------
    Path
        Never higher than the straight line, which it is where nothing lower is found.

    Raises
    ------
    InvalidArgument
        If the kind is not known, a number is not positive, or as for `barrier`.
    InvalidWeights
        If an end is no point of the space, or not finite.

    References
    ----------
    T. Garipov et al. (2018) and F. Draxler et al. (2018), for networks; G. Henkelman et al. (2000).

    Examples
    --------
    >>> import torch
    >>> from thalweg.landscape.space import ParameterSpace
    >>> class Hill:  # two wells, a hill between them, and a pass of height 1/4 beside it
    ...     space = ParameterSpace.euclidean(2)
    ...
    ...     def value(self, w):
    ...         return float((w[0] ** 2 + w[1] ** 2 - 1) ** 2 + w[1] ** 2 / 4)
    ...
    ...     def gradient(self, w, batch=None):
    ...         round = 4 * (w[0] ** 2 + w[1] ** 2 - 1)
    ...         return torch.stack([round * w[0], round * w[1] + w[1] / 2])
    >>> w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> path = connect(Hill(), -w, w, kind="band", bends=9)
    >>> path.line_highest, abs(path.highest - 15 / 64) < 0.002
    (1.0, True)
    """
    landscape = require(landscape, Landscape, "connect", "give an EmpiricalRisk(problem)")
    if kind not in get_args(Kind):
        raise InvalidArgument(f"kind={kind!r}; write 'bezier', 'chain' or 'band'.")
    bends = _BENDS[kind] if bends is None else bends
    steps = _STEPS[kind] if steps is None else steps
    if bends < 1 or steps < 1:
        raise InvalidArgument(f"bends={bends}, steps={steps}; write positive numbers.")
    states = States.of(landscape, (w0, w1))
    first, last = states.weights
    check_line(landscape, first, last, points)
    ends = [placed(landscape, w) for w in alike(landscape, first, last)]
    line = Curve.line(kind, ends[0], ends[1], bends)
    with states.visited(landscape), progress(steps + 2 * points, f"{kind}") as bar:
        search = _Search(landscape, states, line, points, seed)
        relaxed = search.band(steps, bar.update) if kind == "band" else None
        curve, taken = (relaxed[0], relaxed[1]) if relaxed else search.curve(steps, bar.update)
        status: Status = "trained" if relaxed is None else relaxed[2]
        low, straight = search.highest(curve), search.highest(line)
        if low[0].value > straight[0].value or low[1].value > straight[1].value:
            curve, low, status = line, straight, "the line"
        stderr = search.stderr(curve, low[0].at)
    with progress(points, "the path") as bar:
        places = np.linspace(0.0, 1.0, points)
        profile = measure_along(
            landscape, states, curve.at, places, length=curve.length, test=test, bar=bar
        )
    return Path(
        curve=curve,
        profile=profile,
        highest=low[0].value,
        at=low[0].at,
        error=low[0].error,
        stderr=stderr,
        barrier=low[1].value,
        line_highest=straight[0].value,
        line_barrier=straight[1].value,
        status=status,
        steps=taken,
        slope=relaxed[3] if relaxed else None,
    )


class _Search:
    """
    The search for a path.

    Parameters
    ----------
    landscape : Landscape
        What is to be low.
    states : States
        The ends.
    line : Curve
        The straight line, with inner points.
    points : int
        Places at which the highest point is looked for first.
    seed : int
        Of all that is drawn.
    """

    def __init__(
        self, landscape: Landscape, states: States, line: Curve, points: int, seed: int
    ) -> None:
        self._landscape, self._states, self._line = landscape, states, line
        self._points, self._seed = points, seed
        generator = torch_generator(seed, "start of a path")
        self._start = line.shaken(_SHAKEN, generator)

    def _go(self, t: float) -> None:
        self._states.go(self._landscape, (1 - t, t))

    def curve(self, steps: int, told: Callable[[], object]) -> tuple[Curve, int]:
        """Train a curve; give it and the steps it took."""
        ends = self._line.points[[0, -1]].double()
        spread = float((ends[1] - ends[0]).square().mean().sqrt())
        trained = train_curve(
            *(self._landscape, self._start, self._go),
            steps=steps,
            lr=_STEP * spread,
            seed=self._seed,
            told=told,
        )
        return trained.curve, trained.steps

    def band(
        self, steps: int, told: Callable[[], object]
    ) -> tuple[Curve, int, Literal["converged", "not converged"], float]:
        """Relax a band; give it, the steps it took, its status and the slope at its highest."""
        last = len(self._start.points) - 1

        def evaluate(i: int, w: Tensor) -> tuple[float, Tensor]:
            self._go(i / last)
            return self._landscape.value(w), self._landscape.gradient(w).to(w)

        band = relax(evaluate, self._start.points, steps=steps, tolerance=_TOLERANCE, told=told)
        curve = Curve("band", band.images)
        slope = band.slope / band.scale if band.scale else 0.0
        return curve, band.steps, "converged" if band.steps < steps else "not converged", slope

    def highest(self, curve: Curve) -> tuple[Highest, Highest]:
        """Find the largest value on a curve, and the largest excess over the chord."""
        values: dict[float, float] = {}

        def value(t: float) -> float:
            if t not in values:
                self._go(t)
                values[t] = self._landscape.value(curve.at(t))
            return values[t]

        first, last = value(0.0), value(1.0)

        def excess(t: float) -> float:
            return value(t) - ((1 - t) * first + t * last)

        count = max(self._points, 4 * (len(curve.points) - 1) + 1)
        # Other places than those of the profile, but for the ends and the kinks of a chain.
        last_point = len(curve.points) - 1
        kinks = (0, last_point) if curve.kind == "bezier" else range(last_point + 1)
        within = ((i + 0.5) / count for i in range(count))
        places = sorted({*within, *(i / last_point for i in kinks)})
        peaks = [highest_between(f, places, [f(t) for t in places]) for f in (value, excess)]
        return peaks[0], peaks[1]

    def stderr(self, curve: Curve, t: float) -> float:
        """Give the standard error of the value at t over samples."""
        self._go(t)
        losses = sample_evaluator(self._landscape)(curve.at(t))["loss"].double()
        return float(losses.std() / math.sqrt(len(losses))) if len(losses) > 1 else 0.0
