"""A path of exact zeros from one certified point towards another, proved to exist."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.certificates.certificate import Certificate
from thalweg.certificates.products import WIDER
from thalweg.certificates.statement import state
from thalweg.certificates.zero import certify_zero
from thalweg.certificates.zero_proof import prove
from thalweg.curvature.cholesky import InPlaceCholesky
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import require
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point, open_point
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Progress, silent
from thalweg.tracing.chain import Chain, Network

# Share of the radius that a step goes, and how often it is halved where a proof fails.
_SHARE, _HALVINGS = 0.8, 12
_CORRECTIONS = 8
# Part of the direction to the goal that lies in the manifold, below which it stands across.
_ACROSS = 1e-3


@dataclass(frozen=True)
class PathCertificate(Result):
    """
    The answer of `certify_path`.

    Attributes
    ----------
    verdict : {"connected", "stopped", "refused"}
        A path of zeros joins both ends; or leads from the first end to ``points[-1]``; or an end
        is no certified zero.
    reason : str
        Where and why it stopped; empty where it is connected.
    length : float
        Of the polygon of ``points``, which the path of zeros follows.
    steps : int
        Number of its pieces.
    left : float
        Distance from its end to ``w1``.
    direct : float
        Distance from ``w0`` to ``w1``.
    smallest_radius : float
        Of the balls along it.
    strays : float
        Upper bound of how far the path of zeros is from the polygon.
    seconds : float
        Wall time.
    points : Tensor
        Centres of the balls, shape (steps + 1, W).
    ends : tuple of Certificate
        Of ``w0`` and ``w1``.
    certificates : tuple of Certificate
        Of the points.
    """

    verdict: Literal["connected", "stopped", "refused"]
    reason: str
    length: float
    steps: int
    left: float
    direct: float
    smallest_radius: float
    strays: float
    seconds: float
    points: Tensor
    ends: tuple[Certificate, Certificate]
    certificates: tuple[Certificate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give all but the points and certificates as JSON values."""
        left_out = ("points", "ends", "certificates")
        names = [name for name in self.__dataclass_fields__ if name not in left_out]
        return {name: getattr(self, name) for name in names}


def certify_path(
    risk: EmpiricalRisk,
    w0: Tensor | Point | str | PathLike[str],
    w1: Tensor | Point | str | PathLike[str],
    /,
    *,
    steps: int = 1000,
    progress: Progress = silent,
) -> PathCertificate:
    """
    Walk along the zeros from ``w0`` towards ``w1``, and prove that a path of zeros does.

    Each step goes along the projection of ``w1 - w`` on the null space of J, is brought back by
    Gauss-Newton, and is certified by `certify_zero`: singular values of J are at least mu on the
    ball of radius rho around w, J is Lipschitz with L there, and a zero z lies within e of w.

    Two steps w, v whose balls overlap so far that ``d + L d^2 / (8 mu) < rho`` with
    ``d = |v - w| + e_w + e_v`` are joined by zeros: their zeros z_w, z_v and the segment between
    them lie within d of w, in its ball; along the segment ``|F| <= L d^2 / 8``, since F vanishes at
    both ends and J is Lipschitz; the flow ``w' = -J^T (J J^T)^-1 F`` moves every point of the
    segment by at most ``|F| / mu``, so within the ball, to a zero; F decays along it as e^-t, so
    the zeros that it ends in depend continuously on where it begins, and z_w and z_v stay. The
    segment is carried to a continuous path of zeros from z_w to z_v.

    Parameters
    ----------
    risk : EmpiricalRisk
        As for `certify_zero`, of float64, without copies among the samples and without one-hot
        targets that are dependent. M up to some 200 is quick.
    w0, w1 : Tensor, Point or path
        Flat vectors, shape (W,); whole states, from `open_point`; or files of such. The path leads
        through trained weights: frozen weights and buffers have to be the same at both ends.
    steps : int
        The most steps.
    progress : Progress
        Counts steps.

    Returns
    -------
    PathCertificate
        Assumptions are those of its certificates.

    Raises
    ------
    InvalidArgument
        If the risk is not of float64, or frozen weights or buffers of the ends differ.
    """
    require(risk, Network, "certify_path", "give an EmpiricalRisk(problem, dtype=torch.float64)")
    if risk.dtype != torch.float64:
        raise InvalidArgument(
            f"certify_path got a risk of {risk.dtype}, expected float64: write"
            " EmpiricalRisk(problem, dtype=torch.float64)."
        )
    ends = [open_point(risk.problem, w) if isinstance(w, str | PathLike) else w for w in (w0, w1)]
    states = States.of(risk, ends)
    if states.parts:
        raise InvalidArgument(
            f"the two ends differ besides the trained weights in {states.parts.differing}; a path"
            " of zeros leads through trained weights alone. Give two states of one training, or"
            " train these weights, too."
        )
    first, last = (w.detach().cpu().double() for w in states.weights)
    with states.visited(risk), progress(steps, "path of zeros") as bar:
        walk = _Walk(risk, first, last)
        while walk.verdict is None and walk.taken < steps:
            walk.advance()
            bar.update(1)
    return walk.result(steps)


class _Walk:
    """A path under way: its last point is certified."""

    def __init__(self, risk: EmpiricalRisk, w0: Tensor, w1: Tensor) -> None:
        self.risk, self.goal, self.start = risk, w1, time.perf_counter()
        self.ends = certify_zero(risk, w0), certify_zero(risk, w1)
        self.here, self.points = self.ends[0], [w0]
        self.certificates = [self.here]
        self.length, self.strays = 0.0, self.here.distance
        self.smallest = self.here.radius
        self.verdict: Literal["connected", "stopped", "refused"] | None = None
        self.reason = ""
        for name, end in zip(("w0", "w1"), self.ends, strict=True):
            whole = end.equations == risk.residuals(w0).numel()
            if end.verdict != "certified" or not whole:
                why = end.reasons[0] if end.reasons else "its equations are dependent"
                self.verdict, self.reason = "refused", f"{name} is no such zero: {why}"
                return
        self.read = Chain(risk)

    @property
    def taken(self) -> int:
        """Number of steps so far."""
        return len(self.points) - 1

    def advance(self) -> None:
        """Take one step, or say why there is none."""
        w = self.points[-1]
        if self._joins(self.goal, self.ends[1]):
            self._move_to(self.goal, self.ends[1])
            self.verdict = "connected"
            return
        factor = InPlaceCholesky(self.risk.gram(w).numpy())
        factor.factor(0.0)
        direction = self.goal - w
        image = self.risk.jacobian(w, method="recompute") @ direction
        along = direction - self.risk.pull_back(w, torch.from_numpy(factor.solve(image.numpy())))
        share = float(along.norm() / direction.norm())
        if share < _ACROSS:
            self._stop(f"the way to w1 stands across the zeros: {share:.2g} of it lies along them")
            return
        size = min(_SHARE * self.here.radius, float(direction.norm()))
        for _ in range(_HALVINGS):
            ahead = self._correct(w + along * (size / float(along.norm())), factor)
            certificate = prove(state(self.read, ahead, outputs=None, strict=False))
            if certificate.verdict == "certified" and self._joins(ahead, certificate):
                self._move_to(ahead, certificate)
                return
            size /= 2
        why = certificate.reasons[0] if certificate.reasons else "balls do not overlap enough"
        self._stop(f"no step from here could be proved, the last of {2 * size:.3g}: {why}")

    def _correct(self, w: Tensor, factor: InPlaceCholesky) -> Tensor:
        """Go back to the zeros by steps of Gauss-Newton with the factor of the step's start."""
        last = math.inf
        for _ in range(_CORRECTIONS):
            residual = self.risk.residuals(w).reshape(-1)
            size = float(residual.norm())
            if not size < last / 2:
                break
            last = size
            w = w - self.risk.pull_back(w, torch.from_numpy(factor.solve(residual.numpy())))
        return w

    def _joins(self, ahead: Tensor, certificate: Certificate) -> bool:
        end = self.here
        d = float((ahead - self.points[-1]).norm()) + end.distance + certificate.distance
        return (d + end.lipschitz * d * d / (8 * end.slope)) * WIDER < end.radius

    def _move_to(self, ahead: Tensor, certificate: Certificate) -> None:
        d = float((ahead - self.points[-1]).norm())
        around = slack = self.here.distance + certificate.distance
        across = self.here.lipschitz * (d + slack) ** 2 / (8 * self.here.slope)
        self.strays = max(self.strays, (around + across) * WIDER)
        self.length += d
        self.smallest = min(self.smallest, certificate.radius)
        self.points.append(ahead)
        self.certificates.append(certificate)
        self.here = certificate

    def _stop(self, reason: str) -> None:
        self.verdict, self.reason = "stopped", reason

    def result(self, steps: int) -> PathCertificate:
        """Give what was reached."""
        if self.verdict is None:
            self._stop(f"{steps} steps are taken; more can follow with steps=...")
        assert self.verdict is not None
        return PathCertificate(
            verdict=self.verdict,
            reason=self.reason,
            length=self.length,
            steps=self.taken,
            left=float((self.goal - self.points[-1]).norm()),
            direct=float((self.goal - self.points[0]).norm()),
            smallest_radius=self.smallest,
            strays=self.strays,
            seconds=time.perf_counter() - self.start,
            points=torch.stack(self.points),
            ends=self.ends,
            certificates=tuple(self.certificates),
        )
