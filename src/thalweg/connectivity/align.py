"""Networks brought into one order of hidden units: the same functions, nearer to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.activation_matching import match_activations
from thalweg.connectivity.distance_bound import distance_bound
from thalweg.connectivity.matching import (
    Placement,
    distance,
    match_weights,
    ordered_start,
    random_start,
)
from thalweg.connectivity.refinement import Clock, Midpoint, judging, refine
from thalweg.connectivity.soft_orders import descend_softly
from thalweg.connectivity.symmetries import Symmetries, find_symmetries
from thalweg.errors import InvalidArgument, InvalidWeights, SelfCheckFailed
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point
from thalweg.problems.problem import Problem
from thalweg.problems.state_names import unwrapped
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import numpy_generator

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Outputs that differ by more, relative to the largest, are those of another function.
_SAME_FUNCTION = 1e-6
# Starts of the search by loss: the best so many of all matchings.
_STARTS = 4
# Share of the search that each of two soft descents may take.
_SOFTLY = 0.4
# Rounds in which each of several networks is matched to the mean of the others.
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Alignment(Result):
    """
    A network in the order of hidden units of another.

    Attributes
    ----------
    w : Tensor
        Its trained weights, shape (W,), in the dtype and on the device of the point that was given.
    permutations : dict of str to ndarray
        Of each set of units, by the layer that makes them, int64: unit ``permutations[name][i]``
        of the given network is unit i of this one. Heads of attention are units as a whole.
    maps : dict of str to list
        Of each attention whose heads were mapped: for each head, in its new place, the invertible
        matrices that queries and values were multiplied by.
    statistics : dict of str to Tensor
        Batch-norm statistics in their new order, by name.
    cost : float
        Squared distance of the trained weights to the first network's.
    bound : float
        What no permutation can bring it below (see `distance_bound`).
    unaligned : float
        Squared distance without any alignment: the control.
    losses : dict of str to float
        Mean loss at the mean of both, on up to 2000 samples: ``unaligned``; by ``weights`` (one
        weight matching from the given order); by ``activations``; and ``aligned``.
    difference : float
        Largest difference of outputs on data between this network and the given one, relative to
        the largest output, in float64.
    left : tuple of str
        Sets of units that the structure suggests and the data refuse.
    """

    w: Tensor = field(repr=False)
    permutations: dict[str, Indices] = field(repr=False)
    maps: dict[str, list[tuple[Array, ...]]] = field(repr=False)
    statistics: dict[str, Tensor] = field(repr=False)
    cost: float
    bound: float
    unaligned: float
    losses: dict[str, float]
    difference: float
    left: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Share of the squared distance by which the bound lies below it."""
        return (self.cost - self.bound) / self.cost if self.cost > 0 else 0.0

    def state_of(self, risk: EmpiricalRisk, point: Point) -> Point:
        """
        Give the aligned network as a whole state.

        Parameters
        ----------
        risk : EmpiricalRisk
            Whose networks these are.
        point : Point
            The one that was aligned: its frozen weights and other buffers stay.
        """
        moved = risk.space.unpack(self.w.cpu()) | self.statistics
        state = {
            name: moved.get(unwrapped(name), tensor).to(tensor.dtype)
            for name, tensor in point.state.items()
        }
        return replace(point, state=state, name=f"{point.name}, aligned")


def align(
    problem: Problem | EmpiricalRisk,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    restarts: int = 40,
    seconds: float = 6.0,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Alignment:
    """
    Bring one network into the order of another: the same function, on a lower line to it.

    Which units may change places is read off the network's structure (dense and convolutional
    layers, residual streams, norms, embeddings, attention), and tried on data. Units are matched
    by their weights, from the given order and from random ones, and by their activations; softly,
    by descent on the loss at the mean of both networks; then pairs are swapped while that lowers
    it. Heads of attention are matched as a whole, and queries with keys, and values with what reads
    them, are mapped by the invertible matrices that bring them nearest. Orders that are farther
    than the given one are no answers, however low the loss at their mean.

    Parameters
    ----------
    problem : Problem or EmpiricalRisk
        Whose networks these are. Data judge which swaps help; batch-norm statistics are
        re-estimated at each mean, by the risk's policy.
    w0, w1 : Tensor or Point
        Flat vectors, shape (W,), or whole states (`open_point`). The second is aligned to the
        first.
    restarts : int
        Matchings by weights that begin at a random order.
    seconds : float
        Of computing time for the search by loss, soft and by swaps; 0 for none.
    steps : int, optional
        Evaluations of the loss for it in place of seconds: the same answer on any machine.
    seed : int
        Of random orders.
    progress : Progress
        Told of each matching.

    Returns
    -------
    Alignment
        With the aligned weights ``w``.

    Raises
    ------
    NotDefined
        If the structure cannot be read, or nothing may change places.
    InvalidArgument
        If restarts, seconds or steps are negative.
    InvalidWeights
        If a point is not finite.
    SelfCheckFailed
        If the aligned network computes another function than the given one.

    References
    ----------
    S. Ainsworth et al., Git Re-Basin (2023); K. Jordan et al., REPAIR (2023); A. Theus et al.,
    Generalized linear mode connectivity for transformers (2025).

    Examples
    --------
    >>> import thalweg as tw
    >>> problem = tw.load_problem("digits", network="mlp", widths=(6,), train_size=100)
    >>> w0 = tw.EmpiricalRisk(problem).space.pack(problem.model)
    >>> other = tw.load_problem("digits", network="mlp", widths=(6,), train_size=100).model
    >>> order = torch.tensor([3, 0, 5, 1, 2, 4])
    >>> state = other.state_dict()
    >>> for name in ("linear1.weight", "linear1.bias"):
    ...     state[name] = state[name][order]
    >>> state["linear2.weight"] = state["linear2.weight"][:, order]
    >>> found = tw.align(problem, w0, tw.open_point(problem, state), steps=0)
    >>> found.permutations["linear1"].tolist(), torch.equal(found.w, w0), found.cost
    ([1, 3, 4, 0, 5, 2], True, 0.0)
    """
    options = {"restarts": restarts, "seconds": seconds, "steps": steps, "seed": seed}
    return align_all(problem, [w0, w1], progress=progress, **options)[1]  # type: ignore[arg-type]


def align_all(
    problem: Problem | EmpiricalRisk,
    points: Sequence[Tensor | Point],
    *,
    restarts: int = 40,
    seconds: float = 6.0,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Alignment]:
    """
    Bring several networks into the order of the first, so that any two are aligned.

    Each is aligned to the first as by `align`, then to the mean of all others in turn while that
    brings them nearer, and then by swaps that lower the loss at the mean of all. Orders are
    consistent: from the second to the third by way of the first is the way there directly.

    Parameters
    ----------
    problem, restarts, seconds, steps, seed, progress
        As for `align`; seconds and steps are for each network but the first.
    points : sequence of Tensor or Point
        Two or more.

    Returns
    -------
    list of Alignment
        One a point, the first as it was given.

    Raises
    ------
    NotDefined, InvalidWeights, SelfCheckFailed
        As `align`.
    InvalidArgument
        If there are fewer than two points, or a number is negative.
    """
    numbers = {"restarts": restarts, "seconds": seconds, "steps": steps}
    wrong = [name for name, number in numbers.items() if number is not None and number < 0]
    if wrong or len(points) < 2:
        what = f"{wrong[0]}={numbers[wrong[0]]}" if wrong else f"{len(points)} points"
        raise InvalidArgument(f"{what}; write numbers from 0 on, and give at least two points.")
    risk = EmpiricalRisk(problem) if isinstance(problem, Problem) else problem
    whole = States.of(risk, points)
    for i, w in enumerate(whole.weights):
        if bad := risk.space.not_finite(w):
            raise InvalidWeights(f"w{i}: {bad}.")
    fixed = whole.fixed or [dict(risk.fixed())] * len(points)
    with whole.visited(risk):
        symmetries = find_symmetries(risk, whole.weights[0])
        states = [symmetries.state(w, f) for w, f in zip(whole.weights, fixed, strict=True)]
        search = _Search(risk, symmetries, states, restarts, Clock(seconds, steps), seed)
        pairs = []
        with progress(len(states) - 1, "networks aligned") as bar:
            for number in range(1, len(states)):
                pairs.append(search.pair(number))
                bar.update(1)
        if len(states) > 2:
            search.together([placement for placement, _ in pairs])
        first = search.unmoved()
        return [
            search.answer(number, placement, losses, whole.weights[number])
            for number, (placement, losses) in enumerate([first, *pairs])
        ]


class _Search:
    """
    The search for orders of several networks.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of the network.
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
        risk: EmpiricalRisk,
        symmetries: Symmetries,
        states: list[Array],
        restarts: int,
        clock: Clock,
        seed: int,
    ) -> None:
        self._symmetries, self._states, self._restarts = symmetries, states, restarts
        self._judge, self._limits, self._seed = judging(risk), clock, seed

    def unmoved(self) -> tuple[Placement, dict[str, float]]:
        """Leave the first network as it is."""
        return Placement.start(self._symmetries, self._states[0]), {}

    def pair(self, number: int) -> tuple[Placement, dict[str, float]]:
        """Align one network to the first; give losses at the mean of both, too."""
        first, second, symmetries = self._states[0], self._states[number], self._symmetries
        rng = numpy_generator(self._seed, "alignment", number)
        plain = Placement.start(symmetries, second)
        matched = self._matched(first, second, rng)
        midpoint = self._midpoint(self._limits.started(), first)
        named = {"unaligned": plain, "weights": matched[0], "activations": matched[1]}
        losses = {name: midpoint.loss(placement) for name, placement in named.items()}
        exact = min(matched, key=lambda placement: distance(symmetries, first, placement.state))
        if distance(symmetries, first, exact.state) <= 1e-12 * float(first @ first):
            return exact, losses | {"aligned": midpoint.loss(exact)}
        best = self._by_loss(first, plain, matched, rng)
        return best, losses | {"aligned": midpoint.loss(best)}

    def _matched(self, first: Array, second: Array, rng: np.random.Generator) -> list[Placement]:
        """Match by weights, by activations, by both, and by weights from random orders."""
        symmetries = self._symmetries
        by_weights = Placement.start(symmetries, second)
        match_weights(symmetries, first, by_weights, rng)
        by_activations = ordered_start(
            symmetries, second, match_activations(symmetries, first, second)
        )
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
        first: Array,
        plain: Placement,
        matched: Sequence[Placement],
        rng: np.random.Generator,
    ) -> Placement:
        """Search by the loss at the mean, among orders that are no farther than the given one."""
        symmetries, clock = self._symmetries, self._limits.started()
        unaligned = distance(symmetries, first, plain.state)

        def nearer(placement: Placement) -> bool:
            return distance(symmetries, first, placement.state) <= unaligned

        candidates = list(matched)
        for start in (matched[1], plain):
            part = self._limits.started(_SOFTLY)
            there = self._midpoint(part, first)
            candidates.append(descend_softly(there, symmetries, start, part))
            clock.taken += part.taken
        candidates = [*filter(nearer, candidates)] or [plain]
        midpoint = self._midpoint(clock, first)
        best = refine(midpoint, symmetries, candidates, clock, rng, most=_STARTS)
        return best if nearer(best) else min(candidates, key=midpoint.loss)

    def _midpoint(self, clock: Clock, first: Array) -> Midpoint:
        return Midpoint(self._judge, self._symmetries, [first], clock)

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
