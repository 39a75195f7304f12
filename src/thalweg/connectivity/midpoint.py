"""The loss at the mean of networks, one of which changes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.matching import Placement
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.symmetries import Symmetries
from thalweg.problems.problem import Problem
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.seeds import torch_generator

Array = NDArray[np.float64]

# Samples on which swaps are judged at most. On CIFAR-10 500 were too few: the loss on them fell by
# 24 % and that on 2000 by 1 %.
_JUDGED = 2000
# Share of the samples, those of the largest losses, that a swap must pass first: on digits a
# quarter holds over 90 % of the loss between two networks, and passed all swaps that helped.
_SCREENED, _SCREENED_AT_LEAST = 0.25, 100
# Samples of a batch whose own statistics normalize it, where these are re-estimated at each point:
# at most, and at least, whatever memory is left for their activations.
_OF_A_BATCH, _AT_LEAST = 500, 32
# Seconds of a search: what so many gradients take, but not less nor more than these.
_GRADIENTS, _LEAST, _MOST = 2000, 6.0, 150.0


class Midpoint:
    """
    The loss at the mean of networks, one of which changes.

    Where batch-norm statistics are re-estimated at each point, orders are tried by the loss of
    batches that are normalized by their own, as in training: an eighth of the price. `loss` is
    the true one.

    Parameters
    ----------
    risk : EmpiricalRisk
        What is judged: one of `judging`.
    symmetries : Symmetries
        Of the network.
    others : sequence of ndarray
        The states that stay.
    clock : Clock
        Counts evaluations.

    Attributes
    ----------
    batches : list of Tensor
        Indices of samples that are normalized by their own statistics, in parts; or none.
    """

    def __init__(
        self, risk: EmpiricalRisk, symmetries: Symmetries, others: Sequence[Array], clock: Clock
    ) -> None:
        self._size, self._clock = symmetries.weights, clock
        self.share = 1 / (1 + len(others))
        self._rest = np.sum(others, axis=0)[: self._size] * self.share
        self.risk = self._screen = risk
        self.batches = _batches(risk)
        self._generator = torch_generator(0, "alignment draws")

    def within(self, clock: Clock) -> Midpoint:
        """Give the same, counted by another clock; batches are drawn on, not again."""
        other = copy.copy(self)
        other._clock = clock
        return other

    def screen(self, placement: Placement) -> None:
        """Choose the samples that swaps must pass first: those of the largest losses here."""
        if self.risk.normalized or not self.risk.data.joined:
            return
        count = max(_SCREENED_AT_LEAST, int(_SCREENED * self.risk.samples))
        if count < self.risk.samples:
            losses = self.risk.sample_losses(self._mean(placement.state))
            hardest = losses.argsort(descending=True)[:count].cpu()
            self._screen = _some(self.risk, hardest.sort().values)

    def loss(self, placement: Placement) -> float:
        """Evaluate the loss."""
        self._clock.taken += 1
        return self.risk.value(self._mean(placement.state))

    def tried(self, placement: Placement) -> float:
        """Evaluate the loss by which orders are tried."""
        if not self.batches:
            return self.loss(placement)
        self._clock.taken += 1
        w = self._mean(placement.state)
        shares = [len(batch) / self.risk.samples for batch in self.batches]
        losses = (self.risk.value(w, batch) for batch in self.batches)
        return sum(share * loss for share, loss in zip(shares, losses, strict=True))

    def screened(self, placement: Placement) -> float:
        """Evaluate the loss on the samples that swaps must pass first."""
        self._clock.taken += 1
        w = self._mean(placement.state)
        if self.batches:
            return self.risk.value(w, self.batches[0])
        return self._screen.value(w)

    @property
    def screens(self) -> bool:
        """Whether these are other samples than all."""
        return self._screen is not self.risk or len(self.batches) > 1

    def gradient(self, placement: Placement) -> Array:
        """Evaluate the gradient in the weights of the mean, shape (W,)."""
        self._clock.taken += 1
        w = self._mean(placement.state)
        if not self.batches:
            return self.risk.gradient(w).double().cpu().numpy()
        total = np.zeros(self._size)
        for batch in self.batches:
            share = len(batch) / self.risk.samples
            total += share * self.risk.gradient(w, batch).double().cpu().numpy()
        return total

    def slope(self, state: Array) -> Tensor:
        """
        Evaluate the gradient in the weights of a state that is of no order.

        Shape (W,), in the risk's dtype, on the CPU. Where there are batches, it is that of one,
        drawn anew at each call.
        """
        self._clock.taken += 1
        w = self._mean(state)
        batch = None
        if self.batches:
            order = torch.randperm(self.risk.samples, generator=self._generator)
            batch = order[: len(self.batches[0])]
        return self.risk.gradient(w, batch).mul_(self.share).cpu()

    def _mean(self, state: Array) -> Tensor:
        mean = state[: self._size] * self.share
        mean += self._rest
        return torch.from_numpy(mean).to(self.risk.device, self.risk.dtype)


def _batches(risk: EmpiricalRisk) -> list[Tensor]:
    """Part the samples into batches with statistics of their own; none where that is no gain."""
    if not (risk.normalized and risk.policy == "recalibrate" and risk.data.joined):
        return []
    # A backward pass takes about as much again as it finds kept.
    held = max(_AT_LEAST, risk.memory // (2 * risk.activation_bytes))
    count = math.ceil(risk.samples / min(_OF_A_BATCH, held))
    generator = torch_generator(0, "alignment batches")
    return list(torch.randperm(risk.samples, generator=generator).tensor_split(count))


def enough_seconds(risk: EmpiricalRisk, w: Tensor) -> float:
    """Choose how long to search for an order, by what a gradient takes."""
    batch = next(iter(_batches(risk)), None)
    risk.gradient(w, batch)  # the first call prepares others
    start = time.process_time()
    risk.gradient(w, batch)
    return min(max(_GRADIENTS * (time.process_time() - start), _LEAST), _MOST)


def judging(risk: EmpiricalRisk) -> EmpiricalRisk:
    """Give the risk on as many samples as swaps are judged on."""
    if not risk.data.joined or risk.samples <= _JUDGED:
        return risk
    generator = torch_generator(0, "judged samples")
    chosen = torch.randperm(risk.samples, generator=generator)[:_JUDGED].sort().values
    return _some(risk, chosen)


def _some(risk: EmpiricalRisk, indices: torch.Tensor) -> EmpiricalRisk:
    problem, data = risk.problem, risk.problem.samples(risk.split).take(indices)
    parts = Problem(
        *(problem.model, problem.loss, data),
        weight=problem.weight,
        draws=problem.draws,
        name=problem.name,
        error=problem.error,
    )
    some = EmpiricalRisk(
        *(parts,),
        batchnorm=risk.policy,
        dtype=risk.dtype,
        device=risk.device,
        memory=risk.memory,
        check=risk.checked or False,
    )
    some.set_fixed(risk.fixed())
    return some
