"""Draws of a density that carries a set below a level, and the frame in which they are round."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.geometry.curvature_at import leading_curvature
from thalweg.landscape.protocols import Landscape
from thalweg.run.seeds import torch_generator
from thalweg.sampling import (
    Diagnosis,
    Hamiltonian,
    Posterior,
    State,
    Whitening,
    adapt,
    sample,
    whiten,
)

_DENSE = 1000  # weights up to which all eigenvectors of the curvature are taken
_HALVINGS = 60  # of a first offset, until its rise is one that draws have


@dataclass(frozen=True)
class Frame:
    """Coordinates y with ``w = mean + T y``, in which draws have mean 0 and variance 1."""

    mean: Tensor
    whitening: Whitening

    def points(self, coordinates: Tensor) -> Tensor:
        """Give the weights of coordinates, both shape (k, W)."""
        return self.mean + self.whitening.from_coordinates(coordinates)

    def coordinates(self, points: Tensor) -> Tensor:
        """Give the coordinates of weights, both shape (k, W)."""
        return self.whitening.to_coordinates(points - self.mean)


@dataclass(frozen=True)
class Drawn:
    """
    Draws of a posterior.

    Attributes
    ----------
    rises : Tensor
        Shape (n, k): ``L - L(w)``.
    frame : Frame
        Fitted to all of them.
    kurtosis : Tensor or None
        Shape (W,), of the frame's coordinates where these are the curvature's.
    diagnosis : Diagnosis
        Of the draws.
    """

    rises: Tensor
    frame: Frame
    kurtosis: Tensor | None
    diagnosis: Diagnosis


class Drawing:
    """
    Chains on a landscape whose temperature is brought to where the mean rise is a level.

    Parameters
    ----------
    landscape : Landscape
        Anything with a gradient.
    w : Tensor
        Shape (W,), where the chains start.
    level : float
        The rise that is wanted.
    localization : float
        Of the posterior.
    chains : int
        Drawn as one batch.
    seed : int
        Of all that is random.
    """

    def __init__(
        self,
        landscape: Landscape,
        w: Tensor,
        *,
        level: float,
        localization: float,
        chains: int,
        seed: int,
    ) -> None:
        self.level = level
        self.generator = torch_generator(seed, "volume")
        values, self.vectors = _sorted(*leading_curvature(landscape, w, dense=_DENSE, seed=seed))
        beta = len(w) / (2 * level)
        self.posterior = Posterior(landscape, w, beta=beta, localization=localization)
        # A first guess of the precision in flat directions, mended by the draws.
        flat = 1e-3 * beta * float(values.abs().max()) if len(values) else 1.0
        floor = max(localization, flat)
        self.whitening = whiten(values, self.vectors, beta=beta, localization=floor)
        self.points = self._first(chains, len(w))
        self.step = 1.0 / len(w) ** 0.25
        self._last: tuple[float, float] | None = None

    def _first(self, chains: int, size: int) -> Tensor:
        """Draw offsets, shorter where they lead high up a wall: no step gets down from there."""
        noise = torch.randn(chains, size, generator=self.generator, dtype=torch.float64)
        offsets = 0.1 * self.whitening.multiply(noise)
        for _ in range(_HALVINGS):
            rises = self.posterior.evaluate(self.posterior.centre + offsets)[2]
            high = ~(float(self.posterior.beta) * rises <= size)
            if not bool(high.any()):
                break
            offsets = torch.where(high[:, None], offsets / 2, offsets)
        return self.posterior.centre + offsets

    def draw(self, count: int) -> Drawn:
        """Adapt the step, draw, and take the draws' frame for the next ones."""
        kernel = Hamiltonian(self.posterior, step_size=self.step, whitening=self.whitening, most=20)
        state = adapt(kernel, kernel.init(self.points), self.generator, steps=30, averaged=15)
        moments = _Moments(self.vectors, len(self.posterior.centre))

        def observe(state: State) -> tuple[Tensor, Tensor]:
            offsets = state.points - self.posterior.centre
            moments.add(offsets)
            return state.rise, (offsets * state.gradient).mean(1)

        chains = sample(kernel, state, self.generator, draws=count, observe=observe)
        self.points, self.step = chains.state.points, kernel.step_size
        mean, self.whitening, kurtosis = moments.fitted()
        frame = Frame(self.posterior.centre + mean, self.whitening)
        known = kurtosis if self.whitening.whole else None
        return Drawn(chains.energy, frame, known, chains.diagnose())

    def fresh(self, count: int, *, every: int) -> Tensor:
        """Draw more, of which the frame knows nothing, and keep them: shape (count, k, W)."""
        kernel = Hamiltonian(self.posterior, step_size=self.step, whitening=self.whitening, most=20)
        state, kept = kernel.init(self.points), []
        for _ in range(count):
            for _ in range(every):
                state, _ = kernel.step(state, self.generator)
            kept.append(state.points)
        self.points = state.points
        return torch.stack(kept)

    def tune(self, rises: Tensor) -> None:
        """Change the temperature so that the mean rise becomes the level, by secants."""
        beta, mean = float(self.posterior.beta), max(float(rises.mean()), 1e-300)
        power = 1.0  # of homogeneous landscapes: the mean rise goes as 1 / beta
        if self._last is not None and abs(math.log(beta / self._last[0])) > 0.2:
            slope = -math.log(mean / self._last[1]) / math.log(beta / self._last[0])
            power = min(max(slope, 0.5), 3.0)
        self._last = (beta, mean)
        factor = min(max((mean / self.level) ** (1 / power), 1e-3), 1e3)
        self.posterior = self.posterior.at(beta * factor)


def _sorted(values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Put eigenvectors that are the axes, as of separable landscapes, in the axes' order."""
    size, rank = vectors.shape
    if size != rank or int((vectors != 0).sum()) != size:
        return values, vectors
    order = vectors.abs().argmax(0).argsort()
    return values[order], torch.eye(size, dtype=vectors.dtype)


class _Moments:
    """Mean and scales of draws: one by one along the vectors, one for all the rest."""

    def __init__(self, vectors: Tensor, size: int) -> None:
        self.vectors, self.size = vectors, size
        self.count = 0
        self.sum = torch.zeros(size, dtype=torch.float64)
        self.powers = torch.zeros(4, vectors.shape[1], dtype=torch.float64)
        self.total = 0.0

    def add(self, offsets: Tensor) -> None:
        """Take draws, shape (k, W)."""
        along = offsets @ self.vectors
        squares = along.square()
        self.count += len(offsets)
        self.sum += offsets.sum(0)
        self.powers += torch.stack(
            [along.sum(0), squares.sum(0), (squares * along).sum(0), squares.square().sum(0)]
        )
        self.total += float(offsets.square().sum())

    def fitted(self) -> tuple[Tensor, Whitening, Tensor]:
        """Give the mean, shape (W,), the map whose square is the covariance, the kurtosis."""
        mean = self.sum / self.count
        first, second, third, fourth = self.powers / self.count
        variances = (second - first.square()).clamp(min=1e-300)
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        rest = self.size - len(variances)
        whole = self.total / self.count - float(mean.square().sum())
        base = (whole - float(variances.sum())) / rest if rest else float(variances.mean())
        whitening = Whitening(math.sqrt(max(base, 1e-300)), self.vectors, variances.sqrt())
        return mean, whitening, central / variances.square()
