"""The volume of the set around a point where a landscape stays below a level, in a bracket."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.radial_volume import radial_log_volume
from thalweg.geometry.rays import ray_log_ratios
from thalweg.geometry.volume_draws import Drawing, Drawn, Frame
from thalweg.landscape.protocols import Landscape, require, words_of
from thalweg.result import Result
from thalweg.run.progress import Bar, Progress, silent
from thalweg.sampling import Diagnosis, Hamiltonian, LogRatio, Posterior, anneal, plain_whitening
from thalweg.sampling.reference import Reference, fitted_reference

_FITS = 3  # rounds in which temperature and frame are fitted to the draws
_FITTED, _DRAWS = 50, 120  # draws of a round, and of the last
_FRESH, _EVERY = 10, 3  # draws of which the fit knows nothing, one of so many
_ERRORS = 2.5  # standard errors beyond both ways
_RUNGS = (30, 90, 270)  # of an annealing, more where both ways part


@dataclass(frozen=True)
class LogVolume(Result):
    """
    A bracket of the logarithm of a volume.

    Attributes
    ----------
    value, low, high : float or None
        In nats; None where it is refused.
    forward, backward : float or None
        The two sides: annealing from the fitted reference, on average low, and from draws of the
        set, on average high; with what both have in common.
    radial : float
        The plain radial estimate, beside it: the mean over directions of the distance to the
        level, to the power W.
    misses : float or None
        ``value - radial``: what the plain estimate misses.
    level : float
        Above the landscape at w.
    beta : float
        Inverse temperature of the density that carries the set.
    rungs : int
        Of the annealing.
    virial, rhat : float
        Of the draws.
    status : {"converged", "wide", "refused"}
        ``"wide"`` where the two sides are more than a nat apart.
    reasons : tuple of str
        Why it is not converged, and what to do.
    described : dict
        Which function was measured.
    """

    value: float | None
    low: float | None
    high: float | None
    forward: float | None
    backward: float | None
    radial: float
    misses: float | None
    level: float
    beta: float
    rungs: int
    virial: float
    rhat: float
    status: Literal["converged", "wide", "refused"]
    reasons: tuple[str, ...]
    described: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and words, as JSON takes them."""
        return asdict(self)


def log_volume(
    landscape: Landscape,
    w: Tensor,
    *,
    level: float,
    localization: float = 0.0,
    chains: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> LogVolume:
    """
    Bracket the logarithm of the volume of the set where ``L - L(w) < level``.

    Draws of ``exp(-beta (L - L(w)))``, with beta such that the mean rise is the level, tell which
    part of its integral lies below the level (by integrals along rays through them), and which
    reference fits: a Gaussian, a shell, or coordinates with walls. Annealed importance sampling
    from the reference to the density gives its integral, on average too low; from draws of the
    density to the reference, on average too high. Both ways and 2.5 of their standard errors make
    the bracket, which so says when it is not to be trusted.

    Parameters
    ----------
    landscape : Landscape
        Anything with a gradient; a Hessian makes it faster.
    w : Tensor
        Shape (W,), a minimum.
    level : float
        Above L(w), positive.
    localization : float
        Weighs the volume by ``exp(-localization |v - w|^2 / 2)``: needed where the set has no end,
        as for networks with directions in which the loss does not change.
    chains : int
        8 or more.
    seed : int
        Of all that is random.
    progress : Progress
        Shows the work.

    Returns
    -------
    LogVolume
        ``low``, ``high``, ``radial``, ``status``, ``reasons``.

    Raises
    ------
    InvalidArgument
        If a number cannot be used.

    References
    ----------
    Grosse et al., Measuring the reliability of MCMC inference with bidirectional Monte Carlo
    (2016); Scherlis and Belrose, Estimating the probability of sampling a trained neural network at
    random (2025), for the radial estimate.

    Examples
    --------
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.ones(10, dtype=torch.float64))
    >>> answer = log_volume(bowl, bowl.centre, level=0.5)  # the unit ball: log(pi^5 / 120)
    >>> answer.low < 0.936 < answer.high, answer.status
    (True, 'converged')
    """
    require(landscape, Landscape, "log_volume", "give an EmpiricalRisk(problem)")
    landscape.space.check(w)
    if not 0 < level < math.inf or not 0 <= localization < math.inf or chains < 8:
        raise InvalidArgument(
            f"level={level}, localization={localization}, chains={chains}; give a positive level,"
            " a localization of 0 or more, and 8 chains or more."
        )
    drawing = Drawing(
        landscape, w, level=level, localization=localization, chains=chains, seed=seed
    )
    measured = _Measured(landscape, w, drawing)
    with progress(_FITS + 3, "volume") as bar:
        return measured.bracket(bar)


class _Path:
    """
    Densities between a reference and a posterior, in a frame's coordinates.

    What kernels ask of a posterior; the rise is the difference of both potentials.
    """

    localization = 0.0

    def __init__(
        self, posterior: Posterior, frame: Frame, reference: Reference, share: float
    ) -> None:
        self.posterior, self.frame, self.reference = posterior, frame, reference
        self.share, self.centre = share, torch.zeros_like(frame.mean)

    def evaluate(self, coordinates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate potential, gradient and difference."""
        potential, gradient, _ = self.posterior.evaluate(self.frame.points(coordinates))
        plain, slope = self.reference.potential(coordinates)
        pulled = self.frame.whitening.pulled_back(gradient)
        mixed = self.share * potential + (1 - self.share) * plain
        return mixed, self.share * pulled + (1 - self.share) * slope, potential - plain


class _Measured:
    """One volume."""

    def __init__(self, landscape: Landscape, w: Tensor, drawing: Drawing) -> None:
        self.landscape, self.w, self.drawing = landscape, w, drawing
        self.level, self.generator = drawing.level, drawing.generator

    def bracket(self, bar: Bar) -> LogVolume:
        for _ in range(_FITS):
            self.drawing.tune(self.drawing.draw(_FITTED).rises)
            bar.update()
        drawn = self.drawing.draw(_DRAWS)
        bar.update()
        radial = radial_log_volume(
            self.landscape, self.w, level=self.level, generator=self.generator
        )
        bar.update()
        diagnosis = drawn.diagnosis
        reasons = _reasons(diagnosis, drawn.rises, self.level)
        common: dict[str, Any] = {
            "radial": radial,
            "level": self.level,
            "beta": float(self.drawing.posterior.beta),
            "virial": diagnosis.virial,
            "rhat": max(diagnosis.rhat, diagnosis.rhat_distance),
            "described": words_of(self.landscape),
        }
        if reasons:
            nothing: dict[str, Any] = dict.fromkeys(
                ("value", "low", "high", "forward", "backward", "misses")
            )
            return LogVolume(**nothing, rungs=0, status="refused", reasons=reasons, **common)
        answer = self._anneal(drawn, common)
        bar.update()
        return answer

    def _anneal(self, drawn: Drawn, common: dict[str, Any]) -> LogVolume:
        frame, fresh = drawn.frame, self.drawing.fresh(_FRESH, every=_EVERY)
        coordinates = frame.coordinates(fresh.flatten(0, 1))
        reference = fitted_reference(coordinates, drawn.kurtosis)
        start = coordinates[-fresh.shape[1] :]
        below, below_error = _share_below(self.drawing.posterior, drawn, fresh, self.level)
        shared = reference.log_integral() + frame.whitening.log_determinant() + below
        for rungs in _RUNGS:
            there, back = self._both_ways(start, frame, reference, rungs)
            forward, backward = shared + there.value, shared - back.value
            errors = [_ERRORS * math.hypot(way.error, below_error) for way in (there, back)]
            low = min(forward - errors[0], backward - errors[1])
            high = max(forward + errors[0], backward + errors[1])
            if high - low <= 1:
                break
        value, narrow = (forward + backward) / 2, high - low <= 1
        reasons = (
            f"annealing forward and backward with {rungs} rungs leaves {high - low:.3g} nats"
            " between them, where the truth lies if the draws reach all of the set; give more"
            " chains.",
        )
        return LogVolume(
            *(value, low, high, forward, backward),
            misses=value - common["radial"],
            rungs=rungs,
            status="converged" if narrow else "wide",
            reasons=() if narrow else reasons,
            **common,
        )

    def _both_ways(
        self, drawn: Tensor, frame: Frame, reference: Reference, rungs: int
    ) -> tuple[LogRatio, LogRatio]:
        unit = plain_whitening(len(self.w), 1.0)

        def make(share: float) -> Hamiltonian:
            path: Any = _Path(self.drawing.posterior, frame, reference, share)
            return Hamiltonian(path, step_size=self.drawing.step, whitening=unit, most=8)

        # Dense near the reference, whose tails the density may cut off steeply.
        ladder = torch.linspace(0, 1, rungs + 1, dtype=torch.float64).square().tolist()
        start = reference.draw(len(drawn), self.generator)
        there = anneal(start, self.generator, rungs=ladder, make=make)
        return there, anneal(drawn, self.generator, rungs=ladder[::-1], make=make)


def _share_below(
    posterior: Posterior, drawn: Drawn, fresh: Tensor, level: float
) -> tuple[float, float]:
    """Give the logarithm of the volume below the level over the density's integral, its error."""
    logs = ray_log_ratios(posterior, fresh, drawn.frame.mean, level=level)
    highest = 0.0 if logs is None else float(logs.max())
    if logs is None:
        beta, rises = float(posterior.beta), drawn.rises
        shares = torch.where(rises < level, (beta * (rises - level)).exp(), 0 * rises)
        highest = beta * level
    else:
        shares = (logs - highest).exp()
    mean = float(shares.mean())
    # Of the chains' means: what a chain's own draws share is in it.
    error = float(shares.mean(0).std()) / math.sqrt(shares.shape[1])
    return highest + math.log(mean), error / mean


def _reasons(diagnosis: Diagnosis, rises: Tensor, level: float) -> tuple[str, ...]:
    sentences, virial = [], diagnosis.virial
    rhat = max(diagnosis.rhat, diagnosis.rhat_distance)
    allowed = 0.05 + 2 * min(diagnosis.virial_stderr, 0.1)
    if float(rises.min()) < -0.1 * level:
        sentences.append(
            f"the loss falls by {-float(rises.min()):.3g} around w, which is no minimum; train to"
            " convergence first, or give a higher level."
        )
    if not rhat <= 1.2 or not abs(virial - 1) <= allowed:
        sentences.append(
            f"the draws do not settle (virial {virial:.3g}, R-hat {rhat:.3g}): the set may have no"
            " end, as in directions in which the loss does not change; give a localization, which"
            " weighs the volume by a Gaussian around w, or more of it."
        )
    if not bool((rises < level).any()):
        sentences.append("no draw lies below the level; give a higher one.")
    return tuple(sentences)
