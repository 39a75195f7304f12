"""What one value, gradient and product take in a check-up, found within a share of its time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import torch

from thalweg.curvature.vector_products import Method
from thalweg.errors import ThalwegError
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk
from thalweg.risk.self_check import SelfCheck
from thalweg.run.threads import torch_threads

# Share of the time that planning may take.
FOR_PLAN = 0.1
# Timed on so many samples, fewer where these are slow; on the second number where they are quick.
_TIMED, _TIMED_FIRST, _TIMED_AGAIN = 32, 4, 256
_QUICK, _SLOW, _TIMES = 0.05, 1.0, 3
# Of the time for planning, for the samples that statistics of what is timed come from; and
# gradients that one of these costs.
_FOR_STATISTICS, _STATISTICS_GRADIENTS = 0.15, 10
# Share of the time for the self-check; gradients that it costs a sample, most in float64; the
# samples whose derivatives it compares, the fewest that it may, and no bound.
_FOR_CHECK, _CHECK_GRADIENTS, _CHECKED, _LEAST_CHECKED, _ALL_OF_CHECK = 0.03, 80, 8, 2, 10**9
# Gradients that timing all three costs a sample, the first product and its preparation included;
# and what they cost in gradients where there is no time to time them.
_TIMING_GRADIENTS, _IN_GRADIENTS = 16, {"value": 1 / 3, "gradient": 1.0, "product": 3.0}
# Most samples on which threads are compared; what of the time more of them must leave of that of
# one, and how many times as long they may take where there are fewer samples: on a machine that
# others use, they wait for one another.
_THREADED, _GAIN, _LOSS = 16, 0.9, 3
# Gradients that a first gradient of samples costs for each, preparation included; and how many
# of the very first call there has to be time for, to call again.
_PREPARED, _AGAIN = 3, 4


class Planning:
    """
    The time that planning may take, and how much of it there is for each step.

    Each step is made where it fits by what one gradient of a sample takes, found first.

    Parameters
    ----------
    subject : Subject
        Problem and points.
    seconds : float
        For the whole check-up.

    Attributes
    ----------
    each : float
        Seconds a gradient of a sample; 0 where the model gives none.
    threads : int
        Of torch: one where more gain nothing.
    """

    def __init__(self, subject: Subject, seconds: float) -> None:
        self.start, self.subject, self.seconds = time.perf_counter(), subject, seconds
        self.each, self.threads = 0.0, 1
        try:
            with torch_threads(1):
                calls = self._find_each()
            self.threads = self._most_useful(calls, torch.get_num_threads())
        except (RuntimeError, TypeError, ThalwegError):  # the self-check says what is wrong
            self.each, self.threads = 0.0, torch.get_num_threads()

    @property
    def left(self) -> float:
        """Seconds that planning may still take."""
        return self.start + FOR_PLAN * self.seconds - time.perf_counter()

    def _allows(self, gradients: float) -> bool:
        """Say whether there is time for what costs so many gradients of a sample."""
        return gradients * self.each <= self.left

    def _find_each(self) -> list[Callable[[], object]]:
        """Time a gradient of one sample, and then of more; give these calls."""
        calls = [self._gradient_of(1)]
        self.each = _timed(calls[0], most=1)
        if self._allows(_AGAIN):
            self.each = _timed(calls[0])  # the first call loads what it needs
        for samples in (_TIMED_FIRST, _THREADED):
            if self._allows(_PREPARED * samples):
                calls.append(self._gradient_of(samples))
                self.each = _timed(calls[-1]) / samples
        return calls

    def _gradient_of(self, samples: int) -> Callable[[], object]:
        problem = self.subject.sampled(samples)
        risk = EmpiricalRisk(problem, batchnorm="frozen", dtype=self.subject.dtype, check=False)
        w = risk.space.pack(problem.model).to(risk.dtype)
        return lambda: risk.gradient(w)

    def _most_useful(self, calls: list[Callable[[], object]], most: int) -> int:
        """Compare one thread with all, call after call, as long as these do not lose by much."""
        if most == 1 or not self._allows(2 * _LOSS * _THREADED):
            return most
        for call in calls:
            taken = {}
            for threads in (1, most):
                with torch_threads(threads):
                    taken[threads] = _timed(call)
            if taken[most] > _LOSS * taken[1]:
                return 1
        if taken[most] > _GAIN * taken[1]:
            return 1
        self.each *= taken[most] / taken[1]
        return most

    def self_check(self) -> SelfCheck | Literal[False]:
        """Make the self-check on as many samples as there is time for; False where that is none."""
        if not self.each:
            return self.subject.checked_on(_ALL_OF_CHECK)
        affordable = int(_FOR_CHECK * self.seconds / (_CHECK_GRADIENTS * self.each))
        if affordable >= _CHECKED:
            return self.subject.checked_on(_ALL_OF_CHECK)
        samples = max(_LEAST_CHECKED, affordable)
        return self._allows(_CHECK_GRADIENTS * samples) and self.subject.checked_on(samples)

    def timings(self) -> tuple[Method | None, dict[str, float]]:
        """Give the way of products, and seconds a sample; by one gradient where time is short."""
        each = _STATISTICS_GRADIENTS * self.each
        fitting = _FOR_STATISTICS * FOR_PLAN * self.seconds / each if each else math.inf
        samples = int(min(max(_TIMED_FIRST, fitting), _TIMED_AGAIN))
        if not self._allows(_STATISTICS_GRADIENTS * samples + _TIMING_GRADIENTS * _TIMED_FIRST):
            return "graph", {name: share * self.each for name, share in _IN_GRADIENTS.items()}
        few = self.subject.limited(samples, samples)  # statistics of all would take too long
        method = _method(few)
        return method, self._seconds(few, method)

    def _seconds(self, few: Subject, method: Method | None) -> dict[str, float]:
        """Give seconds a sample of a value, a gradient and a product with the Hessian."""
        seconds = _seconds_on(few, _TIMED_FIRST, method)  # the first calls load what they need
        if self._allows(_TIMING_GRADIENTS * _TIMED_FIRST):
            seconds = _seconds_on(few, _TIMED_FIRST, method)
        slow = seconds["product"] * _TIMED_FIRST > _SLOW
        more = 2 * _TIMED_FIRST if slow else _TIMED
        if not self._allows(_TIMING_GRADIENTS * more):
            return seconds
        seconds = _seconds_on(few, more, method)
        quick = not slow and seconds["product"] * _TIMED < _QUICK
        return _seconds_on(few, _TIMED_AGAIN, method) if quick else seconds


def _seconds_on(subject: Subject, samples: int, method: Method | None) -> dict[str, float]:
    risk, w = subject.few(0, samples)
    v = torch.ones_like(w)
    hessian = risk.hessian(w, method=method)
    hessian @ v  # prepares the others
    work: dict[str, Callable[[], object]] = {
        "value": lambda: risk.value(w),
        "gradient": lambda: risk.gradient(w),
        "product": lambda: hessian @ v,
    }
    return {name: _timed(call) / risk.samples for name, call in work.items()}


def _method(subject: Subject) -> Method | None:
    """Choose how products are taken: tracing, which few of them do not repay, only where needed."""
    risk, w = subject.few(0, _TIMED_FIRST)
    try:
        risk.hessian(w, method="graph") @ torch.ones_like(w)
    except (RuntimeError, TypeError, ThalwegError):  # some models refuse, each in its own way
        return None
    return "graph"


def _timed(call: Callable[[], object], most: int = _TIMES) -> float:
    """Time a call; a quick one several times, as others may have the machine for a moment."""
    least = math.inf
    for _ in range(most):
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
        if least > _QUICK:
            break
    return least
