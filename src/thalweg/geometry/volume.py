"""The volume of the set around a point where a landscape stays below a level, in a bracket."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.curvature_at import leading_curvature
from thalweg.geometry.radial_volume import radial_log_volume
from thalweg.landscape.protocols import Landscape, require, words_of
from thalweg.result import Result
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator
from thalweg.sampling import (
    Diagnosis,
    Hamiltonian,
    LogRatio,
    Posterior,
    State,
    Whitening,
    adapt,
    anneal,
    sample,
    whiten,
)
from thalweg.sampling.diagnostics import standard_error

_FITS = 3  # rounds in which temperature and Gaussian are fitted to the draws
_FITTED, _DRAWS = 50, 120  # draws of a round, and of the last
_RUNGS = (30, 90, 270)  # of an annealing, more where both ways part
_DENSE = 1000  # weights up to which all eigenvectors of the curvature are taken


@dataclass(frozen=True)
class LogVolume(Result):
    """
    A bracket of the logarithm of a volume.

    Attributes
    ----------
    value, low, high : float or None
        In nats; None where it is refused.
    forward, backward : float or None
        The two sides: annealing from the fitted Gaussian, on average low, and from draws of the
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
    part of its integral lies below the level, and in which Gaussian it fits. Annealed importance
    sampling from that Gaussian to the density gives its integral, on average too low; from draws
    of the density to the Gaussian, on average too high. Both ways and twice their standard errors
    make the bracket, which so says when it is not to be trusted.

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
    measured = _Measured(landscape, w, level, localization, chains, seed)
    with progress(_FITS + 3, "volume") as bar:
        return measured.bracket(bar)


class _Path:
    """Densities between a Gaussian and a posterior: what kernels ask of a posterior."""

    def __init__(self, posterior: Posterior, gaussian: _Gaussian, share: float) -> None:
        self.posterior, self.gaussian, self.share = posterior, gaussian, share
        self.centre, self.localization = posterior.centre, posterior.localization

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate potential, gradient and rise."""
        potential, gradient, rise = self.posterior.evaluate(points)
        plain, slope = self.gaussian.potential(points)
        mixed = self.share * potential + (1 - self.share) * plain
        return mixed, self.share * gradient + (1 - self.share) * slope, rise


@dataclass(frozen=True)
class _Gaussian:
    """A Gaussian with the covariance ``S S'``."""

    mean: Tensor
    whitening: Whitening

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give minus the logarithm of the density, without its constant, and the gradient."""
        white = self.whitening.divide(points - self.mean)
        return white.square().sum(1) / 2, self.whitening.divide(white)

    def log_integral(self) -> float:
        """Give the integral of what `potential` is minus the logarithm of."""
        return len(self.mean) / 2 * math.log(2 * math.pi) + self.whitening.log_determinant()


class _Measured:
    """One volume."""

    def __init__(
        self,
        landscape: Landscape,
        w: Tensor,
        level: float,
        localization: float,
        chains: int,
        seed: int,
    ) -> None:
        self.landscape, self.w, self.level = landscape, w, level
        self.generator = torch_generator(seed, "volume")
        self.values, self.vectors = leading_curvature(landscape, w, dense=_DENSE, seed=seed)
        beta = len(w) / (2 * level)
        self.posterior = Posterior(landscape, w, beta=beta, localization=localization)
        floor = max(localization, self._flat(beta))
        self.whitening = whiten(self.values, self.vectors, beta=beta, localization=floor)
        noise = torch.randn(chains, len(w), generator=self.generator, dtype=torch.float64)
        self.points = self.posterior.centre + 0.1 * self.whitening.multiply(noise)
        self.step = 1.0 / len(w) ** 0.25

    def _flat(self, beta: float) -> float:
        """Give a first guess of the precision in flat directions, mended by the draws."""
        if not len(self.values):
            return 1.0
        return 1e-3 * beta * float(self.values.abs().max())

    def bracket(self, bar: Bar) -> LogVolume:
        for _ in range(_FITS):
            gaussian, rises, diagnosis = self._fit(_FITTED)
            bar.update()
            self.posterior = self.posterior.at(
                float(self.posterior.beta) * min(max(float(rises.mean()) / self.level, 1e-3), 1e3)
            )
        gaussian, rises, diagnosis = self._fit(_DRAWS)
        bar.update()
        radial = radial_log_volume(
            self.landscape, self.w, level=self.level, generator=self.generator
        )
        bar.update()
        reasons = _reasons(diagnosis, rises, self.level)
        common: dict[str, Any] = {
            "radial": radial,
            "level": self.level,
            "beta": float(self.posterior.beta),
            "virial": diagnosis.virial,
            "rhat": max(diagnosis.rhat, diagnosis.rhat_distance),
            "described": words_of(self.landscape),
        }
        if reasons:
            nothing: dict[str, Any] = dict.fromkeys(
                ("value", "low", "high", "forward", "backward", "misses")
            )
            return LogVolume(**nothing, rungs=0, status="refused", reasons=reasons, **common)
        answer = self._anneal(gaussian, rises, common)
        bar.update()
        return answer

    def _fit(self, draws: int) -> tuple[_Gaussian, Tensor, Diagnosis]:
        """Draw, and fit mean and scales of a Gaussian to the draws."""
        kernel = Hamiltonian(self.posterior, step_size=self.step, whitening=self.whitening, most=20)
        state = adapt(kernel, kernel.init(self.points), self.generator, steps=30)
        moments = _Moments(self.vectors, len(self.w))

        def observe(state: State) -> tuple[Tensor, Tensor]:
            moments.add(state.points - self.posterior.centre)
            offsets = state.points - self.posterior.centre
            return state.rise, (offsets * state.gradient).mean(1)

        chains = sample(kernel, state, self.generator, draws=draws, observe=observe)
        diagnosis = chains.diagnose()
        self.points, self.step = chains.state.points, kernel.step_size
        mean, self.whitening = moments.fitted()
        gaussian = _Gaussian(self.posterior.centre + mean, self.whitening)
        return gaussian, chains.energy, diagnosis

    def _anneal(self, gaussian: _Gaussian, rises: Tensor, common: dict[str, Any]) -> LogVolume:
        beta = float(self.posterior.beta)
        below = torch.where(rises < self.level, (beta * (rises - self.level)).exp(), 0 * rises)
        mean = float(below.mean())
        shared = gaussian.log_integral() + beta * self.level + math.log(mean)
        shared_error = standard_error(below) / mean
        for rungs in _RUNGS:
            there, back = self._both_ways(gaussian, rungs)
            error = 2 * math.hypot(_error(there), _error(back), shared_error)
            forward, backward = shared + there.value, shared - back.value
            low, high = min(forward, backward) - error, max(forward, backward) + error
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

    def _both_ways(self, gaussian: _Gaussian, rungs: int) -> tuple[LogRatio, LogRatio]:
        def difference(points: Tensor) -> Tensor:
            return self.posterior.evaluate(points)[0] - gaussian.potential(points)[0]

        def make(share: float) -> Hamiltonian:
            path: Any = _Path(self.posterior, gaussian, share)
            return Hamiltonian(path, step_size=self.step, whitening=self.whitening, most=8)

        # Dense near the Gaussian, whose tails the density may cut off steeply.
        ladder = torch.linspace(0, 1, rungs + 1, dtype=torch.float64).square().tolist()
        noise = torch.randn(self.points.shape, generator=self.generator, dtype=torch.float64)
        start = gaussian.mean + self.whitening.multiply(noise)
        there, _ = anneal(start, self.generator, rungs=ladder, difference=difference, make=make)
        back, _ = anneal(
            self.points, self.generator, rungs=ladder[::-1], difference=difference, make=make
        )
        return there, back


class _Moments:
    """Mean and scales of draws: one by one along the vectors, one for all the rest."""

    def __init__(self, vectors: Tensor, size: int) -> None:
        self.vectors, self.size = vectors, size
        self.count = 0
        self.sum = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(vectors.shape[1], dtype=torch.float64)
        self.along = torch.zeros(vectors.shape[1], dtype=torch.float64)
        self.total = 0.0

    def add(self, offsets: Tensor) -> None:
        """Take draws, shape (k, W)."""
        along = offsets @ self.vectors
        self.count += len(offsets)
        self.sum += offsets.sum(0)
        self.along += along.sum(0)
        self.squares += along.square().sum(0)
        self.total += float(offsets.square().sum())

    def fitted(self) -> tuple[Tensor, Whitening]:
        """Give the mean, shape (W,), and the map whose square is the covariance."""
        mean = self.sum / self.count
        variances = self.squares / self.count - (self.along / self.count).square()
        rest = self.size - len(variances)
        whole = self.total / self.count - float(mean.square().sum())
        base = (whole - float(variances.sum())) / rest if rest else float(variances.mean())
        tiny = 1e-300
        return mean, Whitening(
            math.sqrt(max(base, tiny)), self.vectors, variances.clamp(min=tiny).sqrt()
        )


def _error(ratio: LogRatio) -> float:
    """Standard error of the logarithm of the mean weight."""
    weights = (ratio.works - ratio.works.max()).exp()
    return float(weights.std() / weights.mean()) / math.sqrt(len(weights))


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
