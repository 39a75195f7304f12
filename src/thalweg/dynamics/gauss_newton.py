"""Damped Gauss-Newton: from near a zero of the residuals to a residual of rounding size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.curvature.cholesky import InPlaceCholesky
from thalweg.dynamics.methods import Outcome
from thalweg.dynamics.settings import Settings
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import LeastSquares, require
from thalweg.run.checkpoints import RESUME_PREFIX

_ANCHOR = RESUME_PREFIX + "gauss-newton/anchor"
# Damping as a multiple of K's mean diagonal entry: to begin with, and at least. The least is above
# what rounding in K's factorization could make of a singular K.
_FIRST, _LEAST, _MOST = 1e-3, 1e-13, 1e6
# A factor is used again while it at least halves the residual: a step without one costs M^2, not
# M^3 / 3.
_REUSED = 0.5
_BACKTRACKS = 4
# Root mean square of a residual, in units of the targets', that float64 may not get below.
_ROUNDING = 1e-13


class GaussNewton:
    """
    Levenberg-Marquardt in the space of equations: ``d = -J^T (K + damping I)^-1 r``, K = J J^T.

    The damping follows the ratio of the decrease of the squared residual to the decrease that the
    linearization foretells. A step that does not decrease it is shortened, and at last refused. At
    the end of its accuracy, where no step decreases the residual any more, the method stays where
    it is.

    Parameters
    ----------
    risk : LeastSquares
        Of float64, such as an `EmpiricalRisk` with the squared loss.
    w : Tensor
        Shape (W,); changed in place.

    References
    ----------
    J. Nocedal and S. Wright, Numerical Optimization (2006), section 10.3; for W > M the
    normal equations are those of the other side, J J^T.
    """

    def __init__(self, risk: LeastSquares, w: Tensor) -> None:
        self.risk, self.w = risk, w
        self.damping, self.stalled = _FIRST, False
        self._anchor: Tensor | None = None  # where the factor was taken; its damping is used there
        self._factor: InPlaceCholesky | None = None
        self._used = _FIRST
        self._floor = _ROUNDING * risk.target_scale * risk.residuals(w).numel() ** 0.5

    def step(self, step: int, batch: Tensor | None, rate: float, /) -> Outcome:
        """Take one step; ``rate`` is not used."""
        before = self.risk.residuals(self.w).reshape(-1)
        size = float(before.norm())
        loss = before.square().mean()
        if self.stalled or size == 0:
            return Outcome(loss, None)
        fresh = self._anchor is None
        if fresh:
            self._anchor, self._used = self.w.clone(), self.damping
        after = self._go_downhill(before)
        if after is None or after > _REUSED * size:
            self._drop()
            self.stalled = size <= self._floor
        if after is None and fresh:
            self._raise_damping()
        return Outcome(loss, None)

    def _go_downhill(self, residual: Tensor) -> float | None:
        """Go downhill along one direction; give the size of the residual there, None if nowhere."""
        factor = self._factored()
        y = torch.from_numpy(factor.solve(residual.numpy()))
        direction = self.risk.pull_back(self.w, y)
        size, foretold = float(residual.norm()), self._shift(factor) * float(y.norm())
        for halvings in range(_BACKTRACKS):
            trial = self.w - direction * 0.5**halvings
            after = float(self.risk.residuals(trial).norm())
            if after < size:
                self.w.copy_(trial)
                self._adapt((size**2 - after**2) / max(size**2 - foretold**2, 1e-300))
                return after
        return None

    def _factored(self) -> InPlaceCholesky:
        if self._factor is None:
            assert self._anchor is not None
            self._factor = InPlaceCholesky(self.risk.gram(self._anchor).numpy())
            while not self._factor.factor(self._shift(self._factor)):
                self._used *= 10
        return self._factor

    def _shift(self, factor: InPlaceCholesky) -> float:
        return self._used * float(factor.diagonal.mean())

    def _adapt(self, gain: float) -> None:
        if gain > 0.75:
            self.damping = max(min(self.damping, self._used) / 30, _LEAST)
        elif gain < 0.25:
            self.damping = self._used * 4

    def _raise_damping(self) -> None:
        self.damping = max(self._used * 10, _LEAST)
        self.stalled |= self.damping > _MOST

    def _drop(self) -> None:
        self._factor = self._anchor = None

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Give the damping and the place of the factor, which is made again there."""
        place = {} if self._anchor is None else {_ANCHOR: self._anchor}
        return place, {"damping": self.damping, "used": self._used, "stalled": self.stalled}

    def restore(self, tensors: dict[str, Tensor], structure: Any, /) -> None:
        """Go back to such a state."""
        self._factor, self._anchor = None, tensors.get(_ANCHOR)
        self.damping, self._used = structure["damping"], structure["used"]
        self.stalled = structure["stalled"]


def make_gauss_newton(landscape: Any, w: Tensor, settings: Settings) -> GaussNewton:
    """
    Check what the method needs, and make it.

    Raises
    ------
    InvalidArgument
        If the landscape is not `LeastSquares` of float64, or a setting has no meaning here.
    """
    write = "write EmpiricalRisk(problem, dtype=torch.float64), with the squared loss"
    risk = require(landscape, LeastSquares, "optimizer='gauss-newton'", write)
    if risk.dtype != torch.float64:
        raise InvalidArgument(
            f"optimizer='gauss-newton' got {risk.dtype}, expected torch.float64: {write}."
        )
    if settings.weight_decay or settings.clip is not None or settings.momentum:
        raise InvalidArgument(
            f"weight_decay={settings.weight_decay}, clip={settings.clip} and momentum="
            f"{settings.momentum} have no meaning for optimizer='gauss-newton'; leave them out."
        )
    return GaussNewton(risk, w)
