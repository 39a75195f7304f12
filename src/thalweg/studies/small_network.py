"""A network small enough to sample around: one hidden layer in closed form, many points at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.landscape.provenance import Word
from thalweg.landscape.space import Parameter, ParameterSpace
from thalweg.run.seeds import torch_generator


class SmallNetwork:
    """
    The squared loss of a tanh network of one output on a few digits, ``mean (f - y)^2 / 2``.

    Inputs are the first principal components of the images, of unit variance; y is 1 for the
    digits 0 to 4 and -1 for the others. Tanh has no rescaling of layers, so that volumes in the
    weights mean something; what is left are permutations and signs.

    Parameters
    ----------
    samples, inputs, hidden : int
        N, and the network's sizes: W = hidden (inputs + 2) + 1.
    seed : int
        Of the samples.

    Examples
    --------
    >>> network = SmallNetwork(samples=15, inputs=6, hidden=5, seed=0)
    >>> network.space.size, network.samples
    (41, 15)
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, *, samples: int, inputs: int, hidden: int, seed: int) -> None:
        self.samples, self.inputs, self.hidden = samples, inputs, hidden
        self.x, self.y = _digits(samples, inputs, seed)
        shapes: list[tuple[str, tuple[int, ...]]] = [
            ("hidden.weight", (hidden, inputs)),
            ("hidden.bias", (hidden,)),
            ("output.weight", (1, hidden)),
            ("output.bias", (1,)),
        ]
        parameters, start = [], 0
        for name, shape in shapes:
            parameters.append(Parameter(name, shape, start))
            start += math.prod(shape)
        self.space = ParameterSpace(tuple(parameters))

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        sizes = f"{self.inputs} inputs, {self.hidden} tanh units, {self.samples} samples"
        return {"landscape": sizes, "dtype": "float64"}

    def beginning(self, seed: int) -> Tensor:
        """Draw initial weights, shape (W,): variance one over the number of inputs of a unit."""
        generator = torch_generator(seed, "initialization")
        w = torch.zeros(self.space.size, dtype=torch.float64)
        for parameter in self.space.parameters:
            if len(parameter.shape) == 2:
                entries = parameter.start + torch.arange(math.prod(parameter.shape))
                noise = torch.randn(len(entries), generator=generator, dtype=torch.float64)
                w[entries] = noise / math.sqrt(parameter.shape[1])
        return w

    def value(self, w: Tensor, /) -> float:
        """Evaluate it at w, shape (W,)."""
        return float(self.values_and_gradients(w[None])[0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate its gradient, shape (W,), over a batch where one is given."""
        return self.values_and_gradients(w[None], batch)[1][0]

    def values_and_gradients(
        self, points: Tensor, batch: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor]:
        """Evaluate both at points of shape (k, W): shapes (k,) and (k, W)."""
        x, y = (self.x, self.y) if batch is None else (self.x[batch], self.y[batch])
        count, hidden = len(points), self.hidden
        ends = [hidden * self.inputs, hidden, hidden, 1]
        first, shift, last, offset = points.double().split(ends, dim=1)
        first = first.reshape(count, hidden, self.inputs)
        active = (torch.einsum("khi,ni->knh", first, x) + shift[:, None]).tanh()
        residual = torch.einsum("knh,kh->kn", active, last) + offset - y
        back = residual / len(y)
        inner = back[:, :, None] * last[:, None] * (1 - active.square())
        gradient = torch.cat(
            [
                torch.einsum("knh,ni->khi", inner, x).reshape(count, -1),
                inner.sum(1),
                torch.einsum("kn,knh->kh", back, active),
                back.sum(1, keepdim=True),
            ],
            dim=1,
        )
        return residual.square().mean(1) / 2, gradient


class SmallLinear:
    """
    The squared loss of a linear model on a few digits: all of its minima are alike.

    Parameters
    ----------
    samples, inputs : int
        N, and W, which is larger.
    seed : int
        Of the samples.
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, *, samples: int, inputs: int, seed: int) -> None:
        self.x, self.y = _digits(samples, inputs, seed)
        self.samples = samples
        self.space = ParameterSpace.euclidean(inputs)

    def beginning(self, seed: int) -> Tensor:
        """Draw initial weights, shape (W,)."""
        generator = torch_generator(seed, "initialization")
        noise = torch.randn(self.space.size, generator=generator, dtype=torch.float64)
        return noise / math.sqrt(len(noise))

    def value(self, w: Tensor, /) -> float:
        """Evaluate it at w, shape (W,)."""
        return float(self.values_and_gradients(w[None])[0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate its gradient, shape (W,), over a batch where one is given."""
        return self.values_and_gradients(w[None], batch)[1][0]

    def values_and_gradients(
        self, points: Tensor, batch: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor]:
        """Evaluate both at points of shape (k, W): shapes (k,) and (k, W)."""
        x, y = (self.x, self.y) if batch is None else (self.x[batch], self.y[batch])
        residual = points.double() @ x.T - y
        return residual.square().mean(1) / 2, residual @ x / len(y)


def _digits(samples: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Give principal components of some images, shape (N, inputs), and targets of 1 and -1."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    chosen = torch.randperm(len(digits), generator=torch_generator(seed, "order"))[:samples]
    x = torch.from_numpy(pixels).double()
    x = x - x.mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)
    parts = x @ axes[:inputs].T
    y = torch.where(torch.from_numpy(digits)[chosen] < 5, 1.0, -1.0).double()
    return (parts / parts.std(0))[chosen], y
