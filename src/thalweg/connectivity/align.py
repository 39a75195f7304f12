"""Networks brought into one order of hidden units: the same functions, nearer to one another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from thalweg.connectivity.alignment import Alignment
from thalweg.connectivity.midpoint import enough_seconds, judging
from thalweg.connectivity.order_search import OrderSearch
from thalweg.connectivity.search_clock import Clock, Used
from thalweg.connectivity.symmetries import find_symmetries
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point
from thalweg.problems.problem import Problem
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Progress, silent


def align(
    problem: Problem | EmpiricalRisk,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    restarts: int = 40,
    seconds: float | None = None,
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
    seconds : float, optional
        Of computing time for the search by loss, soft and by swaps; 0 for none. By default 6, or
        what 2,000 gradients on 500 samples take where that is more, at most 150.
    steps : int, optional
        Evaluations of the loss for it in place of seconds: the same answer on any machine.
    seed : int
        Of random orders.
    progress : Progress
        Told of what of the time, or of the steps, is used.

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
    >>> import torch
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
    seconds: float | None = None,
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
        judge = judging(risk)
        if seconds is None:
            seconds = 0.0 if steps is not None else enough_seconds(judge, whole.weights[0])
        clock = Clock(seconds, steps)
        search = OrderSearch(judge, symmetries, states, restarts, clock, seed)
        pairs = []
        units = "evaluations" if steps is not None else "seconds of computing"
        total = clock.limit * (len(states) - 1)
        with progress(total, f"search for orders, {units}") as bar:
            clock.used = Used(bar, total)
            for number in range(1, len(states)):
                pairs.append(search.pair(number))
                clock.used.up_to(clock.limit * number)
        if len(states) > 2:
            search.together([placement for placement, _ in pairs])
        first = search.unmoved()
        return [
            search.answer(number, placement, losses, whole.weights[number])
            for number, (placement, losses) in enumerate([first, *pairs])
        ]
