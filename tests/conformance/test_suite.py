"""Every published mistake, made on purpose, is caught by the check that is there for it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.adapter import Adapter, Eigenvalues, Surface, Task, Trace, parts
from conformance.adapter import flat as pack
from conformance.checks import CHECKS, judge
from conformance.plain import Plain

BY_NAME = {check.name: check for check in CHECKS}


class SnakeShifted(Plain):
    """Walks odd rows backwards and steps before it evaluates."""

    def row(self, task, directions, axis, i):
        step = axis[1] - axis[0]
        return super().row(task, directions, axis + (step if i % 2 == 0 else 0), i)


class Exchanged(Plain):
    def surface(self, task, directions, **grid):
        found = super().surface(task, directions, **grid)
        return Surface(found.x, found.y, found.losses.T, directions)


class OffCentre(Plain):
    """Steps along x before it evaluates."""

    def surface(self, task, directions, *, points, extent):
        found = super().surface(task, directions, points=points, extent=extent)
        step = found.x[1] - found.x[0]
        return Surface(found.x - step, found.y, found.losses, directions)


class NoCell(Plain):
    """An even number of points: none at the centre."""

    def surface(self, task, directions, *, points, extent):
        return super().surface(task, directions, points=points - 1, extent=extent)


class Unweighted(Plain):
    def mean(self, losses, task):
        return float(np.mean(losses))

    def shares(self, task):
        return [1 / len(task.batches)] * len(task.batches)


class FirstBatchOnly(Plain):
    def mean(self, losses, task):
        return losses[0]

    def shares(self, task):
        return [1.0] + [0.0] * (len(task.batches) - 1)


class Repaired(Plain):
    """Replaces what is not finite by the largest finite loss."""

    def surface(self, task, directions, **grid):
        found = super().surface(task, directions, **grid)
        top = found.losses[np.isfinite(found.losses)].max()
        return Surface(found.x, found.y, np.nan_to_num(found.losses, nan=top), directions)


class BuffersPerturbed(Plain):
    """Moves every tensor of the state along a random direction, running variances too."""

    def random_surface(self, task, *, points, seed=0):
        moved = Task(copy.deepcopy(task.model), task.criterion, task.batches)
        generator = torch.Generator().manual_seed(seed)
        found = super().random_surface(task, points=points, seed=seed)
        for name, buffer in moved.model.named_buffers():
            if buffer.is_floating_point():
                noise = torch.randn(buffer.shape, generator=generator)
                buffer += noise * buffer.norm() / noise.norm() * (2 if "var" in name else 1)
        far = super().random_surface(moved, points=points, seed=seed)
        losses = found.losses.copy()
        losses[0], losses[-1] = far.losses[0], far.losses[-1]
        return Surface(found.x, found.y, losses, found.directions)


class InPlace(Plain):
    """Evaluates the user's own model, in the mode it finds it in, and puts the weights back."""

    def cell(self, task, point):
        model, before = task.model, pack(task.model)
        losses = []
        for value in (point, before):
            with torch.no_grad():
                for p, part in zip(model.parameters(), parts(value, model), strict=True):
                    p.copy_(part)
                losses.append([float(task.criterion(model(x), y)) for x, y in task.batches])
        return self.mean(losses[0], task)


class LeavesEval(Plain):
    def cell(self, task, point):
        task.model.eval()
        return super().cell(task, point)


class Recomputes(Plain):
    def first_row(self, folder):
        return 0


class Skips(Plain):
    """Takes the row that was under way for done."""

    def first_row(self, folder):
        done = super().first_row(folder)
        return done + 1 if done else 0

    def saved(self, folder: Path, row: int, points: int):
        file = folder / f"{row:03}.npy"
        return np.load(file) if file.exists() else np.zeros(points)


class NotUnit(Plain):
    """Takes out the first direction as if it had length 1."""

    def orthogonal(self, second, first):
        return second - (second @ first) * first


class UniformPositive(Plain):
    def draw(self, size, generator):
        return torch.rand(size, generator=generator)


class UniformCentred(Plain):
    def draw(self, size, generator):
        return 2 * torch.rand(size, generator=generator) - 1


class LayerWise(Plain):
    def scaled_part(self, d: Tensor, w: Tensor) -> Tensor:
        return d * w.norm() / d.norm() if d.dim() > 1 else 0 * d


class BiasPerFilter(Plain):
    def scaled_bias(self, d: Tensor, w: Tensor) -> Tensor:
        return d.sign() * w.abs()


class BiasUnscaled(Plain):
    def scaled_bias(self, d: Tensor, w: Tensor) -> Tensor:
        return d


class HalfProducts(Plain):
    """Leaves out the mixed second derivatives of different layers."""

    def products(self, task, vectors):
        total = torch.zeros_like(vectors)
        for place in torch.arange(len(vectors)).split([p.numel() for p in task.model.parameters()]):
            masked = torch.zeros_like(vectors)
            masked[place] = vectors[place]
            total[place] = super().products(task, masked)[place]
        return total


class Coarse(Plain):
    """Keeps eight bits of each product."""

    def products(self, task, vectors):
        return super().products(task, vectors).bfloat16().float()


class PowerIteration(Plain):
    """Stops when two estimates in a row agree to 1e-3, and takes that for the error."""

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        matrix, generator = self.matrix(task), torch.Generator().manual_seed(0)
        values: list[float] = []
        vectors: list[Tensor] = []
        for _ in range(k):
            v, last = torch.randn(len(matrix), generator=generator, dtype=matrix.dtype), 0.0
            for _ in range(100):
                for found in vectors:
                    v = v - (v @ found) * found
                v = v / v.norm()
                image = matrix @ v
                value, v = float(v @ image), image
                if abs(value - last) < 1e-3 * abs(last):
                    break
                last = value
            values.append(value)
            vectors.append(v / v.norm())
        return Eigenvalues(np.array(values), 1e-3)


class SingleVector(Plain):
    """Sees one copy of a repeated eigenvalue."""

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        values = torch.linalg.eigvalsh(self.matrix(task)).flip(0)
        kept = torch.cat([values[:1], values[1:][values.diff().abs() > 1e-4]])
        return Eigenvalues(kept[:k].numpy(), 1e-3)


class GivesUp(Plain):
    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        return Eigenvalues(super().eigenvalues(task, k).values, None)


class AllEigenvectors(Plain):
    """Squares every entry of the eigenvectors for weights."""

    def density(self, task, *, probes, steps, seed=0):
        found = super().density(task, probes=probes, steps=steps, seed=seed)
        return type(found)(found.nodes, np.full((probes, steps, steps), 1 / steps))


class EqualWeights(Plain):
    """Counts the nodes as if each stood for the same share."""

    def weights(self, vectors):
        return np.full(len(vectors), 1 / len(vectors))


class NotReorthogonalized(Plain):
    def orthogonalized(self, image, basis, tridiagonal, step):
        image = image - tridiagonal[step, step] * basis[-1]
        return image - tridiagonal[step, step - 1] * basis[-2] if step else image


class Ghosts(NotReorthogonalized):
    """Takes the five largest nodes of a hundred steps for eigenvalues."""

    def eigenvalues(self, task: Task, k: int) -> Eigenvalues:
        nodes = self.density(task, probes=1, steps=100).nodes[0]
        return Eigenvalues(np.sort(nodes)[::-1][:k], 1e-3)


class StopsEarly(Plain):
    """Hutchinson until the mean moves by less than 1e-3, which is then called its error."""

    def trace(self, task: Task, *, seed: int = 0) -> Trace:
        generator = torch.Generator().manual_seed(seed)
        samples: list[float] = []
        last = 0.0
        for _ in range(100):
            signs = 2.0 * torch.randint(2, (len(pack(task.model)), 1), generator=generator) - 1
            samples.append(float((signs * self.products_of_trace(task, signs)).sum()))
            mean = float(np.mean(samples))
            if abs(mean - last) < 1e-3 * (last + 1e-6):
                break
            last = mean
        return Trace(mean, 1e-3 * abs(mean))


class ZeroOne(Plain):
    """Probes of zeros and ones instead of signs."""

    def products_of_trace(self, task, signs):
        return super().products_of_trace(task, (signs + 1) / 2)


CAUGHT = [
    (SnakeShifted, "rows and columns aligned", "shift"),
    (SnakeShifted, "quadratic bowl on the grid", "off by"),
    (Exchanged, "rows and columns aligned", "exchanged"),
    (Exchanged, "quadratic bowl off the grid", "off by"),
    (OffCentre, "centre cell is the training loss", "in the centre"),
    (NoCell, "centre cell is the training loss", "no cell at 0"),
    (Unweighted, "surface: batches of 60 + 4", "% with batches"),
    (FirstBatchOnly, "surface: batches of 60 + 4", "% with batches"),
    (Repaired, "losses that are not finite kept", "NaN replaced"),
    (BuffersPerturbed, "batch norm: no NaN", "variances below zero"),
    (InPlace, "batch norm: model unchanged", "running_mean"),
    (LeavesEval, "batch norm: model unchanged", "evaluation mode"),
    (Recomputes, "resume", "done again"),
    (Skips, "resume", "21 cells differ"),
    (NotUnit, "random directions orthogonal", "cosine"),
    (UniformPositive, "random directions Gaussian", "standard errors from zero"),
    (UniformCentred, "random directions Gaussian", "kurtosis 1.8"),
    (LayerWise, "filter norms", "differ by a factor"),
    (BiasPerFilter, "bias rule", "same share of itself"),
    (BiasUnscaled, "bias rule", "another norm"),
    (HalfProducts, "two linear layers: Hessian", "off by"),
    (Coarse, "dense oracle: all eigenvalues", "off by"),
    (Coarse, "linear layer: Hessian", "off by"),
    (Unweighted, "Hessian: batches of 60 + 4", "% with batches"),
    (FirstBatchOnly, "Hessian: batches of 60 + 4", "% with batches"),
    (PowerIteration, "five close eigenvalues", "is stated"),
    (PowerIteration, "five eigenvalues of a network", "is stated"),
    (SingleVector, "repeated eigenvalues", "is stated"),
    (GivesUp, "five close eigenvalues", "not converged"),
    (AllEigenvectors, "density: quadrature weights", "for nodes"),
    (EqualWeights, "density: dense oracle", "a bin holds"),
    (NotReorthogonalized, "density: no ghosts", "where there are 3"),
    (Ghosts, "five eigenvalues across a gap", "is stated"),
    (StopsEarly, "trace within its stated error", "% of 200 seeds"),
    (ZeroOne, "trace unbiased", "biased"),
]


@pytest.mark.parametrize(
    ("broken", "name", "words"), CAUGHT, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_mistake_is_caught(broken, name, words):
    outcome = judge(BY_NAME[name], broken())
    assert (outcome.status, words in outcome.words) == ("fails", True), outcome


@pytest.mark.parametrize("name", BY_NAME)
def test_the_plain_tool_makes_none(name):
    outcome = judge(BY_NAME[name], Plain())
    assert outcome.status == "passes", outcome.words


def test_every_published_mistake_has_a_broken_tool():
    assert {check.name for check in CHECKS if check.mistake} <= {name for _, name, _ in CAUGHT}


def test_what_is_missing_is_not_offered_and_what_is_raised_fails():
    for check in CHECKS:
        assert judge(check, Adapter()).status == "not offered"

    class Raises(Plain):
        def products(self, task, vectors):
            raise RuntimeError("torch.eig is gone\nsince 1.9")

    outcome = judge(BY_NAME["linear layer: Hessian"], Raises())
    assert (outcome.status, outcome.words) == ("does not run", "RuntimeError: torch.eig is gone")
