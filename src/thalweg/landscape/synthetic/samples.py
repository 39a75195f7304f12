"""Mini-batch noise of any size, and layers of unlike scales, on a landscape of known basins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.space import Parameter, ParameterSpace
from thalweg.landscape.synthetic.known import KnownLandscape, check
from thalweg.run.seeds import torch_generator


class Noisy:
    """
    A known landscape as the mean of samples whose gradients differ by noise.

    Sample i has the loss ``f(w) + g_i . w``, g_i Gaussian, their mean 0: value, basins and barriers
    are those of f, and a batch of b of N samples has a gradient with a noise of standard deviation
    ``noise sqrt((N - b) / (N - 1) / b)`` in every direction.

    Parameters
    ----------
    known : KnownLandscape
        f.
    samples : int
        N, 2 or more.
    noise : float
        Root mean square, over samples and directions, of a sample's gradient minus the mean's.
    seed : int
        Of the noise.

    Examples
    --------
    >>> from thalweg.landscape.synthetic import RuggedField
    >>> field = Noisy(RuggedField(4), samples=10, noise=0.3)
    >>> w = torch.zeros(4, dtype=torch.float64)
    >>> gradients = torch.stack([field.gradient(w, torch.tensor([i])) for i in range(10)])
    >>> round(float(gradients.square().mean().sqrt()), 6), float(field.gradient(w).norm())
    (0.3, 0.0)
    """

    def __init__(
        self, known: KnownLandscape, *, samples: int = 64, noise: float = 0.1, seed: int = 0
    ) -> None:
        check(samples >= 2 and noise >= 0, f"samples={samples}, noise={noise}", "2 or more, and 0")
        self.known, self.samples, self.noise = known, samples, noise
        self.space, self.dtype, self.device = known.space, known.dtype, known.device
        self.dimension = known.dimension
        g = torch.randn(
            samples, known.space.size, generator=torch_generator(seed, "samples"), dtype=self.dtype
        )
        g = g - g.mean(0)
        self._slopes = noise * g / g.square().mean().sqrt()

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also what it is."""
        about = {"samples": self.samples, "noise": self.noise}
        return Provenance(dtype=self.dtype, further={**self.known.described, **about})

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return self.known.value(w)

    def sample_losses(self, w: Tensor, /) -> Tensor:
        """Evaluate every sample's loss at ``w``: shape (N,)."""
        return self.known.value(w) + self._slopes @ w.to(self._slopes)

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate the gradient at ``w``, shape (W,), of all samples or of a batch."""
        whole = self.known.gradient(w)
        return whole if batch is None else whole + self._slopes[batch].mean(0)

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        return self.known.values_and_gradients(points)

    def batch_gradients(self, points: Tensor, batches: Tensor, /) -> Tensor:
        """Evaluate gradients at points (k, W), each over its own batch of b: (k, b) indices."""
        chosen = torch.zeros(len(points), self.samples, dtype=self.dtype)
        share = torch.full(batches.shape, 1 / batches.shape[1], dtype=self.dtype)
        chosen.scatter_add_(1, batches, share)
        return self.known.values_and_gradients(points)[1] + chosen @ self._slopes

    def label(self, w: Tensor, /) -> int:
        """Say in which basin a point lies."""
        return self.known.label(w)

    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of the lowest pass between two basins, by labels."""
        return self.known.barrier(i, j)


class Rescaled(KnownLandscape):
    """
    A known landscape whose weights are cut into layers, each measured in a unit of its own.

    A point w of it is the point ``w / scales`` of the other, so that values, labels and barriers
    are the same, and distances and perturbations are not.

    Parameters
    ----------
    known : KnownLandscape
        The other.
    scales : sequence of float
        A unit for each layer; layers have nearly equal numbers of weights.

    Examples
    --------
    >>> from thalweg.landscape.synthetic import RuggedField
    >>> field = RuggedField(6)
    >>> layers = Rescaled(field, (1.0, 100.0))
    >>> layers.space.names, layers.value(layers.rescale(field.well(2, 1))) < 1e-12
    (('layer0', 'layer1'), True)
    """

    def __init__(self, known: KnownLandscape, scales: Sequence[float]) -> None:
        super().__init__(known.space.size)
        check(
            0 < len(scales) <= known.space.size and min(scales) > 0,
            f"scales={tuple(scales)}",
            "positive numbers, a weight for each at least",
        )
        self.known, self.dimension = known, known.dimension
        lengths = [len(part) for part in torch.arange(known.space.size).tensor_split(len(scales))]
        plain, start, parameters = Parameter("", (0,), 0), 0, []
        for i, length in enumerate(lengths):
            parameters.append(replace(plain, name=f"layer{i}", shape=(length,), start=start))
            start += length
        self.space = ParameterSpace(tuple(parameters))
        units = torch.tensor(tuple(scales), dtype=self.dtype)
        self._units = units.repeat_interleave(torch.tensor(lengths))

    def rescale(self, w: Tensor) -> Tensor:
        """Give the point that a point of the other landscape is here."""
        return w.to(self.dtype) * self._units

    def _values(self, points: Tensor) -> Tensor:
        return self.known._values(points / self._units)

    def label(self, w: Tensor, /) -> int:
        """Say in which basin a point lies."""
        return self.known.label(self._point(w) / self._units)

    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of the lowest pass between two basins, by labels."""
        return self.known.barrier(i, j)
