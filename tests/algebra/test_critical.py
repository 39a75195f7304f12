from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from thalweg.algebra import (
    bound_on_critical_points,
    classify,
    critical_points,
    critical_system,
    find_msolve,
    network,
    plot_critical_points,
    random_system,
    zero_system,
)
from thalweg.algebra.monodromy import monodromy, trace_test
from thalweg.algebra.penalty_family import PenaltyFamily
from thalweg.algebra.supports import supports, switched_on
from thalweg.errors import InvalidArgument, SystemTooLarge

# Bharadwaj's counts for one sample and generic penalties.
COUNTS = [
    ((1, 1, 1), 5),
    ((2, 1, 1), 5),
    ((3, 1, 1), 5),
    ((1, 1, 2), 9),
    ((2, 1, 2), 9),
    ((1, 2, 1), 9),
    ((2, 2, 1), 9),
    ((1, 2, 2), 33),
    ((1, 1, 1, 1), 17),
    ((2, 1, 1, 1), 17),
]


def linear(widths, seed=0):
    return random_system(network(widths, (0, 1)), samples=1, seed=seed)


@pytest.mark.parametrize(("widths", "expected"), COUNTS)
def test_deep_linear_networks(widths, expected):
    found = critical_points(linear(widths))
    assert len(found.complex_points) == expected == sum(s.points for s in found.strata)
    assert all(s.status in ("trace", "zero", "none") for s in found.strata)
    # Proved for one hidden layer, by msolve for more.
    assert found.complete == (len(widths) == 3 or find_msolve() is not None)


def test_three_hidden_units_two_outputs():
    """128,000 paths from general equations; 1 + 3 * 8 + 3 * 16 points."""
    found = critical_points(linear((2, 3, 2)), exact=False)
    assert (len(found.complex_points), found.bound, found.complete) == (73, 73, True)
    assert (found.paths, found.infinite, found.singular) == (73, 0, 0)
    by_units = [(len(s.switched_on[0]), s.points) for s in found.strata]
    assert sorted(by_units) == [(0, 1), *[(1, 8)] * 3, *[(2, 16)] * 3, (3, 0)]
    gradient = critical_system(found.system, found.penalties)
    sizes = np.abs(gradient.evaluate(found.complex_points)[0])
    scale = gradient.magnitude(np.maximum(np.abs(found.complex_points), 1))
    assert (sizes / scale).max() < 1e-12


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (network((1, 1, 2), (0, 1), bias=True, output_bias=True), 9),
        (network((1, 2, 1), (0, 2), bias=True), 9),
        (network((1, 2, 1), (0, 1), output_bias=True), 9),
        (network((2, 2), (0, 1), output_bias=True), 1),
    ],
)
def test_the_bound_holds_with_biases_and_is_reached(net, expected):
    found = critical_points(random_system(net, samples=1, seed=2), exact=False)
    assert len(found.complex_points) == found.bound == expected and found.complete


def test_no_bound_is_claimed_where_none_is_proved():
    for net, samples in [
        (network((1, 2, 1), (0, 1)), 2),
        (network((1, 2, 1), (0, 0, 1)), 1),
        (network((1, 2, 1), (1, 1)), 1),
        (network((1, 1, 1, 1), (0, 1)), 1),
    ]:
        assert bound_on_critical_points(random_system(net, samples=samples)) is None


SMALL = [
    (network((1, 1, 1), (0, 1, 1), bias=True), 3),
    (network((1, 2, 1), (0, 0, 1)), 1),
    (network((2, 1, 1), (0, 0, 0, 1)), 2),
    (network((1, 2, 1), (0, 1)), 2),
    (network((1, 1, 1), (1, 0, 1)), 2),
]


@pytest.mark.parametrize(("net", "samples"), SMALL)
def test_both_solvers_find_the_same_points(net, samples):
    system = random_system(net, samples=samples, seed=1)
    loops = critical_points(system, solver="monodromy", exact=False)
    paths = critical_points(system, solver="homotopy", exact=False)
    assert len(loops.complex_points) == len(paths.complex_points) > 1
    apart = np.abs(loops.complex_points[:, None] - paths.complex_points[None]).max(axis=2)
    assert apart.min(axis=1).max() < 1e-6
    assert loops.paths < paths.paths
    assert not loops.complete


def test_the_trace_test_notices_a_missing_class():
    system = random_system(network((1, 1, 2), (0, 1)), samples=1, gauge=False)
    everything = np.ones(system.weights, dtype=bool)
    family = PenaltyFamily(system, everything).family()
    rng = np.random.default_rng(0)
    start = rng.normal(size=family.size) + 1j * rng.normal(size=family.size)
    found = monodromy(family, start, rng=rng)
    assert (len(found.points), found.status) == (4, "trace")
    for left_out in range(4):
        rest = np.delete(found.points, left_out, axis=0)
        assert trace_test(family, rest, found.parameters, rng) > 1e-3


def test_a_search_that_is_cut_short_says_so():
    system = random_system(network((2, 1, 1), (0, 0, 0, 1)), samples=2)
    found = critical_points(system, most_paths=3, exact=False)
    assert [s.status for s in found.strata] == ["zero", "limit"]
    assert "trace test not passed in 1 of them" in found.method and not found.complete
    assert 1 < len(found.complex_points) < 73 == len(critical_points(system).complex_points)


def test_supports_are_the_sets_of_units_that_are_on():
    def sets(net, samples):
        system = random_system(net, samples=samples, gauge=False)
        return [switched_on(net, support) for support in supports(system)]

    assert sets(network((2, 2, 2), (0, 1)), 1) == [((),), ((0,),), ((1,),), ((0, 1),)]
    assert len(sets(network((2, 4, 1), (0, 0, 0, 1), bias=True), 3)) == 2**4
    # Two linear layers: none, or some of both; with biases the second can do without the first.
    assert len(sets(network((1, 2, 2, 1), (0, 1)), 1)) == 1 + 3 * 3
    assert len(sets(network((1, 2, 2, 1), (0, 0, 1), bias=True), 2)) == 4 + 3 * 3


def test_weights_that_no_sample_reads_are_zero():
    inputs = np.array([[1.0, 0.0], [2.0, 0.0]])
    system = zero_system(network((2, 1, 1), (0, 1, 1)), inputs, [1.0, -0.5])
    assert [s.tolist() for s in supports(system)] == [[False] * 3, [True, False, True]]
    found = critical_points(system, exact=False)
    assert (found.complex_points[:, 1] == 0).all()
    assert len(found.complex_points) == len(
        critical_points(system, solver="homotopy", exact=False).complex_points
    )


def test_too_many_sets_of_zeros_are_refused(monkeypatch):
    monkeypatch.setattr("thalweg.algebra.supports.MOST_CASES", 10)
    with pytest.raises(SystemTooLarge, match="fewer hidden units"):
        critical_points(linear((1, 4, 1)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "newton"}, "expected 'monodromy' or 'homotopy'"),
        ({"solver": "monodromy", "penalty": 0.0}, "asks for positive ones"),
        ({"solver": "monodromy", "penalty": [0.1, 0.0]}, "asks for positive ones"),
    ],
)
def test_solvers_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InvalidArgument, match=words):
        critical_points(linear((1, 1, 1)), **options)


def test_points_are_classified_as_by_hand():
    # (a w - 1)**2 / 2 + (a**2 + w**2) / 8: a = w = 0, a saddle; a w = 3/4 with a = w, minima.
    system = zero_system(network((1, 1, 1), (0, 1)), [[1.0]], [1.0])
    found = critical_points(system, penalty=0.25)
    values = [(p.value, p.index, p.nullity) for p in found.real_points]
    root = np.sqrt(0.75)
    assert [p.nullity for p in found.real_points] == [0, 0, 0]
    assert values[0] == pytest.approx((1 / 32 + 3 / 16, 0, 0))
    assert values[2] == pytest.approx((1 / 2, 1, 0))
    assert sorted(p.weights[0] for p in found.real_points) == pytest.approx([-root, 0, root])


@pytest.mark.parametrize("seed", range(3))
def test_real_points_are_critical(seed):
    system = random_system(network((1, 1, 1), (0, 1, 1), bias=True), samples=3, seed=seed)
    found = critical_points(system, seed=seed)
    assert found.real_points
    for point in found.real_points:
        assert point.gradient < 1e-10
        assert point.nullity == 0
        assert point.index == (point.eigenvalues < 0).sum()


def test_a_uniform_penalty_leaves_rotations():
    system = random_system(network((1, 2, 1), (0, 1)), samples=1)
    found = critical_points(system, penalty=0.01)
    kinds = [(p.index, p.nullity, p.nullity_symmetry) for p in found.real_points]
    assert kinds == [(0, 1, 1), (2, 0, 0)]
    assert not found.complete


def test_the_cube_is_flat_at_zero():
    """Nonzero loss and a zero Hessian: nullity that neither symmetry nor dead inputs explain."""
    system = zero_system(network((1, 1, 1), (0, 0, 0, 1)), [[1.0]], [1.0])
    found = critical_points(system, penalty=0.0)
    flat = [p for p in found.real_points if p.value == pytest.approx(0.5)]
    assert [(p.nullity, p.nullity_symmetry, p.nullity_unexplained) for p in flat] == [(2, 1, 1)]


def test_a_quadratic_unit_has_a_line_of_minima():
    """One sample, two inputs: nonzero minima along the dead direction."""
    unit = zero_system(network((2, 1, 1), (0, 0, 1)), [[1.0, 1.0]], [-1.0])
    for place in (0.0, 0.5, 2.0):
        point = classify(unit, [place, -place, 1.0])
        assert (point.value, point.index, point.nullity_unexplained) == (0.5, 0, 0)
        assert point.nullity_dead == 1
    found = critical_points(unit, penalty=0.0)
    assert found.singular > 0
    assert all(p.nullity_unexplained == 0 for p in found.real_points)


def test_dead_inputs_add_nullity():
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.normal(size=(4, 1)), np.zeros((4, 2))], axis=1)
    system = zero_system(network((3, 1, 1), (0, 1, 1)), inputs, rng.normal(size=4))
    weights = np.array([0.0, 0.4, -0.2, 0.0])
    assert classify(system, weights).nullity_dead == 2
    assert classify(system, weights, penalty=0.1).nullity_dead == 0
    assert classify(system, weights, penalty=[0.1, 0.0, 0.1, 0.1]).nullity_dead == 1


@pytest.mark.parametrize("activation", [(0, 1), (0, 0, 1), (0, 0, 0, 1)])
def test_symmetry_directions_are_null_where_the_error_is_zero(activation):
    net = network((2, 3, 1), activation, bias=True)
    rng = np.random.default_rng(1)
    weights, inputs = rng.normal(size=net.size), rng.normal(size=(20, 2))
    system = zero_system(net, inputs, net.predict(weights[None], inputs)[0])
    point = classify(system, weights)
    assert point.nullity == point.nullity_symmetry > 0
    assert (point.nullity_dead, point.nullity_unexplained, point.index) == (0, 0, 0)
    assert point.gap > 1e4


def test_too_many_paths_are_refused_before_anything_is_written():
    system = random_system(network((2, 3, 1), (0, 0, 0, 1), bias=True), samples=9)
    with pytest.raises(SystemTooLarge, match=r"12 equations of degree up to 7.*paths"):
        critical_points(system, solver="homotopy")


@pytest.mark.parametrize("penalty", ["strong", -1.0, float("nan"), [1.0, 2.0, 3.0]])
def test_wrong_penalties_are_refused(penalty):
    with pytest.raises(InvalidArgument, match="'generic'"):
        critical_points(linear((1, 1, 1)), penalty=penalty)


def test_the_picture_shows_value_against_index():
    system = zero_system(network((1, 1, 1), (0, 1)), [[1.0]], [1.0])
    found = critical_points(system, penalty=0.25)
    ax = plot_critical_points(found)
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(sorted(drawn[:, 1]), sorted(p.value for p in found.real_points))
    assert "index" in ax.get_xlabel()
    plt.close(ax.figure)
