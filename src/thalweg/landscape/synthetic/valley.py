"""One connected valley with a winding floor."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.landscape.synthetic.known import KnownLandscape, check, orthonormal
from thalweg.run.seeds import torch_generator


class Valley(KnownLandscape):
    """
    One connected valley with a winding floor of any dimension.

    ``steepness / 2`` times the sum of ``(y - amplitude sin(u . x))^2`` over the coordinates y
    across, x those along it, u of length 1, in random axes: the value is 0 on a graph over x.

    Parameters
    ----------
    dims : int
        W.
    flat : int
        Dimension of the floor, from 1 to W - 1.
    amplitude : float
        How far it winds.
    steepness : float
        Of its walls.
    seed : int
        Of the axes.

    Examples
    --------
    >>> valley = Valley(5, flat=2)
    >>> valley.value(valley.floor(torch.tensor([1.0, -4.0]))) < 1e-25, valley.dimension
    (True, 2)
    """

    def __init__(
        self,
        dims: int,
        *,
        flat: int = 1,
        amplitude: float = 1.0,
        steepness: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(dims)
        check(1 <= flat < dims, f"flat={flat}", "from 1 to dims - 1")
        check(steepness > 0, f"steepness={steepness}", "a positive number")
        generator = torch_generator(seed, "valley")
        self.dimension, self.amplitude, self.steepness = flat, amplitude, steepness
        self._axes = orthonormal(dims, dims, generator)
        self._waves = orthonormal(max(flat, dims - flat), flat, generator)[: dims - flat]
        self._waves = self._waves / self._waves.norm(dim=1, keepdim=True)

    def floor(self, x: Tensor) -> Tensor:
        """Give the point of the floor over x, shape (flat,): shape (W,)."""
        x = x.to(self.dtype)
        return self._axes @ torch.cat([x, self.amplitude * (self._waves @ x).sin()])

    def _values(self, points: Tensor) -> Tensor:
        z = points @ self._axes
        x, y = z[:, : self.dimension], z[:, self.dimension :]
        aside = y - self.amplitude * (x @ self._waves.T).sin()
        return self.steepness / 2 * aside.square().sum(1)

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        z = points.detach().to(self.device, self.dtype) @ self._axes
        x, y = z[:, : self.dimension], z[:, self.dimension :]
        waves = x @ self._waves.T
        aside = y - self.amplitude * waves.sin()
        along = -self.amplitude * (aside * waves.cos()) @ self._waves
        slopes = self.steepness * torch.cat([along, aside], 1)
        return self.steepness / 2 * aside.square().sum(1), slopes @ self._axes.T

    def label(self, w: Tensor, /) -> int:
        """Give 0: there is one basin."""
        self._point(w)
        return 0

    def barrier(self, i: int, j: int, /) -> float:
        """Give 0: the floor is connected."""
        return 0.0
