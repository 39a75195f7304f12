"""A rough field whose roughness differs from place to place: a sum over octaves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.landscape.synthetic.known import KnownLandscape, check, orthonormal
from thalweg.run.seeds import torch_generator

# Points a shortest wave at which a profile is searched for its peaks: heights to 1e-4 of them.
_GRID = 256
# Of the amplitudes' waves: without it the amplitudes and the waves that they multiply are in step.
_PHASES = 0.618


class MultifractalField(KnownLandscape):
    """
    Waves of falling length, each with an amplitude that the longer ones decide.

    In each of ``rough`` random directions z the value is a sum over octaves j of ``base^(-j H)
    P_j(z) (1 - cos(2 pi base^j z)) / 2`` with ``P_j(z)`` the product of ``1 + m cos(2 pi base^i
    z + phase)`` over i < j, a Riesz product: moments of differences over a distance r go as
    r^zeta(q) with ``zeta(q) = q H - log_base <(1 + m cos)^q>`` between the shortest and the longest
    wave, to the accuracy of so few octaves (0.1 for q up to 3 and a base of 3). It is 0 at
    integers, its lowest points.

    Parameters
    ----------
    dims : int
        W.
    rough : int
        Directions with waves; the others are flat.
    hurst : float
        H, between 0 and 1.
    intermittency : float
        m, from 0 (one exponent) to below 1.
    octaves, base : int
        How many lengths, and the ratio of one to the next.
    height : float
        Of the longest wave.
    seed : int
        Of the axes.

    Examples
    --------
    >>> field = MultifractalField(6, rough=2)
    >>> w = field.well(1, 2)
    >>> round(field.value(w), 12), field.label(w) != field.label(field.well(0)), field.dimension
    (0.0, True, 4)
    """

    def __init__(
        self,
        dims: int,
        *,
        rough: int = 4,
        hurst: float = 0.7,
        intermittency: float = 0.5,
        octaves: int = 4,
        base: int = 3,
        height: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(dims)
        check(1 <= rough <= dims, f"rough={rough}", "from 1 to dims")
        check(
            0 < hurst < 1 and 0 <= intermittency < 1 and octaves >= 1 and base >= 2 and height > 0,
            f"hurst={hurst}, intermittency={intermittency}, octaves={octaves}, base={base}",
            "hurst inside of 0 and 1, intermittency from 0 to below 1, octaves from 1, base from 2",
        )
        self.dimension = dims - rough
        self.hurst, self.intermittency, self.base = hurst, intermittency, base
        self.octaves, self.height = octaves, height
        self._axes = orthonormal(dims, rough, torch_generator(seed, "multifractal field"))
        grid = torch.arange(base ** (octaves - 1) * _GRID, dtype=self.dtype)
        self._grid = grid / len(grid)
        self._profile = self.profile(self._grid)
        inside = (self._profile >= self._profile.roll(1)) & (self._profile > self._profile.roll(-1))
        self._peaks = self._grid[inside]
        self._known: dict[tuple[int, ...], int] = {}

    def exponent(self, q: float) -> float:
        """Give zeta(q), by which the q-th moment of differences grows with their distance."""
        x = torch.arange(4096, dtype=self.dtype) / 4096
        factor = (1 + self.intermittency * (2 * math.pi * x).cos()) ** q
        return q * self.hurst - math.log(float(factor.mean())) / math.log(self.base)

    @property
    def curvature(self) -> float:
        """Largest second derivative, by differences on a grid."""
        step = 1 / len(self._grid)
        f = self._profile
        return float((f.roll(1) + f.roll(-1) - 2 * f).max()) / step**2

    def profile(self, z: Tensor) -> Tensor:
        """Evaluate one direction's share of the value at numbers z, any shape."""
        total, weight = torch.zeros_like(z), torch.ones_like(z)
        for j in range(self.octaves):
            wave = (2 * math.pi * self.base**j * z).cos()
            total = total + self.base ** (-j * self.hurst) * weight * (1 - wave) / 2
            shifted = (2 * math.pi * (self.base**j * z + _PHASES * (j + 0.4))).cos()
            weight = weight * (1 + self.intermittency * shifted)
        return self.height * total

    def _values(self, points: Tensor) -> Tensor:
        return self.profile(points @ self._axes).sum(1)

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        z = points.detach().to(self.device, self.dtype) @ self._axes
        total, slope = torch.zeros_like(z), torch.zeros_like(z)
        weight, bend = torch.ones_like(z), torch.zeros_like(z)  # P_j and its derivative
        for j in range(self.octaves):
            rate, share = 2 * math.pi * self.base**j, self.base ** (-j * self.hurst) / 2
            angle, shifted = rate * z, rate * z + 2 * math.pi * _PHASES * (j + 0.4)
            wave = 1 - angle.cos()
            total += share * weight * wave
            slope += share * (bend * wave + weight * rate * angle.sin())
            factor = 1 + self.intermittency * shifted.cos()
            bend = bend * factor - weight * self.intermittency * rate * shifted.sin()
            weight = weight * factor
        return self.height * total.sum(1), self.height * slope @ self._axes.T

    def well(self, *steps: int) -> Tensor:
        """Give a lowest point by its steps along the first axes, shape (W,)."""
        z = torch.zeros(self._axes.shape[1], dtype=self.dtype)
        z[: len(steps)] = torch.tensor(steps, dtype=self.dtype)
        return self._axes @ z

    def label(self, w: Tensor, /) -> int:
        """Number the basins, between two peaks in each direction, as they are asked for."""
        return self._known.setdefault(self._cell(w), len(self._known))

    def barrier(self, i: int, j: int, /) -> float:
        """
        Give the height of the highest pass between the wells of value 0 of two basins.

        From a grid, to 1e-3 of it.

        Raises
        ------
        InvalidArgument
            If the lowest point of one is above 0: what the others may give way to is not known.
        """
        cells = [list(self._known)[label] for label in (i, j)]
        peaks = len(self._peaks)
        # A well of value 0 lies after the last peak of a period and before the first of the next.
        check(
            all(part % peaks == 0 for cell in cells for part in cell),
            f"labels {i} and {j}",
            "labels of lowest points, as label(field.well(1, 2)) gives them",
        )
        return 0.0 if cells[0] == cells[1] else float(self._profile.max())

    def _cell(self, w: Tensor) -> tuple[int, ...]:
        z = self._point(w) @ self._axes
        whole = z.floor()
        passed = torch.searchsorted(self._peaks, z - whole, right=True)
        return tuple((whole.long() * len(self._peaks) + passed).tolist())
