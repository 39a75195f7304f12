"""Deep linear networks on their population loss: minima of known learning coefficient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.quadratic import QuadraticForm
from thalweg.landscape.space import Parameter, ParameterSpace
from thalweg.run.seeds import numpy_generator, torch_generator


class Singularity(NamedTuple):
    """How volume vanishes at a minimum: like ``t^coefficient (-log t)^(multiplicity - 1)``."""

    coefficient: float
    multiplicity: int


class DeepLinear:
    """
    The landscape ``|W_L ... W_1 - A|^2 / 2``: a linear network on whitened inputs.

    Its minima of rank r are degenerate, and their learning coefficient is known in closed form.

    Parameters
    ----------
    widths : sequence of int
        Of input, hidden layers and output: L + 1 numbers.
    rank : int
        Of A, whose nonzero singular values lie between 0.7 and 1.4.
    seed : int
        Of A.

    Attributes
    ----------
    widths, rank, space
        As given, and the space of (W_1, ..., W_L).
    minimum : Tensor
        Shape (W,), float64: the balanced minimum, of which all layers have rank r. All minima of
        lesser singularity lie in each of its neighbourhoods.
    dtype, device
        float64 on the CPU.

    Raises
    ------
    InvalidArgument
        If a width is not positive, or the rank is larger than the smallest.

    Examples
    --------
    >>> network = DeepLinear((4, 4, 4), 2)
    >>> network.singularity
    Singularity(coefficient=7.5, multiplicity=1)
    >>> abs(network.value(network.minimum)) < 1e-25
    True
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, widths: Sequence[int], rank: int, *, seed: int = 0) -> None:
        if len(widths) < 3 or min(widths) < 1 or not 0 <= rank <= min(widths):
            raise InvalidArgument(
                f"widths={tuple(widths)}, rank={rank}; give three positive widths or more, and a"
                " rank between 0 and the smallest."
            )
        self.widths, self.rank = tuple(widths), rank
        shapes = [(rows, columns) for columns, rows in itertools.pairwise(widths)]
        starts = itertools.accumulate((rows * columns for rows, columns in shapes), initial=0)
        self.space = ParameterSpace(
            tuple(
                Parameter(f"{i}.weight", shape, start)
                for i, (shape, start) in enumerate(zip(shapes, starts, strict=False))
            )
        )
        self.minimum, self.target = self._balanced(seed)

    @classmethod
    def random(cls, seed: int, *, weights: int = 2500, width: int = 30) -> DeepLinear:
        """
        Draw depth (2 to 5), widths (3 to ``width``) and rank (1 to the smallest) at random.

        Parameters
        ----------
        seed : int
            Of all that is drawn.
        weights : int
            At most so many.
        width : int
            The largest.
        """
        generator = numpy_generator(seed, "deep linear")
        while True:
            depth = int(generator.integers(2, 6))
            widths = [int(n) for n in generator.integers(3, width + 1, depth + 1)]
            if sum(a * b for a, b in itertools.pairwise(widths)) <= weights:
                return cls(widths, int(generator.integers(1, min(widths) + 1)), seed=seed)

    def _balanced(self, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch_generator(seed, "target")

        def orthonormal(rows: int) -> Tensor:
            gaussian = torch.randn(rows, self.rank, generator=generator, dtype=self.dtype)
            basis: Tensor = torch.linalg.qr(gaussian)[0]
            return basis

        depth = len(self.widths) - 1
        singular = 0.7 + 0.7 * torch.rand(self.rank, generator=generator, dtype=self.dtype)
        bases = [orthonormal(width) for width in self.widths]
        layers = [
            (after * singular ** (1 / depth)) @ before.T
            for before, after in itertools.pairwise(bases)
        ]
        return torch.cat([layer.reshape(-1) for layer in layers]), (
            (bases[-1] * singular) @ bases[0].T
        )

    @property
    def singularity(self) -> Singularity:
        """
        Give learning coefficient and multiplicity at the balanced minimum.

        References
        ----------
        Aoyagi, Consideration on the learning efficiency of multiple-layered neural networks with
        linear units, Neural Networks 172 (2024), theorem 1; for two layers Aoyagi and Watanabe
        (2005).
        """
        rank, ends = self.rank, self.widths[0] + self.widths[-1]
        excess = sorted(width - rank for width in self.widths)
        for count in range(1, len(excess)):
            inner, outer = excess[: count + 1], excess[count + 1 :]
            total = sum(inner)
            if inner[-1] * count > total or (outer and total >= count * outer[0]):
                continue
            share = total - (math.ceil(total / count) - 1) * count
            pairs = sum(a * b for a, b in itertools.combinations(inner, 2))
            spread = share * (count - share)
            coefficient = (
                (rank * ends - rank**2) / 2
                + (spread - (count - 1) * total**2) / (4 * count)
                + pairs / 2
            )
            return Singularity(coefficient, spread + 1)
        raise AssertionError("one set of layers satisfies the conditions for every network")

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also what it is."""
        words: dict[str, Word] = {
            "landscape": "deep linear network",
            "widths": "-".join(map(str, self.widths)),
            "rank": self.rank,
        }
        return Provenance(dtype=self.dtype, further=words)

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return float(self.value_and_gradient(w)[0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        Raises
        ------
        InvalidArgument
            If a batch is asked for.
        """
        if batch is not None:
            raise InvalidArgument("a population loss has no samples to take; leave the batch out.")
        return self.value_and_gradient(w)[1]

    def value_and_gradient(self, w: Tensor, /) -> tuple[float, Tensor]:
        """Evaluate both at ``w``, shape (W,)."""
        values, gradients = self.values_and_gradients(self.space.check(w).detach()[None])
        return float(values[0]), gradients[0]

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        layers = self._layers(points)
        before = list(itertools.accumulate(layers, lambda product, layer: layer @ product))
        residual = before[-1] - self.target
        values = residual.square().sum((1, 2)) / 2
        after, gradients = residual, []
        for i in reversed(range(len(layers))):
            slope = after @ before[i - 1].transpose(1, 2) if i else after
            gradients.append(slope.reshape(len(slope), -1))
            after = layers[i].transpose(1, 2) @ after
        return values, torch.cat(gradients[::-1], dim=1)

    def block_curvature(self, points: Tensor, block: int, /) -> tuple[Tensor, Tensor]:
        """Give the Hessian of one layer at points, shape (k, W), as ``left`` times ``right``."""
        layers = self._layers(points)
        before = torch.eye(self.widths[0], dtype=self.dtype).expand(len(points), -1, -1)
        for layer in layers[:block]:
            before = layer @ before
        after = torch.eye(self.widths[block + 1], dtype=self.dtype).expand(len(points), -1, -1)
        for layer in layers[block + 1 :]:
            after = layer @ after
        return after.transpose(1, 2) @ after, before @ before.transpose(1, 2)

    def hessian(self, w: Tensor, /) -> QuadraticForm:
        """Assemble the Hessian at ``w``; ``.matrix`` has shape (W, W)."""
        w = self.space.check(w).detach().to(self.dtype)
        product = torch.func.vjp(lambda u: self.values_and_gradients(u[None])[1][0], w)[1]
        matrix: Tensor = torch.func.vmap(lambda v: product(v)[0])(torch.eye(len(w), dtype=w.dtype))
        form = QuadraticForm((matrix + matrix.T) / 2)
        form.described = {"operator": "Hessian", "landscape": "deep linear network"}
        return form

    def _layers(self, points: Tensor) -> list[Tensor]:
        points = points.to(self.dtype)
        return [points[:, p.slice].reshape(len(points), *p.shape) for p in self.space.parameters]
