"""Graphs of analytic landscapes, of which minima and saddles are known, and persistence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from thalweg.basins.tree import disconnectivity_graph
from thalweg.errors import InvalidArgument
from thalweg.landscape.space import ParameterSpace
from thalweg.landscape.synthetic import NestedField

F64 = torch.float64


class Plane:
    """A function of two weights, with its gradient by autograd."""

    space = ParameterSpace.euclidean(2)
    dtype, device = F64, torch.device("cpu")

    def __init__(self, function):
        self.function = function

    def value(self, w):
        return float(self.function(*w.to(F64)))

    def gradient(self, w, batch=None):
        leaf = w.detach().clone().to(F64).requires_grad_()
        return torch.autograd.grad(self.function(*leaf), leaf)[0]


def mueller_brown(x, y):
    """K. Mueller and L. D. Brown (1979)."""
    rows = (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    )
    return sum(
        A * torch.exp(a * (x - p) ** 2 + b * (x - p) * (y - q) + c * (y - q) ** 2)
        for A, a, b, c, p, q in rows
    )


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def camel(x, y):
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def two_wells(x, y):
    return (x**2 - 1) ** 2 + 0.2 * x + 2 * (y - 0.5 * x**2) ** 2


# Minima, and saddles by value: published (Mueller-Brown, Himmelblau, camel); two wells are one
# function of x along the parabola.
CASES = {
    "Mueller-Brown": (
        mueller_brown,
        [(-0.5582, 1.4417), (0.6235, 0.0280), (-0.0500, 0.4667)],
        {(1, 2): -72.249, (0, 2): -40.665, (0, 1): -40.665},
        (-146.700, -108.167, -80.768),
    ),
    "Himmelblau": (
        himmelblau,
        [(3.0, 2.0), (3.5844, -1.8481), (-2.8051, 3.1313), (-3.7793, -3.2832)],
        {(0, 1): 13.312, (0, 2): 67.719, (2, 3): 104.015, (1, 3): 104.015},
        (0.0, 0.0, 0.0, 0.0),
    ),
    "camel": (
        camel,
        [(0.0898, -0.7126), (-0.0898, 0.7126), (1.7036, -0.7961), (-1.7036, 0.7961)],
        {(0, 1): 0.0, (0, 2): 0.5437, (1, 3): 0.5437, (2, 3): 0.5437},
        (-1.0316, -1.0316, -0.2155, -0.2155),
    ),
    "two wells": (
        two_wells,
        [(-1.0241, 0.5244), (0.9740, 0.4743)],
        {(0, 1): 1.0050},
        (-0.2024, 0.1975),
    ),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "two wells" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_minima_join_at_the_known_saddles(name):
    function, minima, saddles, bottoms = CASES[name]
    points = torch.tensor(minima, dtype=F64)
    found = disconnectivity_graph(Plane(function), points, by=("line", "band"), steps=150)
    spread = max(saddles.values()) - min(bottoms)
    assert found.values == pytest.approx(bottoms, abs=0.002 * spread)
    for pair, height in saddles.items():
        assert found.heights[pair] == pytest.approx(height, abs=0.01 * spread)
    assert (found.passes["line"] >= found.heights - 1e-9).all()
    lasts = found.persistence
    assert np.isinf(lasts[:, 1]).sum() == 1 and (lasts[:, 1] >= lasts[:, 0]).all()


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
    function, minima, _, _ = CASES["camel"]
    points = torch.tensor(minima, dtype=F64)
    found = disconnectivity_graph(Plane(function), points)
    tree = gudhi.SimplexTree()
    for i, value in enumerate(found.values):
        tree.insert([i], value)
    for i, j in itertools.combinations(range(len(points)), 2):
        tree.insert([i, j], found.passes["line"][i, j])
    tree.compute_persistence(min_persistence=-1.0, homology_coeff_field=2)
    theirs = sorted(map(tuple, tree.persistence_intervals_in_dimension(0)))
    assert np.allclose(theirs, sorted(map(tuple, found.persistence)))


def test_refusals():
    plane = Plane(camel)
    with pytest.raises(InvalidArgument, match="k of 2 or more"):
        disconnectivity_graph(plane, torch.zeros(1, 2))
    with pytest.raises(InvalidArgument, match="ways among line, aligned, band"):
        disconnectivity_graph(plane, torch.zeros(2, 2), by=("arc",))
