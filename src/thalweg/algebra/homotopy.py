"""All isolated solutions of a small square system, by a multihomogeneous homotopy.

The start system is a product of random linear forms with the same degrees in each group of
unknowns; its solutions are found by linear algebra, one path begins at each, and with probability
one every isolated solution is the end of a path (Morgan and Sommese, Appl. Math. Comput. 24, 1987).
Paths live in projective space, one factor a group, on random affine patches, so that those to
infinity end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.monodromy import distinct
from thalweg.algebra.multihomogeneous import multihomogeneous_bezout
from thalweg.algebra.polynomials import PolynomialSystem, degree
from thalweg.algebra.tracking import newton, track
from thalweg.errors import SystemTooLarge
from thalweg.run.progress import Progress, silent

ATTEMPTS = 3
"""How often paths are tracked, from new starts, while something speaks for lost solutions."""
BATCH = 250
"""Paths tracked at once: bounds the memory of an evaluation."""
NEARLY = 1e-12
"""Relative residual of a singular solution."""
NEAR = 1e-2
"""Distance, relative to one plus the norm, that polishing may move an end."""
AT_INFINITY = 1e-4
"""Size of a homogenizing coordinate, relative to its group, of a path that goes to infinity."""


@dataclass(frozen=True)
class Isolated:
    """End points of all paths.

    Attributes
    ----------
    points
        Distinct nonsingular solutions, complex128, shape (S, n).
    singular
        Ends of the paths that end at multiple or non-isolated solutions, shape (R, n).
    paths
        Number of paths: the multihomogeneous Bezout number.
    infinite
        Number of the other paths: they go to infinity, or were given up on the way there.
    """

    points: Array
    singular: Array
    paths: int
    infinite: int


def isolated_solutions(
    system: PolynomialSystem,
    groups: Sequence[Array],
    *,
    seed: int = 0,
    most_paths: int = 20_000,
    progress: Progress = silent,
) -> Isolated:
    """Track one path from each solution of a product of linear forms.

    Parameters
    ----------
    system
        As many equations as unknowns.
    groups
        A partition of the unknowns, as arrays of their indices.
    seed
        Of the start system.
    most_paths
        Refuse systems with more paths.
    progress
        Where progress is shown.

    Raises
    ------
    SystemTooLarge
        For more than `most_paths` paths.
    """
    rows = [[degree(dict(p), list(g)) for g in groups] for p in system.equations]
    paths = check_paths(rows, [len(g) for g in groups], most_paths)
    solutions = np.zeros((0, len(rows)), dtype=complex)
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, attempt, 17])
        problem = _Projective(system, groups, np.array(rows), rng)
        ends, sound = _ends(problem, paths, progress)
        polished, step = newton(system.evaluate, ends, iterations=12, floor=1.0)
        good = (step < 1e-10) & _stayed(polished, ends)
        once = _distinct(polished[good])
        solutions = _distinct(np.concatenate([solutions, once, once.conj()]))
        # No path was given up on the way, none ends where another does, and the solutions of real
        # equations are closed under conjugation: else paths are tracked again from other starts.
        if sound and len(once) == good.sum() == len(solutions):
            break
    singular = singular_ends(system, ends[~good])
    return Isolated(solutions, singular, paths, paths - int(good.sum()) - len(singular))


def _ends(problem: _Projective, paths: int, progress: Progress) -> tuple[Array, bool]:
    """Finite ends of all paths, and whether every path came close to its end."""
    starts = problem.starts()
    points, times = [], []
    with progress(paths, "paths") as bar:
        for batch in np.split(starts, range(BATCH, len(starts), BATCH)):
            tracked = track(
                lambda x, t, _: problem.homotopy(x, t),
                batch,
                first_step=0.02,
                smallest_step=1e-10,
                strict=0.01,
            )
            points.append(tracked.points)
            times.append(tracked.times)
            bar.update(len(batch))
    affine, finite = problem.affine(np.concatenate(points))
    return affine[finite], bool((np.concatenate(times) > 1 - 1e-6).all())


def _distinct(points: Array) -> Array:
    return distinct(points, lambda x: x)


def singular_ends(system: PolynomialSystem, ends: Array) -> Array:
    """Ends from which least-norm Newton steps, which need no full rank, find a zero nearby.

    The others are those of paths to infinity that were given up on the way.
    """
    x = ends.copy()
    with np.errstate(all="ignore"):
        for _ in range(30):
            value, jacobian = system.evaluate(x)
            inverse = np.linalg.pinv(jacobian, rcond=1e-9)
            x = x - (inverse @ value[..., None])[..., 0]
        # Near zero the terms themselves vanish; their size at one is the yardstick there.
        scale = system.magnitude(np.maximum(np.abs(x), 1.0))
        residual = (np.abs(system.evaluate(x)[0]) / scale).max(axis=1, initial=0)
    zeros: Array = x[(residual < NEARLY) & _stayed(x, ends)]
    return zeros


def check_paths(rows: Sequence[Sequence[int]], sizes: Sequence[int], most_paths: int) -> int:
    """Number of paths of equations with given degrees in groups of unknowns.

    Raises
    ------
    SystemTooLarge
        For more than `most_paths`.
    """
    paths = multihomogeneous_bezout(rows, sizes)
    if paths > most_paths:
        raise SystemTooLarge(
            f"The system has {len(rows)} equations of degree up to {max(map(sum, rows))} in"
            f" {sum(sizes)} unknowns; all solutions take {paths:.3g} paths, about"
            f" {paths / 100:.3g} seconds; the limit is {most_paths} paths (most_paths). Use fewer"
            " weights or a lower degree."
        )
    return paths


def _stayed(after: Array, before: Array) -> Array:
    """Whether polishing moved a point only a little."""
    moved = np.linalg.norm(after - before, axis=1)
    near: Array = moved < NEAR * (1 + np.linalg.norm(before, axis=1))
    return near


class _Projective:
    """A system on random patches of a product of projective spaces, and its start system."""

    def __init__(
        self,
        system: PolynomialSystem,
        groups: Sequence[Array],
        degrees: Array,
        rng: np.random.Generator,
    ) -> None:
        self.groups = [np.asarray(g) for g in groups]
        self.size, self.factors = len(system.names), len(groups)
        self.blocks = [np.append(g, self.size + k) for k, g in enumerate(self.groups)]
        self.degrees = degrees
        self.target = self._homogenized(system)
        self.scale = self.target.magnitude(np.ones((1, self.size + self.factors)))[0]
        self.patches = np.array([self._form(k, rng) for k in range(self.factors)])
        self.forms = [
            [(k, self._form(k, rng)) for k in range(self.factors) for _ in range(row[k])]
            for row in degrees
        ]
        self.twist = np.exp(2j * np.pi * rng.random(self.size))

    def _form(self, block: int, rng: np.random.Generator) -> Array:
        form = np.zeros(self.size + self.factors, dtype=complex)
        count = len(self.blocks[block])
        form[self.blocks[block]] = rng.normal(size=count) + 1j * rng.normal(size=count)
        return form

    def _homogenized(self, system: PolynomialSystem) -> PolynomialSystem:
        equations = []
        for p, row in zip(system.equations, self.degrees, strict=True):
            raised = {
                (
                    *m,
                    *(int(d) - sum(m[k] for k in g) for g, d in zip(self.groups, row, strict=True)),
                ): c
                for m, c in p.items()
            }
            equations.append(raised)
        return PolynomialSystem(tuple(equations), system.names + ("h",) * self.factors)

    def homotopy(self, x: Array, t: Array) -> tuple[Array, Array, Array]:
        """From the products of linear forms, times random phases, to the system."""
        start, start_slope = self._products(x)
        stop, stop_slope = self.target.evaluate(x)
        stop, stop_slope = stop / self.scale, stop_slope / self.scale[:, None]
        time = t[:, None]
        value = (1 - time) * start + time * stop
        slope = (1 - time[..., None]) * start_slope + time[..., None] * stop_slope
        patch = np.broadcast_to(self.patches, (len(x), *self.patches.shape))
        return (
            np.concatenate([value, x @ self.patches.T - 1], axis=1),
            np.concatenate([slope, patch], axis=1),
            np.concatenate([stop - start, np.zeros((len(x), self.factors))], axis=1),
        )

    def _products(self, x: Array) -> tuple[Array, Array]:
        values = np.ones((len(x), self.size), dtype=complex)
        slopes = np.zeros((len(x), self.size, x.shape[1]), dtype=complex)
        for row, forms in enumerate(self.forms):
            matrix = np.array([form for _, form in forms])
            factors = x @ matrix.T
            values[:, row] = self.twist[row] * factors.prod(axis=1)
            for k in range(len(forms)):
                other_factors = np.delete(factors, k, axis=1).prod(axis=1)
                slopes[:, row] += self.twist[row] * other_factors[:, None] * matrix[k]
        return values, slopes

    def starts(self) -> Array:
        """Points where one linear form of each equation vanishes, on the patches."""
        rows = np.array([self._matrix(choice) for choice in self._choices()])
        rows = rows.reshape(len(rows), self.size + self.factors, self.size + self.factors)
        sides = np.zeros((len(rows), self.size + self.factors, 1), dtype=complex)
        sides[:, self.size :] = 1
        points: Array = np.linalg.solve(rows, sides)[..., 0]
        return points

    def _matrix(self, choice: Sequence[Array]) -> Array:
        return np.concatenate([np.array(choice), self.patches])

    def _choices(self) -> Iterator[list[Array]]:
        """One form an equation such that each group is cut as often as it has unknowns."""
        used = [len(g) for g in self.groups]

        def extend(row: int, degrees: list[int]) -> Iterator[list[list[Array]]]:
            if row == self.size:
                yield []
                return
            for block in range(self.factors):
                forms = [form for k, form in self.forms[row] if k == block]
                if forms and degrees[block]:
                    lowered = [n - (k == block) for k, n in enumerate(degrees)]
                    for tail in extend(row + 1, lowered):
                        yield [forms, *tail]

        for candidates in extend(0, used):
            yield from (list(choice) for choice in itertools.product(*candidates))

    def affine(self, points: Array) -> tuple[Array, Array]:
        """Affine coordinates, shape (P, n), and which points are finite."""
        coordinates = np.zeros((len(points), self.size), dtype=complex)
        finite = np.ones(len(points), dtype=bool)
        for k, (group, block) in enumerate(zip(self.groups, self.blocks, strict=True)):
            last = points[:, self.size + k]
            finite &= np.abs(last) > AT_INFINITY * np.linalg.norm(points[:, block], axis=1)
            with np.errstate(all="ignore"):
                coordinates[:, group] = points[:, group] / last[:, None]
        return coordinates, finite & np.isfinite(coordinates).all(axis=1)
