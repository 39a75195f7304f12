"""Basins inside basins: found where planted, and not in one valley, one size, or no structure."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.basins.families import draw_parameters, simulate
from thalweg.basins.memory import memory, nested_at_all_widths, pooled, without_structure
from thalweg.basins.signature import KINDS, Design
from thalweg.errors import InvalidArgument

WIDTHS = {"tree": (130.0, 230.0), "valley": (60.0, 120.0)}


def signatures(family, seed):
    for dims in WIDTHS[family]:
        params = draw_parameters(family, seed) | {"dims": dims}
        yield simulate(family, 10 * seed + int(dims), params=params)


def test_a_planted_tree_is_found_and_its_shuffle_is_not():
    found = list(signatures("tree", 5000))
    seen = [memory(one) for one in found]
    assert nested_at_all_widths(seen)
    assert all(len(one.remembered) >= 2 for one in seen)
    assert not any(memory(without_structure(one)).nested for one in found)


def test_barriers_that_only_distance_decides_have_no_memory():
    """Whatever the barriers are of distance, p is no smaller than chance has it."""
    made = simulate("valley", 3, design=Design(parents=4, copies=4))
    rng = np.random.default_rng(0)
    p = []
    for _ in range(24):
        columns = made.columns | {"barrier": 0.3 * made.columns["distance"] ** 1.5}
        columns["barrier"] = columns["barrier"] + rng.exponential(1.0, len(columns["barrier"]))
        p += memory(type(made)(made.design, columns, made.unit, {})).p
    # Where one long step leads further than several short ones, p is larger than chance has it.
    assert np.mean(np.array(p) <= 0.1) <= 0.16
    assert np.mean(p) >= 0.43
    # A barrier that siblings have beside their distance is seen where both are as far apart.
    columns["barrier"] = columns["barrier"] + 8 * (columns["kind"] == KINDS.index("sibling"))
    assert memory(type(made)(made.design, columns, made.unit, {})).p[0] < 0.01


def test_the_null_keeps_distances_and_moves_barriers():
    made = simulate("tree", 1, design=Design(parents=3, copies=2))
    null = without_structure(made, seed=1)
    assert np.array_equal(null.columns["distance"], made.columns["distance"])
    moved = null.columns["barrier"] != made.columns["barrier"]
    kinds = {KINDS[int(kind)] for kind in np.unique(made.columns["kind"][moved])}
    assert kinds == {"sibling", "cousin"}


def test_one_width_decides_nothing():
    made = simulate("valley", 3, design=Design(parents=3, copies=2))
    with pytest.raises(InvalidArgument, match="write two or more, networks of different widths"):
        nested_at_all_widths([memory(made)])


def test_signatures_together_are_one_of_all_parents():
    size = Design(parents=2, copies=2)
    first, second = (simulate("bowl", seed, design=size) for seed in (1, 2))
    both = pooled([first, second])
    assert both.design == Design(parents=4, copies=2)
    for name in ("returned", "sibling_barrier", "cousin_distance"):
        parts = [made.figures()[name] for made in (first, second)]
        assert np.array_equal(both.figures()[name], np.concatenate(parts))
    with pytest.raises(InvalidArgument, match="2 designs; write one or more by one design"):
        pooled([first, simulate("bowl", 1, design=Design(parents=2, copies=4))])


@pytest.mark.slow
def test_false_positives_and_power():
    """200 nulls, two widths each: at most 5 %; trees of three levels: at least 90 %."""
    valleys = [
        nested_at_all_widths([memory(one) for one in signatures("valley", seed)])
        for seed in range(9000, 9100)
    ]
    trees, shuffled = [], []
    for seed in range(9000, 9050):
        found = list(signatures("tree", seed))
        trees.append(nested_at_all_widths([memory(one) for one in found]))
        for draw in range(2):
            nulls = [memory(without_structure(one, seed=draw)) for one in found]
            shuffled.append(nested_at_all_widths(nulls))
    assert np.mean(valleys + shuffled) <= 0.05
    assert np.mean(trees) >= 0.9
