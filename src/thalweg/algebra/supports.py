"""Which weights can be zero together at a critical point under generic penalties: its supports.

Critical equations are ``d_j L(w) + penalty_j w_j = 0``. Let S be the set of nonzero weights of a
critical point. Where ``d_j L`` vanishes on all of the coordinate space C^S, a weight j of S would
be zero; where it does not, a weight j outside of S asks for a further equation that no penalty
enters, and generic penalties leave no solution. So S is the set of those j whose ``d_j L`` does not
vanish on C^S. In a network these are the weights among the units that are switched on: a dead unit
stays dead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from thalweg.algebra.arithmetic import Array, Residues
from thalweg.algebra.network import Network
from thalweg.algebra.system import ZeroSystem
from thalweg.errors import SystemTooLarge

MOST_CASES = 20_000
"""Cases looked at before a network is refused: it has too many sets of switched-off units."""


def supports(system: ZeroSystem, *, seed: int = 0) -> list[Array]:
    """Sets of weights that are nonzero together at critical points under generic penalties.

    Whether a derivative vanishes on a coordinate space is decided at a random point modulo a prime
    near 2**31: a polynomial of degree d that does not vanish is taken for zero with probability
    d / 2**31.

    Parameters
    ----------
    system
        An ungauged network and its samples.
    seed
        Of the random points.

    Returns
    -------
    list of Array
        Boolean, shape (size,) each, smallest first.

    Raises
    ------
    SystemTooLarge
        For too many sets.

    Examples
    --------
    Two hidden units without bias: none, either, or both.

    >>> from thalweg.algebra import network, random_system
    >>> [int(s.sum()) for s in supports(random_system(network((2, 2, 2), (0, 1)), samples=1))]
    [0, 4, 4, 8]
    """
    moved_by = _derivatives(system, seed)
    size = system.network.size
    cases = [(np.zeros(size, dtype=bool), np.ones(size, dtype=bool))]
    nonzero_sets: list[Array] = []
    tried = 0
    while cases:
        tried += 1
        if tried > MOST_CASES:
            raise SystemTooLarge(
                f"More than {MOST_CASES} cases of weights that are zero together, for {size}"
                " weights; use fewer hidden units or layers."
            )
        required, allowed = _settled(*cases.pop(), moved_by)
        if (required & ~allowed).any():
            continue
        undecided = np.flatnonzero(allowed & ~required)
        if not len(undecided):
            nonzero_sets.append(allowed)
            continue
        for zero in (True, False):
            case = required.copy(), allowed.copy()
            case[1 if zero else 0][undecided[0]] = not zero
            cases.append(case)
    return sorted(nonzero_sets, key=lambda s: (int(s.sum()), [not b for b in s.tolist()]))


def switched_on(network: Network, support: Array) -> tuple[tuple[int, ...], ...]:
    """Hidden channels of each layer that read or are read by a weight of a support."""
    parts = network.parts(support)
    channels = []
    for (kernel, bias), (following, _) in itertools.pairwise(parts):
        alive = kernel.any(axis=(1, 2)) | following.any(axis=(0, 2))
        alive = alive if bias is None else alive | bias
        channels.append(tuple(int(k) for k in np.flatnonzero(alive)))
    return tuple(channels)


def _settled(
    required: Array, allowed: Array, moved_by: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Least and largest set between two, with all that follows from both."""
    while True:
        more = required | moved_by(required)
        less = allowed & moved_by(allowed)
        if (more & ~less).any() or (np.array_equal(more, required) and less.sum() == allowed.sum()):
            return more, less
        required, allowed = more, less


def _derivatives(system: ZeroSystem, seed: int) -> Callable[[Array], Array]:
    """Which derivatives of the squared loss do not vanish where all weights outside a set do."""
    ring, network = Residues(), system.network
    rng = np.random.default_rng([seed, 23])
    inputs, targets = _residues(system.inputs, ring), _residues(system.targets, ring)
    point = rng.integers(1, ring.prime, size=network.size)
    computed: dict[bytes, Array] = {}

    def moved_by(support: Array) -> Array:
        key = support.tobytes()
        if key not in computed:
            outputs, jacobian = network.value_and_jacobian(
                np.where(support, point, 0)[None], inputs, ring
            )
            residual = ring.reduce(outputs[0] - targets.ravel())
            computed[key] = ring.matmul(residual[None], jacobian[0])[0] != 0
        return computed[key]

    return moved_by


def _residues(values: Array, ring: Residues) -> Array:
    residues = [ring.number(Fraction(float(v))) for v in values.ravel()]
    return np.array(residues, dtype=np.int64).reshape(values.shape)
