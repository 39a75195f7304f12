from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from thalweg.cli.algebra import app
from thalweg.errors import NotPolynomial, SystemTooLarge

CUBE = ["--widths", "2,2,1", "--activation", "0,0,0,1", "--bias", "--samples", "6", "--seed", "0"]
LARGE = ["--widths", "2,3,1", "--activation", "0,0,0,1", "--samples", "9"]
LINEAR = ["--widths", "3,1,1", "--activation", "0,1", "--samples", "1"]


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_count_answers_with_one_object():
    answer = json.loads(run("count", *CUBE, "--json").stdout)
    assert (answer["bezout"], answer["solutions_complex"], answer["symmetry_order"]) == (
        729,
        270,
        18,
    )


def test_solve_adds_the_solutions():
    answer = json.loads(run("solve", *CUBE, "--no-exact", "--json").stdout)
    solutions = answer["solutions"]
    assert len(solutions) == answer["solutions_modulo_symmetry"] == 15
    assert sum(s["real"] for s in solutions) == answer["real"] == len(answer["real_solutions"])
    assert max(s["residual"] for s in solutions) < 1e-12
    assert len(solutions[0]["weights"]) == 6


def test_solve_gives_real_points_of_a_curve():
    curve = ["--widths", "1,2,1", "--activation", "0,0,0,1", "--samples", "1"]
    answer = json.loads(run("solve", *curve, "--no-exact", "--json").stdout)
    assert (answer["dimension"], answer["degree"], answer["solutions_complex"]) == (1, 3, None)
    assert (answer["real"], len(answer["real_solutions"])) == (None, 10)


@pytest.mark.parametrize(("penalty", "real"), [("generic", 1), ("0.01", 3)])
def test_critical_classifies(penalty, real):
    answer = json.loads(run("critical", *LINEAR, "--penalty", penalty, "--json").stdout)
    assert answer["critical_complex"] == 5
    assert answer["critical_real"] == len(answer["critical_points"]) == real
    assert {"value", "index", "nullity", "nullity_symmetry", "nullity_dead"} <= set(
        answer["critical_points"][0]
    )


@pytest.mark.parametrize("command", ["count", "solve", "critical"])
def test_people_get_a_table(command):
    words = run(command, *LINEAR, "--no-exact").stdout
    assert "complete" in words
    assert "{" not in words


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["count", "--widths", "2,3,1", "--activation", "relu", "--samples", "9"], NotPolynomial),
        (
            ["critical", "--solver", "homotopy", *LARGE],
            SystemTooLarge,
        ),
    ],
)
def test_bad_input_raises_our_errors(arguments, error):
    with pytest.raises(error):
        run(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["count", "--widths", "a,b", "--activation", "0,1", "--samples", "1"],
        ["critical", *LINEAR, "--penalty", "strong"],
    ],
)
def test_wrong_usage_exits_with_two(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "expected" in result.stderr
