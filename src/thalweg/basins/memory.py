"""Whether basins lie inside basins: lines of descent that stay together, at two scales apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thalweg.basins.signature import KINDS, Floats, Signature
from thalweg.errors import InvalidArgument
from thalweg.run.seeds import numpy_generator

# Stated before any verdict was seen: level of the test of a scale, before it is shared out over
# scales; how far apart two scales of memory must be; permutations.
LEVEL, APART, PERMUTATIONS = 0.05, 4.0, 4000
# Places in the order of distances within which a pair of the null takes its barrier.
_NEAR = 10


@dataclass(frozen=True)
class Memory:
    """
    At which scales a line of descent remembers the basin that it began in.

    Attributes
    ----------
    scales : tuple of float
        Of the steps of a line of descent.
    difference : tuple of float
        Barrier of siblings after one long step, minus that of cousins after as long a way in short
        steps, at equal distance; in units of the loss that training takes away.
    p : tuple of float
        Of each scale, one-sided, by permutation within parents.
    remembered : tuple of float
        Scales of which p is at most `LEVEL` over their number (Bonferroni).
    nested : bool
        Whether two of them are a factor `APART` apart, with one between at which nothing is
        remembered, and the wider has the higher walls.
    """

    scales: tuple[float, ...]
    difference: tuple[float, ...]
    p: tuple[float, ...]
    remembered: tuple[float, ...]
    nested: bool


def memory(signature: Signature, *, seed: int = 0) -> Memory:
    """
    Compare ways of equal length in one step and in several, at equal distance, scale by scale.

    Short steps that are each trained on lead back to where they left while they stay inside of a
    basin; one step as long as all of them together leaves it. So cousins at the end of many short
    steps have lower barriers between them than siblings after one long step, *although* they are as
    far apart, where a basin's size lies between the two. On a flat floor, and wherever barriers
    depend on nothing but distance, they have not: the way there, a tree by design, has no memory.
    One such scale is basins side by side. Two, far apart and with none between, are basins
    inside basins: the memory of one size fades over neighbouring scales.

    Parameters
    ----------
    signature : Signature
        What was measured.
    seed : int
        Of the permutations.

    Returns
    -------
    Memory
        Barriers are compared after a quadratic in distance, fitted to both groups, is taken off
        (Freedman and Lane): where the groups' distances do not overlap, nothing is left to compare.
    """
    design = signature.design
    generator = numpy_generator(seed, "memory")
    siblings, cousins = signature.pairs("sibling"), signature.pairs("cousin")
    differences, p = [], []
    for level in range(design.levels - 1):
        near = {name: c[cousins["level"] == level] for name, c in cousins.items()}
        far = {name: c[siblings["level"] == level + 1] for name, c in siblings.items()}
        together = {name: np.concatenate([near[name], far[name]]) for name in near}
        long = np.repeat([False, True], [len(near["kind"]), len(far["kind"])])
        difference, share = _compare(together, long, generator)
        differences.append(difference)
        p.append(share)
    return _judged(signature, differences, p)


def _judged(signature: Signature, differences: list[float], p: list[float]) -> Memory:
    scales = signature.design.scales[:-1]
    level = LEVEL / len(scales)
    kept = [i for i, value in enumerate(p) if value <= level]
    walls = signature.by_level("sibling", signature.pairs("sibling")["barrier"]).mean(0)
    nested = any(
        scales[j] >= APART * scales[i] * (1 - 1e-9)
        and walls[j + 1] > walls[i + 1]
        and not set(range(i, j)) <= set(kept)
        for i in kept
        for j in kept
    )
    return Memory(
        scales=scales,
        difference=tuple(differences),
        p=tuple(p),
        remembered=tuple(scales[i] for i in kept),
        nested=nested,
    )


def pooled(signatures: Sequence[Signature]) -> Signature:
    """
    Put signatures by one design together: as many parents as all have, each on its own landscape.

    Parameters
    ----------
    signatures : sequence of Signature
        Such as those of one network on several draws of samples. Pairs of parents are those within
        each.

    Raises
    ------
    InvalidArgument
        If there are none, or their designs differ.
    """
    designs = {signature.design for signature in signatures}
    if len(designs) != 1:
        raise InvalidArgument(
            f"signatures of {len(designs)} designs; write one or more by one design."
        )
    (design,) = designs
    columns = [
        signature.columns | {"parent": signature.columns["parent"] + number * design.parents}
        for number, signature in enumerate(signatures)
    ]
    return Signature(
        design=replace(design, parents=design.parents * len(signatures)),
        columns={name: np.concatenate([part[name] for part in columns]) for name in columns[0]},
        unit=float(np.mean([signature.unit for signature in signatures])),
        provenance=signatures[0].provenance,
    )


def nested_at_all_widths(memories: list[Memory]) -> bool:
    """
    Say whether basins lie inside basins in all of two or more landscapes, such as widths.

    Raises
    ------
    InvalidArgument
        If there are fewer than two.
    """
    if len(memories) < 2:
        raise InvalidArgument(
            f"{len(memories)} landscape; write two or more, networks of different widths: one may"
            " show two scales by chance."
        )
    return all(seen.nested for seen in memories)


def without_structure(signature: Signature, *, seed: int = 0) -> Signature:
    """
    Give the null of points with the same distances and no structure.

    Each pair of siblings and cousins gets the barrier of one of the pairs whose distances are
    nearest, of whatever kind and parent: barriers still depend on distance, and on nothing else.

    Parameters
    ----------
    signature : Signature
        Whose distances and barriers.
    seed : int
        Of the choice.
    """
    generator = numpy_generator(seed, "without structure")
    columns = {name: column.copy() for name, column in signature.columns.items()}
    kinds = [KINDS.index(kind) for kind in ("sibling", "cousin")]
    mine = np.flatnonzero(np.isin(columns["kind"], kinds))
    order = mine[np.argsort(columns["distance"][mine], kind="stable")]
    place = np.arange(len(order)) + generator.integers(-_NEAR, _NEAR + 1, len(order))
    taken = order[np.clip(place, 0, len(order) - 1)]
    columns["barrier"][order] = signature.columns["barrier"][taken]
    return replace(signature, columns=columns)


def _compare(
    pairs: dict[str, Floats], long: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[float, float]:
    """Give the mean difference at equal distance, and its p-value by permutation."""
    rest = _without_distance(pairs)
    order = np.argsort(pairs["parent"], kind="stable")
    parents, counts = np.unique(pairs["parent"], return_counts=True)
    assert len(set(counts.tolist())) == 1  # a design has as many pairs of every parent
    table = rest[order].reshape(len(parents), -1)
    labels = long[order].reshape(len(parents), -1)
    observed = _difference(table, labels[None])[0]
    keys = generator.random((PERMUTATIONS, *labels.shape))
    shuffled = np.take_along_axis(
        np.broadcast_to(labels, keys.shape), np.argsort(keys, axis=2), axis=2
    )
    drawn = _difference(table, shuffled)
    # Rounding must not make equal ones unequal, where no barrier is left.
    least = observed - 1e-12 * (1 + abs(observed))
    return float(observed), float((1 + (drawn >= least).sum()) / (1 + PERMUTATIONS))


def _difference(table: Floats, labels: NDArray[np.bool_]) -> Floats:
    inside = (table * labels).sum((1, 2)) / labels[0].sum()
    outside = (table * ~labels).sum((1, 2)) / (~labels[0]).sum()
    difference: Floats = inside - outside
    return difference


def _without_distance(pairs: dict[str, Floats]) -> Floats:
    """Take off what a quadratic in distance explains, and what a parent's pairs share."""
    d = pairs["distance"] / max(float(pairs["distance"].mean()), 1e-300)
    own = (pairs["parent"][:, None] == np.unique(pairs["parent"])).astype(np.float64)
    design = np.column_stack([own, d, d**2])
    fitted = design @ np.linalg.lstsq(design, pairs["barrier"], rcond=None)[0]
    rest: Floats = pairs["barrier"] - fitted
    return rest
