from __future__ import annotations

import json

import pytest

from thalweg.algebra import count, find_msolve, network, random_system
from thalweg.algebra.mixed_volume import mixed_volume

KEYS = {
    "weights",
    "equations",
    "bezout",
    "multihomogeneous",
    "generic_rank",
    "dimension",
    "degree",
    "solutions_complex",
    "solutions_modulo_symmetry",
    "symmetry_order",
    "complete",
    "method",
}
FIGURES = [
    # z**3, three units, inputs in the plane: 648 solutions of a Bezout-19683 system.
    (
        ((2, 3, 1), (0, 0, 0, 1), 9),
        {
            "weights": 9,
            "equations": 9,
            "bezout": 19683,
            "multihomogeneous": 19683,
            "generic_rank": 9,
            "dimension": 0,
            "degree": 648,
            "solutions_complex": 648,
            "solutions_modulo_symmetry": 4,
            "symmetry_order": 162,
        },
    ),
    # Two units: mixed volume and m-homogeneous bound equal Bezout's number, the count is far less.
    (
        ((2, 2, 1), (0, 0, 0, 1), 6),
        {
            "weights": 6,
            "bezout": 729,
            "multihomogeneous": 729,
            "mixed_volume": 729,
            "solutions_complex": 270,
            "solutions_modulo_symmetry": 15,
            "symmetry_order": 18,
        },
    ),
    # z**2: more weights than samples, and yet no solution.
    (
        ((2, 3, 1), (0, 0, 1), 7),
        {
            "weights": 9,
            "equations": 7,
            "generic_rank": 6,
            "dimension": None,
            "degree": None,
            "solutions_complex": 0,
        },
    ),
    (
        ((2, 3, 1), (0, 0, 1), 6),
        {
            "generic_rank": 6,
            "largest_samples": 6,
            "dimension": 3,
            "degree": 16,
            "solutions_complex": None,
            "continuous_symmetry": 3,
        },
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), FIGURES)
@pytest.mark.parametrize(
    "exact",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(find_msolve() is None, reason="msolve is not installed")
        ),
    ],
)
def test_known_counts(arguments, expected, exact):
    widths, activation, samples = arguments
    system = random_system(network(widths, activation, bias=True), samples=samples)
    found = count(system, exact=exact).to_dict()
    assert {key: found[key] for key in expected} == expected
    assert found["complete"] is exact
    assert set(found) >= KEYS
    assert json.loads(json.dumps(found)) == found


def test_large_networks_get_their_bounds():
    system = random_system(network((20, 10, 1), (0, 0, 0, 1)), samples=200)
    found = count(system)
    answer = found.to_dict()
    assert (found.status, found.complete) == ("bounds", False)
    assert found.bezout.value == found.multihomogeneous == 3**200
    assert found.dimension == 0
    assert found.generic_rank == 200
    assert answer["solutions_complex"] is None
    assert answer["bezout"] == 3**200


def test_numbers_too_long_to_print_come_in_closed_form():
    system = random_system(network((100, 100, 1), (0, 0, 0, 1)), samples=5000)
    answer = count(system).to_dict()
    assert answer["bezout"] == "3^5000"
    assert answer["bezout_log10"] == pytest.approx(2385.606, abs=1e-3)
    assert answer["generic_rank"] is None
    json.dumps(answer)


def test_two_layers_make_a_multihomogeneous_bound():
    # One weight of degree 1 and two of degree 2: 3!/(1! 2!) 2**2 = 12 choices, against 3**3.
    system = random_system(network((1, 1, 1), (0, 1, 1), bias=True), samples=3)
    found = count(system, exact=False)
    assert (found.bezout.value, found.multihomogeneous) == (27, 12)


def test_the_mixed_volume_of_a_polytope_that_is_no_simplex():
    system = random_system(network((1, 1, 1), (0, 0, 1, 1)), samples=2)
    # a w**2 and a w**3: no constant but the target; the triangle (0,0) (1,2) (1,3) has area 1/2.
    assert mixed_volume(system.explicit) == 1
    assert count(system, exact=False).solutions_complex == 1
