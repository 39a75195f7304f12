"""Gradient flow: where steepest descent with infinitely small steps leads, by stiff solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from thalweg.dynamics.flow_solvers import Chebyshev, Implicit, Slope, Solver
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.landscape.protocols import Curved, Landscape, words_of
from thalweg.result import Result
from thalweg.run.progress import Progress, silent

Method = Literal["auto", "implicit", "chebyshev"]
Stop = Callable[[float, float, Tensor], bool]
# An implicit step factors a W x W matrix whose columns are Hessian products: beyond this many
# weights gradients alone are cheaper.
_IMPLICIT_WEIGHTS = 200
_TIGHTER = 0.1
_ENDED = ("stationary", "time reached", "stopped")


@dataclass(frozen=True)
class Flow(Result):
    """
    Where a gradient flow led.

    Attributes
    ----------
    w : Tensor
        Shape (W,), the end, in the landscape's dtype: of the tighter tolerance.
    status : {"converged", "not converged"}
        Whether the flow came to its end, at both tolerances, and both ends agree.
    ended : str
        Why it stopped: ``"stationary"``, ``"time reached"``, ``"stopped"``, ``"gradients spent"``,
        ``"step too small"`` or ``"not finite"``.
    time : float
        t at the end, in units of one over curvature.
    value : float
        The landscape there.
    slope : float
        Norm of the gradient there, as a share of that at the beginning.
    distance : float
        From the beginning, Euclidean.
    difference : float or None
        Distance between the ends at both tolerances as a share of ``distance``; None where only
        one was asked for. An estimate of the error of the looser one.
    method : {"implicit", "chebyshev"}
        Which solver.
    tolerances : tuple of float
        Of the runs, looser first.
    gradients : int
        Gradients evaluated in all.
    history : list of dict
        Rows with ``time``, ``value``, ``slope`` and ``distance``, one a step of the tighter run.
    provenance : dict
        Which function it is.
    """

    w: Tensor
    status: Literal["converged", "not converged"]
    ended: str
    time: float
    value: float
    slope: float
    distance: float
    difference: float | None
    method: str
    tolerances: tuple[float, ...]
    gradients: int
    history: list[dict[str, float]] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Give all but the weights as JSON values."""
        own = {name: value for name, value in vars(self).items() if name != "w"}
        return own | {"tolerances": list(self.tolerances)}


def gradient_flow(
    landscape: Landscape,
    w0: Tensor,
    *,
    time: float = math.inf,
    stationary: float = 1e-8,
    rtol: float = 1e-3,
    check: bool = True,
    agreement: float = 0.01,
    method: Method = "auto",
    max_gradients: int = 100_000,
    stop: Stop | None = None,
    progress: Progress = silent,
) -> Flow:
    """
    Follow ``dw/dt = -gradient(w)`` from ``w0`` until it comes to rest.

    Near a minimum the flow is stiff: curvatures spread over many decades, and its end is decided by
    the smallest of them. Two solvers with error control take steps as long as accuracy allows. Both
    measure errors against the distance from ``w0``, so that neither units nor the origin matter.
    Rest is where there is no slope, at a saddle as at a minimum: the Hessian there tells which. A
    loss without a lowest point, such as the cross-entropy of a network at zero error, has none.

    Parameters
    ----------
    landscape : Landscape
        What is descended. Give networks in float64: in float32 a gradient falls to about 1e-4 of
        its first length, not further.
    w0 : Tensor
        Where the flow begins, shape (W,); not changed.
    time : float
        Where it ends at the latest, in units of one over curvature.
    stationary : float
        It ends where the gradient has at most this share of its first length.
    rtol : float
        Error allowed in a step, as a share of the distance from ``w0``.
    check : bool
        Follow it a second time at a tenth of ``rtol``, and say how far the ends are apart.
    agreement : float
        Largest ``difference`` of the two ends that counts as converged.
    method : {"auto", "implicit", "chebyshev"}
        ``"implicit"`` is SciPy's BDF with the dense Hessian: memory for a few matrices of W x W
        numbers, W Hessian products and a factorization (W^3) whenever the Hessian is renewed.
        ``"chebyshev"`` is the Runge-Kutta-Chebyshev method of second order: seven vectors, and
        about ``1.3 sqrt(h c)`` gradients for a step h where the largest curvature is c, so that a
        flow over 1e6 times the shortest time scale costs thousands of gradients, at any W. By
        default the first up to 200 weights where there is a Hessian, the second beyond.
    max_gradients : int
        The most that may be evaluated at one tolerance.
    stop : callable, optional
        ``stop(time, value, w)`` is asked after each step and ends the flow by answering True.
    progress : Progress
        Shows the decades by which the gradient has fallen, of those that it must.

    Returns
    -------
    Flow
        Failing to converge is a status, not an error.

    Raises
    ------
    InvalidArgument
        If an argument has a value that makes no sense.
    InvalidWeights
        If ``w0`` is not a finite point of the landscape's space.

    References
    ----------
    B. P. Sommeijer, L. F. Shampine and J. G. Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comput. Appl. Math. 88 (1998) 315-326.

    Examples
    --------
    A bowl whose slow direction takes a million times as long as its fast one:

    >>> import torch
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.tensor([1.0, 1e-6], dtype=torch.float64))
    >>> flow = gradient_flow(bowl, bowl.centre + 1.0, stationary=1e-12)
    >>> flow.status, bool((flow.w - bowl.centre).norm() < 1e-4)
    ('converged', True)
    """
    _check_arguments(landscape, w0, time, stationary, rtol, agreement, max_gradients, method)
    chosen = method if method != "auto" else _choose(landscape)
    tolerances = (rtol, rtol * _TIGHTER) if check else (rtol,)
    runs = [
        _Run(landscape, w0, chosen, tolerance, time, stationary, max_gradients, stop)
        for tolerance in tolerances
    ]
    for run in runs:
        with progress(math.ceil(-math.log10(stationary)), "decades of the gradient") as bar:
            run.follow(bar.update)
    last = runs[-1].history[-1]
    difference = _difference(runs) if check else None
    agree = difference is None or difference <= agreement
    return Flow(
        w=runs[-1].solver.w.clone(),
        status="converged"
        if agree and all(run.ended in _ENDED for run in runs)
        else "not converged",
        ended=runs[-1].ended,
        difference=difference,
        method=chosen,
        tolerances=tolerances,
        gradients=sum(run.slope.gradients for run in runs),
        history=runs[-1].history,
        provenance=words_of(landscape),
        **last,
    )


def _choose(landscape: Landscape) -> Literal["implicit", "chebyshev"]:
    small = landscape.space.size <= _IMPLICIT_WEIGHTS
    return "implicit" if small and isinstance(landscape, Curved) else "chebyshev"


class _Run:
    """A flow at one tolerance."""

    def __init__(
        self,
        landscape: Landscape,
        w0: Tensor,
        method: str,
        rtol: float,
        time: float,
        stationary: float,
        max_gradients: int,
        stop: Stop | None,
    ) -> None:
        self.slope = Slope(landscape)
        kind = Implicit if method == "implicit" else Chebyshev
        self.solver: Solver = kind(self.slope, w0, rtol, time)
        self.start, self.first = self.solver.w.clone(), float(self.solver.gradient.norm())
        self.time, self.stationary = time, stationary
        self.max_gradients, self.stop = max_gradients, stop
        self.history = [self._row()]
        self.ended = "stationary" if self.first == 0 else ""

    def follow(self, update: Callable[[int], Any]) -> None:
        """Take steps to the end."""
        shown = 0
        while not self.ended:
            if not self.solver.step():
                self.ended = "step too small"
                return
            self.history.append(self._row())
            self.ended = self._ending()
            decades = math.floor(-math.log10(max(self.history[-1]["slope"], self.stationary)))
            if decades > shown:
                update(decades - shown)
                shown = decades

    def _row(self) -> dict[str, float]:
        solver = self.solver
        return {
            "time": solver.t,
            "value": solver.value,
            "slope": float(solver.gradient.norm()) / self.first if self.first else 0.0,
            "distance": float((solver.w - self.start).norm()),
        }

    def _ending(self) -> str:
        row = self.history[-1]
        if not math.isfinite(row["value"]) or not math.isfinite(row["slope"]):
            return "not finite"
        if self.stop is not None and self.stop(row["time"], row["value"], self.solver.w):
            return "stopped"
        if row["slope"] <= self.stationary:
            return "stationary"
        if row["time"] >= self.time:
            return "time reached"
        return "gradients spent" if self.slope.gradients >= self.max_gradients else ""


def _difference(runs: list[_Run]) -> float:
    apart = float((runs[0].solver.w - runs[1].solver.w).norm())
    distance = runs[1].history[-1]["distance"]
    return apart / distance if distance else (0.0 if apart == 0 else math.inf)


def _check_arguments(
    landscape: Landscape,
    w0: Tensor,
    time: float,
    stationary: float,
    rtol: float,
    agreement: float,
    max_gradients: int,
    method: str,
) -> None:
    if not bool(landscape.space.check(w0).isfinite().all()):
        raise InvalidWeights("w0 has entries that are NaN or infinite; start from finite weights.")
    if not (time > 0 and 0 < stationary < 1 and 0 < rtol < 1 and agreement > 0):
        raise InvalidArgument(
            f"got time={time}, stationary={stationary}, rtol={rtol}, agreement={agreement};"
            " expected a positive time, stationary and rtol between 0 and 1, a positive agreement."
        )
    if max_gradients < 1 or method not in ("auto", "implicit", "chebyshev"):
        raise InvalidArgument(
            f"got max_gradients={max_gradients} and method={method!r}; expected a positive number,"
            " and 'auto', 'implicit' or 'chebyshev'."
        )
    if method == "implicit" and not isinstance(landscape, Curved):
        raise InvalidArgument(
            f"method='implicit' needs a Hessian, and {type(landscape).__name__} has none; write"
            " method='chebyshev'."
        )
