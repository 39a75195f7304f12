"""The straight line between two weight vectors: loss and error along it, and the barrier on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.crossfit import crossfit
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.landscape.protocols import (
    Function,
    HeldOut,
    at_least_its_precision,
    provenance_of,
    require,
    sample_evaluator,
    words_of,
)
from thalweg.landscape.sample_means import mean_interval
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point
from thalweg.run.bounds import check_memory
from thalweg.run.progress import Bar, Progress, silent

if TYPE_CHECKING:
    import xarray as xr

# What every sample has at one point: shape (N,), by name of the quantity.
Samples = dict[str, NDArray[np.float64]]
_LABELS = {
    "loss": ("training loss", "mean per sample"),
    "error": ("training error", "share of samples"),
    "test_loss": ("test loss", "mean per sample"),
    "test_error": ("test error", "share of samples"),
}
_NOT_INCLUDED = (
    "standard errors and 95% intervals over samples, paired; intervals, and the standard error of"
    " crossfit, include the choice of the highest point; none includes that the weights were"
    " fitted to the training samples, nor the points between those of the grid"
)


def barrier(
    risk: Function,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    points: int = 21,
    test: bool = True,
    progress: Progress = silent,
) -> xr.Dataset:
    """
    Measure a landscape on the line from w0 to w1, and how far it rises above its ends.

    At ``w0 + t (w1 - w0)`` every sample is evaluated, with batch normalization re-estimated there.
    The excess is the value minus the chord ``(1 - t) L(w0) + t L(w1)``; the barrier is the
    largest excess between the ends. Where that is negative, the line lies below the chord
    throughout: what others call the barrier is ``max(0, barrier)``.

    Parameters
    ----------
    risk : Function
        An `EmpiricalRisk`, or anything with a ``space`` and a ``value``; standard errors need
        samples (``sample_losses``).
    w0, w1 : Tensor or Point
        The ends: flat vectors, shape (W,), with the risk's own frozen weights and buffers, or
        whole states (`open_point`). What is a floating-point number in these and differs is
        interpolated too, and the attribute ``between`` says so; integers are the nearer end's;
        batch-norm statistics follow the risk's policy. The ends are exactly the points.
    points : int
        Odd, so that the mean of both models is among them.
    test : bool
        Evaluate the test data as well, where there are any.
    progress : Progress
        Told of every point.

    Returns
    -------
    xarray.Dataset
        Over dim ``t`` from 0 to 1: ``loss`` and, where they are defined, ``error`` (share of
        samples), ``test_loss`` and ``test_error``, each with the standard error ``*_stderr`` of
        a mean over samples, float64. Over dim ``quantity`` (the same names): ``barrier``, and
        ``barrier_at``, the t where it is; ``crossfit``, the same with the highest point chosen
        on other samples than it is judged on, so that its expectation is not above the
        barrier's; ``mean_excess``, the value at the mean of both models minus the mean of their
        values, and ``mean_over_best``, minus the lower of their values. Each has a ``*_stderr``
        from paired differences of samples (0 for a landscape without samples), that of
        ``crossfit`` by a bootstrap which repeats the choice; and ``*_low`` and ``*_high``, a 95%
        interval made for heavy tails and rare errors (`landscape.sample_means`). The barrier's
        and the cross-fit's is one, which holds the choice of the highest point.

    Raises
    ------
    InvalidArgument
        If ``points`` is even or below 3, or batch normalization is frozen: statistics of one
        model are wrong for all others.
    InvalidWeights
        If an end is no point of the space, or not finite.

    References
    ----------
    Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis (2020), section 2.

    Examples
    --------
    >>> from thalweg.landscape.space import ParameterSpace
    >>> class DoubleWell:
    ...     space = ParameterSpace.euclidean(1)
    ...     value = staticmethod(lambda w: float((w**2 - 1) ** 2))
    ...     gradient = staticmethod(lambda w: 4 * w * (w**2 - 1))
    >>> w0, w1 = torch.tensor([-1.0]), torch.tensor([1.0])
    >>> found = barrier(DoubleWell(), w0, w1, points=5)
    >>> found.loss.values.tolist(), float(found.barrier[0]), float(found.barrier_at[0])
    ([0.0, 0.5625, 1.0, 0.5625, 0.0], 1.0, 0.5)
    """
    require(risk, Function, "barrier", "give an EmpiricalRisk(problem)")
    states = States.of(risk, (w0, w1))
    first, last = states.weights
    check_line(risk, first, last, points)
    places = np.linspace(0.0, 1.0, points)
    ends = alike(risk, first, last)
    length = float((ends[1] - ends[0]).double().norm())
    with progress(points, "line") as bar:
        return measure_along(
            risk, states, lambda t: torch.lerp(*ends, t), places, length=length, test=test, bar=bar
        )


def measure_along(
    risk: Function,
    states: States,
    at: Callable[[float], Tensor],
    places: NDArray[np.float64],
    *,
    length: float,
    test: bool,
    bar: Bar,
) -> xr.Dataset:
    """
    Measure a landscape along a curve, and how far it rises above its ends.

    Parameters
    ----------
    risk : Function
        What is measured.
    states : States
        The ends; what differs besides the weights is mixed in the shares 1 - t and t.
    at : callable
        From t to the point there, shape (W,).
    places : ndarray
        From 0 to 1, an odd number, evenly spaced.
    length : float
        Of the curve.
    test : bool
        Evaluate the test data as well.
    bar : Bar
        Told of every point.

    Returns
    -------
    xarray.Dataset
        What `barrier` gives.
    """
    evaluate, rows = _evaluator(risk, test), []
    with states.visited(risk):
        for t in places.tolist():
            states.go(risk, (1 - t, t))
            rows.append(_told(bar, evaluate(at(t))))
    return _dataset(risk, places, rows, length).assign_attrs(states.told)


def alike(risk: Function, w0: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    """Give two points on one device, in one dtype: the widest of theirs and the landscape's."""
    dtype = torch.promote_types(w1.dtype, at_least_its_precision(risk, w0))
    return w0.detach().to(dtype), w1.detach().to(w0.device, dtype)


def check_line(risk: Function, w0: Tensor, w1: Tensor, points: int) -> None:
    """Refuse ends that are no points, a number of points that is even, and constant statistics."""
    # Values of every sample at every point: of a thousand samples at least.
    check_memory(points * 16000, f"a line of {points} points", "Write fewer points, such as 51.")
    if points < 3 or points % 2 == 0:
        raise InvalidArgument(
            f"points={points}; write an odd number from 3 on, so that the mean of both models is a"
            " point of the line."
        )
    for name, w in (("w0", w0), ("w1", w1)):
        if bad := risk.space.not_finite(w):
            raise InvalidWeights(f"{name}: {bad}.")
    if provenance_of(risk).constant:
        raise InvalidArgument(
            f"batchnorm={provenance_of(risk).batchnorm!r} measures every point of the line with"
            " the statistics of one model;"
            " write EmpiricalRisk(problem, batchnorm='recalibrate'), which re-estimates them at"
            " each."
        )


def _evaluator(risk: Function, test: bool) -> Callable[[Tensor], Samples]:
    test_risk = risk.held_out() if test and isinstance(risk, HeldOut) else None
    parts = {"": risk} if test_risk is None else {"": risk, "test_": test_risk}
    evaluators = {prefix: sample_evaluator(part) for prefix, part in parts.items()}

    def evaluate(w: Tensor) -> Samples:
        return {
            prefix + name: values.cpu().numpy().astype(np.float64)
            for prefix, evaluate_part in evaluators.items()
            for name, values in evaluate_part(w).items()
        }

    return evaluate


def _told(bar: Bar, row: Samples) -> Samples:
    bar.update(1)
    return row


def _dataset(
    risk: Function, places: NDArray[np.float64], rows: list[Samples], length: float
) -> xr.Dataset:
    import xarray as xr

    variables: dict[str, Any] = {}
    figures = []
    for name in rows[0]:
        label, units = _LABELS[name]
        table = np.stack([row[name] for row in rows])
        about = {"long_name": label, "units": units}
        variables[name] = ("t", table.mean(1), about)
        about = {"long_name": f"standard error of the {label}", "units": units}
        variables[f"{name}_stderr"] = ("t", _stderr(table), about)
        figures.append(_figures(places, table, 1.0 if name.endswith("error") else None))
    units = ", ".join(f"{name}: {_LABELS[name][1]}" for name in rows[0])
    for key in figures[0]:
        column = np.array([figure[key] for figure in figures])
        variables[key] = ("quantity", column, {"units": "t" if key == "barrier_at" else units})
    return xr.Dataset(
        variables,
        coords={
            "t": ("t", places, {"units": f"share of the way (length {length:.6g})"}),
            "quantity": list(rows[0]),
        },
        attrs={**words_of(risk), "length": length, "stderr": _NOT_INCLUDED},
    )


def _figures(
    places: NDArray[np.float64], table: NDArray[np.float64], largest: float | None = None
) -> dict[str, float]:
    """
    Compare the points of the line (rows) with the ends, sample by sample (columns).

    ``largest`` is the largest magnitude of a difference, where it is known.
    """
    chord = (1 - places)[:, None] * table[0] + places[:, None] * table[-1]
    excess = (table - chord)[1:-1]
    highest = int(excess.mean(1).argmax())
    middle = len(places) // 2
    best = table[0] if table[0].mean() <= table[-1].mean() else table[-1]
    parts = {
        "barrier": excess[highest],
        "mean_excess": excess[middle - 1],
        "mean_over_best": table[middle] - best,
    }
    figures = {"barrier_at": float(places[1 + highest])}
    for name, differences in parts.items():
        figures[name] = float(differences.mean())
        figures[f"{name}_stderr"] = float(_stderr(differences[None])[0])
    fair = crossfit(excess)
    parts["crossfit"] = fair.judged
    figures["crossfit"], figures["crossfit_stderr"] = fair.value, fair.stderr
    for name, differences in parts.items():
        stderr = fair.stderr if name == "crossfit" else None
        ends = mean_interval(differences, largest=largest, stderr=stderr)
        figures[f"{name}_low"], figures[f"{name}_high"] = ends
    # The choice of the highest point raises the barrier in the mean, and lowers the cross-fit: what
    # they estimate lies between, and has one interval.
    for end, outer in (("low", min), ("high", max)):
        ends_of_both = (figures[f"barrier_{end}"], figures[f"crossfit_{end}"])
        figures[f"barrier_{end}"] = figures[f"crossfit_{end}"] = outer(ends_of_both)
    return figures


def _stderr(table: NDArray[np.float64]) -> NDArray[np.float64]:
    samples = table.shape[1]
    if samples == 1:
        return np.zeros(len(table))
    spread: NDArray[np.float64] = table.std(axis=1, ddof=1) / np.sqrt(samples)
    return spread
