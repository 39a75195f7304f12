from __future__ import annotations

import numpy as np
import pytest

from thalweg.algebra import Gauge, find_msolve, network, random_system, solve, zero_system
from thalweg.algebra.monodromy import Route, monodromy, trace_test
from thalweg.algebra.slices import square_family
from thalweg.errors import InvalidArgument, SystemTooLarge

TWO_CUBES = network((2, 2, 1), (0, 0, 0, 1), bias=True)


@pytest.mark.parametrize(
    ("widths", "activation", "bias", "samples", "classes", "degree"),
    [
        ((2, 3, 1), (0, 0, 0, 1), True, 9, 4, 648),  # degree 4: Aronhold's invariant
        ((2, 2, 1), (0, 0, 0, 1), True, 6, 15, 270),
        ((1, 2, 1), (0, 0, 0, 0, 0, 1), True, 4, 6, 300),
        ((2, 2, 1), (0, 1, 0, 1), False, 6, 1, 8),
        ((2, 1), (0, 1), False, 2, 1, 1),
        # Sylvester: binary quintics are a sum of three fifth powers in one way.
        ((1, 3, 1), (0, 0, 0, 0, 0, 1), True, 6, 1, 750),
        # Sylvester's pentahedral theorem, and Hilbert's on ternary quintics.
        ((3, 5, 1), (0, 0, 0, 1), True, 20, 1, 120 * 3**5),
        ((2, 7, 1), (0, 0, 0, 0, 0, 1), True, 21, 1, 5040 * 5**7),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_all_solutions_are_found(widths, activation, bias, samples, classes, degree, seed):
    system = random_system(network(widths, activation, bias=bias), samples=samples, seed=seed)
    found = solve(system, seed=seed, exact=False)
    assert (len(found.weights), found.degree, found.dimension) == (classes, degree, 0)
    assert found.status == "trace"
    assert found.generic.trace < 1e-9
    assert not found.complete  # only an exact degree is a proof
    values = system.evaluate(found.weights)[0]
    misfit = np.abs(values - system.targets.ravel()).max()
    assert found.residuals.max() < 1e-12
    assert misfit < 1e-12 * max(1.0, np.abs(found.weights).max() ** max(system.degrees))


def test_paths_tracked_together_end_where_each_ends_alone():
    family = square_family(random_system(TWO_CUBES, samples=6), 6).family
    rng = np.random.default_rng(3)
    points, wide, aside = rng.normal(size=(3, 5, 6)) + 1j * rng.normal(size=(3, 5, 6))
    start = family.map(points)[0]
    stop = start[0]
    together = family.carry(points, Route(start, stop, wide, aside))
    for k in range(5):
        route = Route(start[k : k + 1], stop, wide[k : k + 1], aside[k : k + 1])
        np.testing.assert_allclose(family.carry(points[k : k + 1], route)[0], together[k])
    np.testing.assert_allclose(family.map(together)[0], np.tile(stop, (5, 1)), rtol=1e-10)


def test_the_trace_test_sees_a_missing_solution():
    system = random_system(TWO_CUBES, samples=6)
    square = square_family(system, 6)
    rng = np.random.default_rng(0)
    start = rng.normal(size=6) + 1j * rng.normal(size=6)
    found = monodromy(square.family, start, rng=rng)
    whole = trace_test(square.family, found.points, found.parameters, rng)
    part = trace_test(square.family, found.points[1:], found.parameters, rng)
    assert len(found.points) == 15
    assert whole < 1e-10
    assert part > 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_planted_weights_are_found_again(seed):
    rng = np.random.default_rng(seed)
    gauge = Gauge(TWO_CUBES, True)
    planted, inputs = rng.normal(size=gauge.size), rng.normal(size=(6, 2))
    targets = TWO_CUBES.predict(gauge.embed(planted[None]), inputs)[0]
    found = solve(zero_system(TWO_CUBES, inputs, targets), seed=seed, exact=False)
    distances = [np.abs(gauge.orbit(w) - planted).max(axis=1).min() for w in found.real_weights]
    assert min(distances) < 1e-9


def test_planted_weights_are_found_among_too_many_equations():
    rng = np.random.default_rng(7)
    gauge = Gauge(TWO_CUBES, True)
    planted, inputs = rng.normal(size=gauge.size), rng.normal(size=(9, 2))
    targets = TWO_CUBES.predict(gauge.embed(planted[None]), inputs)[0]
    found = solve(zero_system(TWO_CUBES, inputs, targets), exact=False)
    assert found.real_weights.shape == (1, 6)
    assert np.abs(gauge.orbit(found.real_weights[0]) - planted).max(axis=1).min() < 1e-9


def test_planted_signs_of_even_units_are_found():
    net = network((1, 2, 1), (0, 0, 0, 0, 1), bias=True)
    gauge = Gauge(net, True)
    planted, signs = np.array([0.7, 1.1, -0.6, 0.4]), np.array([1.0, -1.0])
    inputs = np.array([[-1.0], [-0.3], [0.5], [1.2]])
    targets = net.predict(gauge.embed(planted[None], signs[None]), inputs)[0]
    found = solve(zero_system(net, inputs, targets), exact=False)
    values = [
        net.predict(gauge.embed(w[None], s[None]), [[0.2], [0.9]] * np.ones((2, 1)))[0].ravel()
        for w, s in zip(found.real_weights, found.real_signs, strict=True)
        if sorted(s) == [-1.0, 1.0]
    ]
    expected = net.predict(gauge.embed(planted[None], signs[None]), np.array([[0.2], [0.9]]))
    assert min(np.abs(v - expected.ravel()).max() for v in values) < 1e-9


@pytest.mark.parametrize(
    ("widths", "activation", "samples", "dimension", "degree"),
    [((2, 3, 1), (0, 0, 1), 6, 3, 16), ((2, 2, 1), (0, 0, 1), 3, 3, 8)],
)
def test_solution_sets_are_sliced_to_witness_points(widths, activation, samples, dimension, degree):
    system = random_system(network(widths, activation, bias=True), samples=samples)
    found = solve(system)
    assert (found.dimension, found.degree, len(found.weights)) == (dimension, degree, degree)
    assert found.residuals.max() < 1e-12
    assert found.complete == (find_msolve() is not None)


@pytest.mark.slow
def test_a_curve_of_degree_162():
    found = solve(random_system(TWO_CUBES, samples=5))
    assert (found.dimension, found.degree) == (1, 162)
    assert found.complete == (find_msolve() is not None)


def test_generic_targets_beyond_the_rank_have_no_solution():
    net = network((1, 1, 1), (0, 0, 0, 1), bias=True)
    found = solve(random_system(net, samples=3), exact=False)
    assert (found.dimension, found.degree, len(found.weights)) == (None, None, 0)


def test_the_result_is_a_function_of_the_seed():
    system = random_system(TWO_CUBES, samples=6)
    one, two = (solve(system, seed=3, exact=False).weights for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_limit_is_respected_and_said():
    found = solve(random_system(TWO_CUBES, samples=6), most=4, exact=False)
    assert found.status == "limit"
    assert 4 < len(found.generic.points) <= 15


def test_too_large_systems_say_how_large():
    system = random_system(network((20, 10, 1), (0, 0, 0, 1)), samples=200)
    with pytest.raises(SystemTooLarge, match=r"200 equations in 200 unknowns.*3\^200"):
        solve(system)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(InvalidArgument, match="at least 1"):
        solve(random_system(TWO_CUBES, samples=6), most=0)
