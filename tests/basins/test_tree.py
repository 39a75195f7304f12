"""Graphs of analytic landscapes, of which minima and saddles are known, and persistence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from analytic_landscapes import ANALYTIC_LANDSCAPES, camel
from function_landscape import FunctionLandscape
from thalweg.basins.tree import disconnectivity_graph
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import NestedField

F64 = torch.float64


# Of elastic bands; those of Mueller and Brown's function go round a bend.
STEPS = {"Mueller-Brown": 70}


def graph_of(name, by):
    landscape = ANALYTIC_LANDSCAPES[name]
    minima = torch.tensor(landscape.minima, dtype=F64)
    function = FunctionLandscape(landscape.function, minima.shape[1])
    return disconnectivity_graph(function, minima, by=by, steps=STEPS.get(name, 20))


@pytest.mark.parametrize("name", ANALYTIC_LANDSCAPES)
def test_minima_join_at_the_known_saddles(name):
    known = ANALYTIC_LANDSCAPES[name]
    found = graph_of(name, by=("line", "band"))
    assert found.values == pytest.approx(known.values, abs=0.002 * known.span)
    for pair, level in known.passes.items():
        assert found.heights[pair] == pytest.approx(level, abs=0.01 * known.span)
    assert (found.passes["line"] >= found.heights - 1e-9).all()
    lasts = found.persistence
    assert np.isinf(lasts[:, 1]).sum() == 1 and (lasts[:, 1] >= lasts[:, 0]).all()


@pytest.mark.parametrize("name", ["Mueller-Brown", "Himmelblau", "two wells"])
def test_straight_lines_alone_are_above_the_known_saddles(name):
    known = ANALYTIC_LANDSCAPES[name]
    found = graph_of(name, by=("line",))
    assert max(found.heights[p] - level for p, level in known.passes.items()) > 0.03 * known.span


def test_a_lattice_of_lattices_joins_as_it_was_made():
    field = NestedField(12, heights=(2.0, 0.5, 0.1), spacings=(4.0, 1.0, 0.2), per_level=3)
    steps = [(a, 0, 0, b, 0, 0, c) for a, b, c in itertools.product((0, 1), (0, 1), (0, 1))]
    wells = torch.stack([field.well(*step) for step in steps])
    found = disconnectivity_graph(field, wells)
    labels = [field.label(w) for w in wells]
    for i, j in itertools.combinations(range(8), 2):
        assert found.heights[i, j] == pytest.approx(field.barrier(labels[i], labels[j]), rel=0.01)
    levels = [round(level, 2) for level, _, _ in found.merges]
    assert levels == [0.1] * 4 + [0.5] * 2 + [2.0]
    assert found.merges[-1][1:] == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_persistence_is_that_of_gudhi():
    gudhi = pytest.importorskip("gudhi", reason="pip install thalweg[tda]")
    found = graph_of("six-hump camel", by=("line",))
    tree = gudhi.SimplexTree()
    for i, value in enumerate(found.values):
        tree.insert([i], value)
    for i, j in itertools.combinations(range(len(found.values)), 2):
        tree.insert([i, j], found.passes["line"][i, j])
    tree.compute_persistence(min_persistence=-1.0, homology_coeff_field=2)
    theirs = sorted(map(tuple, tree.persistence_intervals_in_dimension(0)))
    assert np.allclose(theirs, sorted(map(tuple, found.persistence)))


def test_refusals():
    plane = FunctionLandscape(camel)
    with pytest.raises(InvalidArgument, match="k of 2 or more"):
        disconnectivity_graph(plane, torch.zeros(1, 2))
    with pytest.raises(InvalidArgument, match="ways among line, aligned, band"):
        disconnectivity_graph(plane, torch.zeros(2, 2), by=("arc",))
