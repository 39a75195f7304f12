"""What a tool is given and what it gives back: the seam that every check is written against.

An adapter subclasses `Adapter` and overrides what its tool offers, by the tool's documented calls
at their defaults. It needs torch and numpy only, so that it runs in any tool's own environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class NotOffered(Exception):
    """The tool has no such function, or says that it does something else."""


class Failure(Exception):
    """The tool answered, and the answer is wrong."""


@dataclass(frozen=True, eq=False)
class Task:
    """A network, a criterion of mean reduction, and data in batches of fixed order."""

    model: nn.Module
    criterion: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]

    @property
    def whole(self) -> tuple[Tensor, Tensor]:
        """All samples as one batch."""
        return torch.cat([x for x, _ in self.batches]), torch.cat([y for _, y in self.batches])

    def split(self, *sizes: int) -> Task:
        """Give the same samples in batches of these sizes."""
        x, y = (tensor.split(sizes) for tensor in self.whole)
        return Task(self.model, self.criterion, list(zip(x, y, strict=True)))


@dataclass(frozen=True)
class Surface:
    """Cell (i, j) claims to be the loss at w + x[i] directions[:, 0] + y[j] directions[:, 1]."""

    x: Array
    y: Array
    losses: Array
    directions: Tensor


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues, and the relative error that the tool says they have; None: not converged."""

    values: Array
    stated: float | None


@dataclass(frozen=True)
class Density:
    """Quadratures of the spectrum, shape (probes, steps): nodes, and weights that sum to one."""

    nodes: Array
    weights: Array
    # Whether the nodes are points of a smoothed curve and the weights its area around each.
    curve: bool = False


@dataclass(frozen=True)
class Trace:
    """A trace and the error stated at 95%, absolute; None where the tool states none."""

    value: float
    error: float | None


class Adapter:
    """One tool; what is not overridden is not offered."""

    name = "nothing"
    # Whether the tool says that its random directions are scaled by filter (Li et al. 2018).
    filterwise = False
    # Remarks on the outcome of checks, by name.
    notes: Mapping[str, str] = MappingProxyType({})

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        """Evaluate along two given directions (W, 2), about `points` points an axis, odd."""
        self._missing("surfaces along given directions")

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        """Evaluate along the tool's own random directions."""
        self._missing("random directions")

    def resumed_surface(
        self, task: Task, directions: Tensor, *, points: int, extent: float, folder: Path
    ) -> Surface:
        """Evaluate like `surface`, going on with what an earlier, killed call left in a folder."""
        self._missing("surfaces that resume")

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        """Multiply the Hessian of the mean loss with the columns of (W, k)."""
        self._missing("Hessian-vector products")

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        """Compute the k largest eigenvalues, in any order."""
        self._missing("eigenvalues")

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        """Estimate the spectral density."""
        self._missing("spectral density")

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        """Estimate the trace of the Hessian."""
        self._missing("trace")

    def _missing(self, what: str) -> NoReturn:
        raise NotOffered(f"no {what}")


def flat(model: nn.Module) -> Tensor:
    """Copy the weights of a model into one vector, in the order of `model.parameters()`."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


def parts(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """Cut a flat vector into tensors of the parameters' shapes."""
    weights = list(model.parameters())
    pieces = vector.split([p.numel() for p in weights])
    return [piece.reshape(p.shape) for piece, p in zip(pieces, weights, strict=True)]
