"""Plots of lines, bands and matrices draw the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from thalweg.errors import InvalidArgument
from thalweg.plots import plot_bands, plot_line, plot_lines, plot_matrix

T = np.linspace(0, 1, 3)


def axes():
    return Figure().add_subplot()


def test_a_line_is_drawn_with_its_band_and_chord():
    data = xr.Dataset(
        {"loss": ("t", [0.1, 0.5, 0.2]), "loss_stderr": ("t", [0.0, 0.1, 0.0])}, coords={"t": T}
    )
    ax = plot_line(data, ax=axes())
    curve, chord = ax.lines
    assert curve.get_ydata().tolist() == [0.1, 0.5, 0.2]
    assert chord.get_ydata().tolist() == [0.1, 0.2]
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(0.5 + 0.196) and "loss" in ax.get_ylabel()
    with pytest.raises(InvalidArgument, match="write one of loss"):
        plot_line(data, variable="error", ax=axes())


def test_each_group_of_lines_is_named_once():
    values = np.arange(9.0).reshape(3, 3)
    data = xr.Dataset(
        {"loss": (("pair", "t"), values), "loss_stderr": (("pair", "t"), 0 * values)},
        coords={"t": T, "group": ("pair", ["a", "a", "b"])},
    )
    ax = plot_lines(data, ax=axes())
    assert [line.get_ydata().tolist() for line in ax.lines] == values.tolist()
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]
    assert ax.lines[0].get_color() == ax.lines[1].get_color() != ax.lines[2].get_color()


def test_a_band_is_the_range_of_its_group_and_its_line_the_mean():
    data = xr.Dataset(
        {"home": ("record", [1.0, 2.0, 3.0, 4.0, 9.0])},
        coords={
            "epoch": ("record", [0.0, 1.0, 0.0, 1.0, 0.0]),
            "group": ("record", ["a", "a", "a", "a", "b"]),
        },
    )
    ax = plot_bands(data, variable="home", styles={"a": {"color": "k"}}, ax=axes())
    assert [line.get_ydata().tolist() for line in ax.lines] == [[2.0, 3.0]]
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 1.0 and corners[:, 1].max() == 4.0
    with pytest.raises(InvalidArgument, match="the data have home"):
        plot_bands(data, variable="loss", styles={}, ax=axes())


def test_a_matrix_is_drawn_and_equal_labels_are_blocks():
    matrix = np.arange(9.0).reshape(3, 3)
    ax = plot_matrix(matrix, labels=["a", "a", "b"], title="distance", ax=axes())
    assert np.array_equal(ax.images[0].get_array(), matrix)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_yticks().tolist() == [0.5, 2.0]
    with pytest.raises(InvalidArgument, match="expected"):
        plot_matrix(matrix, labels=["a"], title="distance", ax=axes())
