"""Pictures of solutions: every point where its numbers say, the loss where it is evaluated."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from thalweg.plots import plot_complex_solutions, plot_zero_set


@pytest.fixture
def axes():
    """Axes that are closed after the test."""
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_complex_solutions_lie_where_their_parts_say(axes):
    solutions = xr.Dataset(
        {
            "real_part": (("solution", "weight"), [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]),
            "imaginary_part": (("solution", "weight"), [[0.0, 0.5], [1.0, -0.5], [-1.0, 0.0]]),
            "real": ("solution", [1.0, 0.0, 0.0]),
        }
    )
    plot_complex_solutions(solutions, weight=1, ax=axes)
    drawn = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert drawn == {
        "complex in every form": [[5.0, -0.5], [6.0, 0.0]],
        "equivalent to a real solution": [[4.0, 0.5]],
    }
    assert axes.get_xlabel() == "real part of weight 2"


def test_the_first_weight_runs_to_the_right(axes):
    first, second = np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)
    loss = np.broadcast_to((first[:, None] + 1.0) ** 2, (5, 5))
    surface = xr.Dataset(
        {
            "loss": (("first", "second"), loss),
            "curve": (("step", "weight"), [[-1.0, -1.0], [-1.0, 1.0]]),
        },
        coords={"first": first, "second": second},
    )
    plot_zero_set(surface, ax=axes)
    (curve,) = axes.lines
    np.testing.assert_array_equal(curve.get_xdata(), [-1.0, -1.0])
    np.testing.assert_array_equal(curve.get_ydata(), [-1.0, 1.0])
    (contours,) = axes.collections
    lowest = np.concatenate([path.vertices for path in contours.get_paths()[:1]])
    assert lowest[:, 0].max() < 0
    assert axes.get_xlim() == (-1.0, 1.0)
