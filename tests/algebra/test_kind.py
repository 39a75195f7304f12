"""The kind of a critical point, where the Hessian tells it and where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.algebra import classify, critical_points, network, zero_system
from thalweg.algebra.kind import kind_of


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (lambda w: w[:, 0] ** 3 + w[:, 1] ** 2, "saddle"),
        (lambda w: -(w[:, 0] ** 4) + w[:, 1] ** 2, "saddle"),
        (lambda w: w[:, 0] ** 4 + w[:, 1] ** 2, "undetermined"),
        (lambda w: w[:, 0] ** 4 - w[:, 0] ** 3 + w[:, 1] ** 2, "saddle"),
    ],
)
def test_a_flat_point_is_looked_at_along_its_null_space(loss, kind):
    flat = np.array([[1.0], [0.0]])
    found = kind_of(loss, 4, np.zeros(2), index=0, positive=1, unexplained=flat)
    assert found == kind


@pytest.mark.parametrize(
    ("index", "positive", "kind"), [(0, 2, "minimum"), (2, 0, "maximum"), (1, 1, "saddle")]
)
def test_the_signs_decide_where_nothing_is_flat(index, positive, kind):
    nothing = np.zeros((2, 0))
    found = kind_of(
        lambda w: w[:, 0], 2, np.zeros(2), index=index, positive=positive, unexplained=nothing
    )
    assert found == kind


def test_the_cube_of_one_weight():
    # (a w**3 - 1)**2 / 2: at w = 0 the loss falls in one direction; at w = 1 it is zero.
    system = zero_system(network((1, 1, 1), (0, 0, 0, 1)), [[1.0]], [1.0])
    kinds = {round(p.value, 6): p.kind for p in critical_points(system, penalty=0.0).real_points}
    assert kinds == {0.0: "minimum", 0.5: "saddle"}


def test_a_dead_direction_leaves_a_minimum():
    unit = zero_system(network((2, 1, 1), (0, 0, 1)), [[1.0, 1.0]], [-1.0])
    assert classify(unit, [0.5, -0.5, 1.0]).kind == "minimum"


def test_a_square_between_its_minima_is_a_maximum():
    # (w**2 - 1)**2 / 2, in the gauge: at w = 0 there is no positive eigenvalue.
    system = zero_system(network((1, 1, 1), (0, 0, 1)), [[1.0]], [1.0])
    top = max(critical_points(system, penalty=0.0).real_points, key=lambda p: p.value)
    assert (top.value, top.kind) == (0.5, "maximum")
