"""Square families: equations combined where there are too many, sliced where there are too few.

A solution set of dimension W - r is cut by as many random affine hyperplanes in finitely many
*witness points*, as many as its degree. The planes are complex; together with the targets they are
the parameters that monodromy moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.monodromy import Family
from thalweg.algebra.system import ZeroSystem

TRACES = 3
"""Number of further inputs on which the trace test compares predictions."""


@dataclass(frozen=True, eq=False)
class SquareFamily:
    """The family of square systems to which a system belongs.

    Attributes
    ----------
    family
        For monodromy.
    targets
        Parameters of the system itself, shape (W,): combined targets, then offsets of the planes.
    planes
        Number of slicing hyperplanes: the expected dimension of the solution set.
    combined
        Whether equations were combined; then a solution has to be checked against all of them.
    """

    family: Family
    targets: Array
    planes: int
    combined: bool


def square_family(system: ZeroSystem, rank: int, *, seed: int = 0) -> SquareFamily:
    """Combine the equations of a system to as many as its generic rank, and slice the rest.

    Parameters
    ----------
    system
        The system.
    rank
        Generic rank of its Jacobian.
    seed
        Of the random combinations, planes and further inputs.
    """
    rng = np.random.default_rng([seed, 7])
    size, equations = system.weights, system.equations
    planes = size - rank
    mix = np.eye(equations)
    if rank < equations:
        mix = np.linalg.qr(rng.normal(size=(equations, rank)))[0].T
    normals = rng.normal(size=(planes, size)) + 1j * rng.normal(size=(planes, size))
    offsets = rng.normal(size=planes) + 1j * rng.normal(size=planes)
    fresh = rng.normal(size=(TRACES, system.network.inputs))

    def evaluate(x: Array) -> tuple[Array, Array]:
        values, jacobian = system.evaluate(x)
        if rank < equations:
            values, jacobian = values @ mix.T, mix @ jacobian
        if not planes:
            return values, jacobian
        rows = np.broadcast_to(normals, (len(x), planes, size))
        return (
            np.concatenate([values, x @ normals.T], axis=1),
            np.concatenate([jacobian, rows], axis=1),
        )

    def predictions(x: Array) -> Array:
        outputs = system.network.predict(system.gauge.embed(x), fresh)
        return outputs.reshape(len(x), -1)

    family = Family(
        size=size,
        map=evaluate,
        invariants=(lambda x: x) if planes else system.gauge.invariants,
        traces=(lambda x: x) if planes else predictions,
        # With planes only these move: the trace of a fixed set under parallel slices is affine.
        moving=np.arange(size) >= rank if planes else np.ones(size, dtype=bool),
    )
    targets = np.concatenate([mix @ system.targets.ravel(), offsets])
    return SquareFamily(family, targets, planes, rank < equations)
