"""A tool of a page, right and slow: what the deliberately broken tools of the tests derive from."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conformance.adapter import Adapter, Array, Density, Eigenvalues, Surface, Task, Trace, parts
from conformance.adapter import flat as pack


class Plain(Adapter):
    """Loops, dense matrices and float64 recurrences."""

    name = "plain"
    filterwise = True

    def surface(self, task: Task, directions: Tensor, *, points: int, extent: float) -> Surface:
        axis = np.linspace(-extent, extent, points)
        rows = [self.row(task, directions, axis, i) for i in range(points)]
        return Surface(axis, axis, np.array(rows), directions)

    def random_surface(self, task: Task, *, points: int, seed: int = 0) -> Surface:
        directions = self.directions(task, torch.Generator().manual_seed(seed))
        return self.surface(task, directions, points=points, extent=1.0)

    def resumed_surface(
        self, task: Task, directions: Tensor, *, points: int, extent: float, folder: Path
    ) -> Surface:
        folder.mkdir(exist_ok=True)
        axis = np.linspace(-extent, extent, points)
        for i in range(self.first_row(folder), points):
            np.save(folder / f"{i:03}.npy", self.row(task, directions, axis, i))
        rows = [self.saved(folder, i, points) for i in range(points)]
        return Surface(axis, axis, np.array(rows), directions)

    def first_row(self, folder: Path) -> int:
        return len(list(folder.glob("*.npy")))

    def saved(self, folder: Path, row: int, points: int) -> Array:
        values: Array = np.load(folder / f"{row:03}.npy")
        return values

    def row(self, task: Task, directions: Tensor, axis: Array, i: int) -> list[float]:
        w, x = pack(task.model), float(axis[i])
        return [
            self.cell(task, w + x * directions[:, 0] + float(y) * directions[:, 1]) for y in axis
        ]

    def cell(self, task: Task, point: Tensor) -> float:
        model = copy.deepcopy(task.model).eval()
        with torch.no_grad():
            for p, value in zip(model.parameters(), parts(point, model), strict=True):
                p.copy_(value)
            return self.mean([float(task.criterion(model(x), y)) for x, y in task.batches], task)

    def mean(self, losses: list[float], task: Task) -> float:
        return float(np.average(losses, weights=[len(x) for x, _ in task.batches]))

    def directions(self, task: Task, generator: torch.Generator) -> Tensor:
        first = self.scaled(self.draw(len(pack(task.model)), generator), task.model)
        second = self.scaled(self.draw(len(first), generator), task.model)
        return torch.stack([first, self.orthogonal(second, first)], 1)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(size, generator=generator)

    def orthogonal(self, second: Tensor, first: Tensor) -> Tensor:
        return second

    def scaled(self, drawn: Tensor, model: nn.Module) -> Tensor:
        pairs = zip(parts(drawn, model), model.parameters(), strict=True)
        return torch.cat([self.scaled_part(d.clone(), p.detach()).reshape(-1) for d, p in pairs])

    def scaled_part(self, d: Tensor, w: Tensor) -> Tensor:
        if d.dim() < 2:
            return self.scaled_bias(d, w)
        rows, given = d.reshape(len(d), -1), w.reshape(len(w), -1)
        return (rows * given.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)).view_as(d)

    def scaled_bias(self, d: Tensor, w: Tensor) -> Tensor:
        return 0 * d

    def products(self, task: Task, vectors: Tensor) -> Tensor:
        model = copy.deepcopy(task.model).eval()
        weights = list(model.parameters())
        total = torch.zeros_like(vectors)
        for (x, y), share in zip(task.batches, self.shares(task), strict=True):
            loss = task.criterion(model(x), y)
            gradient = torch.autograd.grad(loss, weights, create_graph=True)
            flat = torch.cat([part.reshape(-1) for part in gradient])
            rows = torch.autograd.grad(flat, weights, vectors.T, is_grads_batched=True)
            total += share * torch.cat([row.flatten(1) for row in rows], 1).T
        return total

    def shares(self, task: Task) -> list[float]:
        samples = sum(len(x) for x, _ in task.batches)
        return [len(x) / samples for x, _ in task.batches]

    def matrix(self, task: Task) -> Tensor:
        dense = self.products(task, torch.eye(len(pack(task.model)))).double()
        return (dense + dense.T) / 2

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        return Eigenvalues(torch.linalg.eigvalsh(self.matrix(task)).flip(0)[:k].numpy(), 1e-4)

    def density(self, task: Task, *, probes: int, steps: int, seed: int = 0) -> Density:
        matrix, generator = self.matrix(task), torch.Generator().manual_seed(seed)
        found = [self.quadrature(matrix, steps, generator) for _ in range(probes)]
        nodes, weights = zip(*found, strict=True)
        return Density(np.array(nodes), np.array(weights))

    def quadrature(
        self, matrix: Tensor, steps: int, generator: torch.Generator
    ) -> tuple[Array, Array]:
        v = torch.randn(len(matrix), generator=generator, dtype=matrix.dtype)
        basis = [v / v.norm()]
        tridiagonal = torch.zeros(steps, steps, dtype=matrix.dtype)
        for step in range(steps):
            image = matrix @ basis[-1]
            tridiagonal[step, step] = image @ basis[-1]
            image = self.orthogonalized(image, basis, tridiagonal, step)
            if step + 1 < steps:
                tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = image.norm()
                basis.append(image / image.norm())
        nodes, vectors = torch.linalg.eigh(tridiagonal)
        return nodes.numpy(), self.weights(vectors)

    def orthogonalized(
        self, image: Tensor, basis: list[Tensor], tridiagonal: Tensor, step: int
    ) -> Tensor:
        q = torch.stack(basis, 1)
        for _ in range(2):
            image = image - q @ (q.T @ image)
        return image

    def weights(self, vectors: Tensor) -> Array:
        first: Array = vectors[0].square().numpy()
        return first

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        generator = torch.Generator().manual_seed(seed)
        size = len(pack(task.model))
        signs = 2.0 * torch.randint(2, (size, 60), generator=generator) - 1
        samples = (signs * self.products_of_trace(task, signs)).sum(0).double()
        error = 2.6 * float(samples.std()) / 60**0.5  # skewed samples: more than 95% of a Gaussian
        return Trace(float(samples.mean()), error)

    def products_of_trace(self, task: Task, signs: Tensor) -> Tensor:
        """The Hessian of a planted quadratic does not depend on the weights: one matrix serves."""
        if getattr(self, "_task", None) is not task:
            self._task, self._dense = task, self.matrix(task).float()
        return self._dense @ signs
