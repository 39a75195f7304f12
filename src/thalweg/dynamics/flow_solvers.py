"""Two stiff solvers for gradient flow: implicit with a dense Hessian, explicit of many stages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.landscape.protocols import Curved, Landscape, Trainable, placed
from thalweg.run.seeds import torch_generator

Array = NDArray[np.float64]
# Power iteration comes from below; RKC is unstable beyond its bound and only slow below it.
_SAFETY = 1.2
_POWER_STEPS, _POWER_CHANGE = 40, 0.02
_STEPS_BETWEEN_BOUNDS = 25
_SHORTEST = 1e-14  # of t, below which a step has lost all meaning
# Sommeijer, Shampine and Verwer (1998), section 2: damping, and the stability bound's factor.
_DAMPING, _STAGES = 2 / 13, 1.54
_MOST_STAGES = 20_000


class Solver(Protocol):
    """A flow under way."""

    t: float
    w: Tensor
    value: float
    gradient: Tensor

    def step(self) -> bool:
        """Take one step; False where none is short enough."""


class Slope:
    """
    A landscape's value and gradient, counted.

    Parameters
    ----------
    landscape : Landscape
        Of it.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape, self.gradients = landscape, 0
        self._both: Callable[[Tensor], tuple[float, Tensor]] = (
            landscape.value_and_gradient
            if isinstance(landscape, Trainable)
            else lambda w: (float(landscape.value(w)), landscape.gradient(w))
        )

    def __call__(self, w: Tensor) -> Tensor:
        """Evaluate the gradient."""
        self.gradients += 1
        return self.landscape.gradient(w).detach()

    def measure(self, w: Tensor) -> tuple[float, Tensor]:
        """Evaluate value and gradient."""
        self.gradients += 1
        value, gradient = self._both(w)
        return value, gradient.detach().clone()


class Implicit:
    """
    SciPy's BDF of orders 1 to 5 with the Hessian as the Jacobian, in ``u = w - w0``.

    Parameters
    ----------
    slope : Slope
        Of a landscape with a Hessian.
    w0 : Tensor
        Where it begins.
    rtol : float
        Error of a step as a share of the distance from w0.
    time : float
        Where it ends at the latest.
    """

    def __init__(self, slope: Slope, w0: Tensor, rtol: float, time: float) -> None:
        from scipy.integrate import BDF

        self._slope, self._start, self._rtol = slope, placed(slope.landscape, w0), rtol
        self.t, self.w = 0.0, self._start.clone()
        self.value, self.gradient = slope.measure(self.w)
        u = np.zeros(len(w0))
        self._bdf = BDF(
            lambda _, u: -_to_array(slope(self._at(u))),
            0.0,
            u,
            time,
            rtol=rtol,
            atol=self._absolute(self._first_length()),
            jac=lambda _, u: -self._hessian(u),
        )

    def step(self) -> bool:
        """Take one step."""
        # SciPy's table of differences begins as unwritten memory, and the first steps subtract
        # entries of it that they overwrite before they are read.
        with np.errstate(invalid="ignore", over="ignore"):
            self._bdf.step()
        if self._bdf.status == "failed":
            return False
        self.t, self.w = float(self._bdf.t), self._at(self._bdf.y)
        self.value, self.gradient = self._slope.measure(self.w)
        self._bdf.atol = max(self._bdf.atol, self._absolute(float(np.linalg.norm(self._bdf.y))))
        return True

    def _at(self, u: Array) -> Tensor:
        return self._start + torch.from_numpy(np.asarray(u)).to(self._start)

    def _absolute(self, length: float) -> float:
        """Spread the error of a whole vector over its entries."""
        return max(self._rtol * length / math.sqrt(len(self.w)), np.finfo(float).tiny)

    def _first_length(self) -> float:
        """Measure the step of steepest descent to the lowest point of the line (Cauchy's)."""
        g = self.gradient.double()
        operator = cast(Curved, self._slope.landscape).hessian(self.w)
        curvature = abs(float(g @ (operator @ self.gradient).double()))
        return float(g.norm()) ** 3 / curvature if curvature else float(g.norm())

    def _hessian(self, u: Array) -> Array:
        operator = cast(Curved, self._slope.landscape).hessian(self._at(u))
        dense = operator @ torch.eye(len(self.w), dtype=self.w.dtype, device=self.w.device)
        return _to_array(dense)


class Chebyshev:
    """
    Runge-Kutta-Chebyshev of second order (RKC; Sommeijer, Shampine and Verwer 1998).

    An explicit method whose s stages are stable up to ``0.65 s^2`` over the largest curvature:
    gradients only, and no linear system. Curvatures must be nearly real, as a Hessian's are.

    Parameters
    ----------
    slope : Slope
        Of a landscape.
    w0 : Tensor
        Where it begins.
    rtol : float
        Error of a step as a share of the distance from w0.
    time : float
        Where it ends at the latest.
    """

    def __init__(self, slope: Slope, w0: Tensor, rtol: float, time: float) -> None:
        self._slope, self._start, self._rtol, self._time = (
            slope,
            placed(slope.landscape, w0),
            rtol,
            time,
        )
        self.t, self.w = 0.0, self._start.clone()
        self.value, self.gradient = slope.measure(self.w)
        noise = torch.randn(len(self.w), generator=torch_generator(0, "flow"), dtype=torch.float64)
        self._direction = noise.to(self.w) / float(noise.norm())
        norm = float(self.gradient.norm())
        if norm:
            self._direction += self.gradient / norm
        self._curvature, self._age = self._bound(), 0
        self._h = self._rtol**0.5 / self._curvature

    def step(self) -> bool:
        """Take one step, shorter ones until the error is allowed."""
        if self._age >= _STEPS_BETWEEN_BOUNDS:
            self._curvature, self._age = self._bound(), 0
        while True:
            h = min(self._h, self._time - self.t, 0.65 * _MOST_STAGES**2 / self._curvature)
            w = self._stages(h)
            value, gradient = self._slope.measure(w)
            error = self._error(w, gradient, h)
            if error <= 1:
                break
            if h <= _SHORTEST * max(self.t, 1 / self._curvature):
                return False
            self._h = h * max(0.1, 0.8 * error ** (-1 / 3) if math.isfinite(error) else 0.0)
            self._curvature, self._age = max(self._curvature, self._bound()), 0
        # A step cut short by the end of time or the number of stages says nothing of the next.
        self._h = (
            max(self._h, h) if h < self._h else h * min(5.0, 0.8 * max(error, 1e-9) ** (-1 / 3))
        )
        self.t, self.w, self.value, self.gradient = self.t + h, w, value, gradient
        self._age += 1
        return True

    def _error(self, w: Tensor, gradient: Tensor, h: float) -> float:
        """Estimate the error of a step (equation 2.10), 1 being what is allowed."""
        estimate = 0.8 * (self.w - w) - 0.4 * h * (self.gradient + gradient)
        length = max(float((w - self._start).norm()), float((w - self.w).norm()))
        error = float(estimate.norm()) / (self._rtol * length) if length else 0.0
        return error if math.isfinite(error) else math.inf

    def _stages(self, h: float) -> Tensor:
        """Go through the recurrence of Chebyshev polynomials (equations 2.1 to 2.8)."""
        s = max(2, 1 + math.ceil(math.sqrt(1 + _STAGES * h * self._curvature)))
        w0 = 1 + _DAMPING / s**2
        t, first, second = _chebyshev(s, w0)
        w1 = first[s] / second[s]
        b = np.ones(s + 1)
        b[2:] = second[2:] / first[2:] ** 2
        b[0], b[1] = b[2], 1 / w0
        before = self.w
        now: Tensor = self.w - b[1] * w1 * h * self.gradient
        for j in range(2, s + 1):
            mu, nu, slope = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2 * b[j] * w1 / b[j - 1]
            again = -(1 - b[j - 1] * t[j - 1]) * slope
            after = (1 - mu - nu) * self.w
            after.add_(now, alpha=mu).add_(before, alpha=nu)
            after.sub_(self._slope(now), alpha=slope * h).sub_(self.gradient, alpha=again * h)
            before, now = now, after
        return now

    def _bound(self) -> float:
        """Estimate the largest curvature by power iteration on differences of gradients."""
        eps = float(torch.finfo(self.w.dtype).eps) ** (1 / 3) * (1 + float(self.w.norm()))
        largest = 0.0
        for _ in range(_POWER_STEPS):
            v = self._direction / self._direction.norm()
            product = (self._slope(self.w + eps * v) - self.gradient) / eps
            size = float(product.norm())
            if not math.isfinite(size) or size == 0:
                break
            self._direction = product
            settled = abs(size - largest) <= _POWER_CHANGE * size
            largest = size
            if settled:
                break
        return _SAFETY * largest or 1.0


def _chebyshev(s: int, x: float) -> tuple[Array, Array, Array]:
    """Evaluate T_j and its two derivatives at x > 1 for j = 0 to s."""
    j = np.arange(s + 1)
    angle = math.acosh(x)
    root = math.sinh(angle)
    t = np.cosh(j * angle)
    first = j * np.sinh(j * angle) / root
    second = (j**2 * t - x * first) / root**2
    return t, first, second


def _to_array(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()
