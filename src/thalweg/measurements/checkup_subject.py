"""Whose check-up it is: a problem with several points, on all samples or on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.problems import Problem
from thalweg.problems.checkpoints import Point
from thalweg.risk import EmpiricalRisk
from thalweg.risk.self_check import SelfCheck
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
    check : SelfCheck, False or None
        What was checked before; None has the first risk check, False no one.
    """

    problem: Problem
    points: Sequence[Point]
    names: Sequence[str]
    dtype: torch.dtype | None = None
    seed: int = 0
    batch_size: int | None = None
    along: Sequence[Point] = ()
    check: SelfCheck | Literal[False] | None = None
    _held: dict[int, dict[str, Tensor]] = field(default_factory=dict, init=False)
    _there: EmpiricalRisk | None = field(default=None, init=False)
    _less: dict[tuple[int, int], Subject] = field(default_factory=dict, init=False)

    @property
    def parted(self) -> bool:
        """Whether the training data can be parted: samples that do not depend on their number."""
        samples = self.problem.samples("train")
        return samples.joined and self.problem.drawn(samples) is None

    def limited(self, train: int, test: int) -> Subject:
        """Give the same points on at most so many samples of each split, chosen at random."""
        problem = self.sampled(train, test)
        if problem is self.problem:
            return self
        if (train, test) not in self._less:
            less = Subject(
                *(problem, self.points, self.names, self.dtype, self.seed),
                *(self.batch_size, self.along, self.check),
            )
            self._less = {(train, test): less}
        return self._less[train, test]

    @cached_property
    def risk(self) -> EmpiricalRisk:
        """The risk on all samples, batch-norm statistics re-estimated at each point."""
        return EmpiricalRisk(
            self.problem, check="quick" if self.check is None else self.check, **self._how
        )

    def take_check(self, made: dict[str, Any] | Literal[False] | None) -> None:
        """Take over a self-check, as `SelfCheck.to_dict` gives it; False where it was left out."""
        if self.check is None and made is not None:
            self.check = SelfCheck(**made) if made else False

    def checked_on(self, samples: int) -> SelfCheck:
        """Make the self-check on at most so many samples."""
        risk = EmpiricalRisk(self.sampled(samples), batchnorm="frozen", **self._how)
        assert risk.checked is not None
        return risk.checked

    @property
    def _how(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "batch_size": self.batch_size}

    def at(self, place: int) -> tuple[EmpiricalRisk, Tensor]:
        """Give the risk that holds the statistics of a point, and its weights, shape (W,)."""
        w = self.points[place].load_into(self.risk)
        w = w.detach().to(self.risk.device, self.risk.dtype)
        if not self.risk.normalized:
            return self.risk, w
        if self._there is None:
            self._there = self.risk.held(w)  # one copy of the model for all points
            self._held[place] = self._there.fixed()
        elif place not in self._held:
            self._there.set_fixed(self.risk.fixed())
            self._there.hold(w)
            self._held[place] = self._there.fixed()
        self._there.set_fixed(self._held[place])
        return self._there, w

    def few(self, place: int, size: int) -> tuple[EmpiricalRisk, Tensor]:
        """Give the risk at a point on some training samples, with the statistics of all."""
        there, w = self.at(place)
        problem = self.sampled(size)
        if problem is self.problem and not self.risk.normalized:
            return there, w
        how: dict[str, Any] = {**self._how, "check": there.checked or False}
        risk = EmpiricalRisk(problem, batchnorm="frozen", **how)
        risk.set_fixed(there.fixed())
        return risk, w

    def moving(self, size: int) -> EmpiricalRisk:
        """Give the risk on some samples, batch-norm statistics re-estimated at each point."""
        problem = self.sampled(size)
        if problem is self.problem:
            return self.risk
        return EmpiricalRisk(problem, check=self.check or False, **self._how)

    def sampled(self, size: int, of_test: int | None = None) -> Problem:
        """Give the problem on that many samples of each split at most, chosen at random."""
        of_test = size if of_test is None else of_test
        train = self._some("train", size)
        test = None if self.problem.test is None else self._some("test", of_test)
        if train is None and (test is None or of_test == size):
            return self.problem
        given = self.problem
        return Problem(
            given.model,
            given.loss,
            given.train if train is None else train,
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
