"""Whose check-up it is: a problem with several points, on all samples or on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thalweg.problems import Problem
from thalweg.problems.checkpoints import Point
from thalweg.risk import EmpiricalRisk
from thalweg.run.seeds import torch_generator


@dataclass(eq=False)
class Subject:
    """
    Points of one problem, to be looked at together.

    Attributes
    ----------
    problem : Problem
        Model, loss and data.
    points : sequence of Point
        Whole states.
    names : sequence of str
        Of the points.
    dtype : torch.dtype or None
        To compute in; None for the model's own.
    seed : int
        Of the choice of samples, and of all noise.
    batch_size : int or None
        Samples evaluated at once; None finds out how many serve best.
    along : sequence of Point
        A trajectory that led there, in order; may be empty.
    """

    problem: Problem
    points: Sequence[Point]
    names: Sequence[str]
    dtype: torch.dtype | None = None
    seed: int = 0
    batch_size: int | None = None
    along: Sequence[Point] = ()
    _there: dict[int, tuple[EmpiricalRisk, Tensor]] = field(default_factory=dict, init=False)

    @cached_property
    def risk(self) -> EmpiricalRisk:
        """The risk on all samples, batch-norm statistics re-estimated at each point."""
        return EmpiricalRisk(self.problem, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "batch_size": self.batch_size}

    def at(self, place: int) -> tuple[EmpiricalRisk, Tensor]:
        """Give the risk that holds the statistics of a point, and its weights, shape (W,)."""
        if place not in self._there:
            w = self.points[place].load_into(self.risk)
            w = w.detach().to(self.risk.device, self.risk.dtype)
            held = self.risk.held(w) if self.risk.normalized else self.risk
            self._there = {place: (held, w)}  # one at a time: each is a copy of the model
        return self._there[place]

    def few(self, place: int, size: int) -> tuple[EmpiricalRisk, Tensor]:
        """Give the risk at a point on some training samples, with the statistics of all."""
        there, w = self.at(place)
        problem = self.sampled(size)
        if problem is self.problem and not self.risk.normalized:
            return there, w
        risk = EmpiricalRisk(problem, batchnorm="frozen", check=False, **self._how)
        risk.set_fixed(there.fixed())
        return risk, w

    def moving(self, size: int) -> EmpiricalRisk:
        """Give the risk on some samples, batch-norm statistics re-estimated at each point."""
        problem = self.sampled(size)
        if problem is self.problem:
            return self.risk
        return EmpiricalRisk(problem, check=False, **self._how)

    def sampled(self, size: int) -> Problem:
        """Give the problem on that many training samples at most, chosen at random."""
        train = self._some("train", size)
        if train is None:
            return self.problem
        test = None if self.problem.test is None else self._some("test", size)
        given = self.problem
        return Problem(
            given.model,
            given.loss,
            train,
            given.test if test is None else test,
            weight=given.weight,
            name=given.name,
            error=given.error,
        )

    def _some(self, split: Any, size: int) -> Any:
        samples = self.problem.samples(split)
        if size >= len(samples) or not samples.joined or self.problem.drawn(samples) is not None:
            return None
        generator = torch_generator(self.seed, "inspect", split)
        return samples.take(torch.randperm(len(samples), generator=generator)[:size].sort().values)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Which points are compared."""
        return self.pairs_of(len(self.points))

    @staticmethod
    def pairs_of(count: int) -> list[tuple[int, int]]:
        """Give all pairs of up to four points, else each with the next."""
        if count > 4:
            return [(i, i + 1) for i in range(count - 1)]
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
