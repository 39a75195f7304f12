"""The search for orders of hidden units: by weights, by activations, softly, and by swaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.activation_matching import correlate_activations, match_activations
from thalweg.connectivity.alignment import Alignment
from thalweg.connectivity.distance_bound import distance_bound
from thalweg.connectivity.matching import (
    Placement,
    distance,
    match_weights,
    ordered_start,
    random_start,
)
from thalweg.connectivity.midpoint import Midpoint
from thalweg.connectivity.refinement import refine
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.soft_orders import correlated, descend_softly, staying
from thalweg.connectivity.symmetries import Symmetries
from thalweg.errors import SelfCheckFailed
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.seeds import numpy_generator

Array = NDArray[np.float64]

# Outputs that differ by more, relative to the largest, are those of another function.
_SAME_FUNCTION = 1e-6
# Starts of the search by loss: the best so many of all matchings.
_STARTS = 4
# Share of the search that each of two or three soft descents may take.
_SOFTLY = 0.27
# Rounds in which each of several networks is matched to the mean of the others.
_ROUNDS = 20


class OrderSearch:
    """
    The search for orders of several networks.

    Parameters
    ----------
    judge : EmpiricalRisk
        By which orders are tried: one of `judging`.
    symmetries : Symmetries
        What may move.
    states : list of ndarray
        The networks.
    restarts : int
        Random orders to begin at.
    clock : Clock
        What the swaps of one network may take.
    seed : int
        Of random orders.
    """

    def __init__(
        self,
        judge: EmpiricalRisk,
        symmetries: Symmetries,
        states: list[Array],
        restarts: int,
        clock: Clock,
        seed: int,
    ) -> None:
        self._symmetries, self._states, self._restarts = symmetries, states, restarts
        self._judge, self._limits, self._seed = judge, clock, seed

    def unmoved(self) -> tuple[Placement, dict[str, float]]:
        """Leave the first network as it is."""
        return Placement.start(self._symmetries, self._states[0]), {}

    def pair(self, number: int) -> tuple[Placement, dict[str, float]]:
        """Align one network to the first; give losses at the mean of both, too."""
        first, second, symmetries = self._states[0], self._states[number], self._symmetries
        rng = numpy_generator(self._seed, "alignment", number)
        plain = Placement.start(symmetries, second)
        correlations = correlate_activations(symmetries, first, second)
        matched = self._matched(first, second, correlations, rng)
        midpoint = Midpoint(self._judge, symmetries, [first], self._limits.started())
        named = {"unaligned": plain, "weights": matched[0], "activations": matched[1]}
        losses = {name: midpoint.loss(placement) for name, placement in named.items()}
        exact = min(matched, key=lambda placement: distance(symmetries, first, placement.state))
        if distance(symmetries, first, exact.state) <= 1e-12 * float(first @ first):
            return exact, losses | {"aligned": midpoint.loss(exact)}
        best = self._by_loss(midpoint, first, plain, matched, correlations, rng)
        return best, losses | {"aligned": midpoint.loss(best)}

    def _matched(
        self,
        first: Array,
        second: Array,
        correlations: Mapping[str, Array],
        rng: np.random.Generator,
    ) -> list[Placement]:
        """Match by weights, by activations, by both, and by weights from random orders."""
        symmetries = self._symmetries
        by_weights = Placement.start(symmetries, second)
        match_weights(symmetries, first, by_weights, rng)
        by_activations = ordered_start(symmetries, second, match_activations(correlations))
        if symmetries.heads:  # which only weights match
            match_weights(symmetries, first, by_activations, rng, heads_only=True)
        combined = by_activations.copy()
        match_weights(symmetries, first, combined, rng)
        matched = [by_weights, by_activations, combined]
        for _ in range(self._restarts):
            start = random_start(symmetries, second, rng)
            match_weights(symmetries, first, start, rng)
            matched.append(start)
        return matched

    def _by_loss(
        self,
        midpoint: Midpoint,
        first: Array,
        plain: Placement,
        matched: Sequence[Placement],
        correlations: Mapping[str, Array],
        rng: np.random.Generator,
    ) -> Placement:
        """Search by the loss at the mean, among orders that are no farther than the given one."""
        symmetries, clock = self._symmetries, self._limits.started()
        unaligned = distance(symmetries, first, plain.state)

        def nearer(placement: Placement) -> bool:
            return distance(symmetries, first, placement.state) <= unaligned

        candidates = list(matched)
        stays, sharp = staying(symmetries), correlated(symmetries, correlations)
        # Batches differ from descent to descent, so that a second one ends elsewhere.
        others = [(plain, sharp)] if midpoint.batches else [(matched[1], stays), (plain, stays)]
        for start, softness in ((plain, sharp), *others):
            part = self._limits.started(_SOFTLY)
            there = midpoint.within(part)
            candidates.append(descend_softly(there, symmetries, start, softness, part))
            clock.add(part)
        candidates = [*filter(nearer, candidates)] or [plain]
        best = refine(midpoint.within(clock), symmetries, candidates, clock, rng, most=_STARTS)
        found = [best, plain] if nearer(best) else [*candidates, plain]
        return min(found, key=midpoint.loss)

    def together(self, placements: list[Placement]) -> None:
        """Match each network to the mean of the others, by weights and then by loss."""
        symmetries = self._symmetries
        rng = numpy_generator(self._seed, "alignment of all")
        for _ in range(_ROUNDS):
            gained = False
            for i, placement in enumerate(placements):
                mean = np.mean(self._others(placements, i), axis=0)
                before = distance(symmetries, mean, placement.state)
                gained |= match_weights(symmetries, mean, placement, rng) < before * (1 - 1e-12)
            if not gained:
                break
        for i, placement in enumerate(placements):
            clock = self._limits.started()
            others = self._others(placements, i)
            midpoint = Midpoint(self._judge, symmetries, others, clock)
            placements[i] = refine(midpoint, symmetries, [placement], clock, rng, most=1)

    def _others(self, placements: Sequence[Placement], i: int) -> list[Array]:
        return [self._states[0], *(p.state for j, p in enumerate(placements) if j != i)]

    def answer(
        self, number: int, placement: Placement, losses: dict[str, float], given: Tensor
    ) -> Alignment:
        """
        Compare the aligned network with the given one, and say what was found.

        Raises
        ------
        SelfCheckFailed
            If it computes another function.
        """
        symmetries, first, second = self._symmetries, self._states[0], self._states[number]
        w = torch.from_numpy(placement.state[: symmetries.weights].copy()).to(given)
        state = placement.state.copy()
        state[: symmetries.weights] = w.double().cpu().numpy()
        difference = symmetries.difference(second, state)
        if difference > _SAME_FUNCTION:
            raise SelfCheckFailed(
                f"the aligned network's outputs differ from the given one's by {difference:.1e} of"
                " the largest: moving units changed the function. Please report this network."
            )
        cost = distance(symmetries, first, state)
        bound = distance_bound(symmetries, first, second) if number else 0.0
        return Alignment(
            w=w,
            permutations=placement.orders,
            maps=placement.maps,
            statistics=symmetries.statistics(placement.state),
            cost=cost,
            bound=min(cost, bound),  # where it is reached, rounding may lift it above
            unaligned=distance(symmetries, first, second),
            losses=losses,
            difference=difference,
            left=tuple(symmetries.left),
        )
