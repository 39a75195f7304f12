"""Pictures of surfaces and spectra, through what they draw."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from made_surfaces import made_density, made_eigenvalues, made_points, made_surface
from made_trajectories import HOSTILE
from thalweg.errors import InvalidArgument
from thalweg.plots import (
    plot_contour,
    plot_density,
    plot_profile,
    plot_surface,
    surface_figure,
)
from thalweg.plots.density import single_bump
from thalweg.plots.grids import heights, what_is_off
from thalweg.plots.palette import COLORS


def drawn_axes(dims=2):
    return Figure().add_subplot(projection="3d" if dims == 3 else None)


@pytest.mark.parametrize("variable", ["loss", "test_error", "loss_stderr"])
def test_every_cell_has_the_colour_of_its_value(variable):
    surface = made_surface(stderr=0.3)
    ax = plot_contour(surface, variable=variable, ax=drawn_axes())
    mesh = ax.collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan)
    wanted = np.where(np.isfinite(surface[variable]), surface[variable], np.nan)
    np.testing.assert_allclose(shown, wanted.T)
    assert mesh.get_array().mask.sum() == 2


def test_rows_are_y_and_columns_are_x():
    surface = made_surface(holes=False)
    corner = surface["loss"].copy()
    corner[4, 0] = 1e3  # x = 1, y = -2
    ax = plot_contour(surface.assign(loss=corner), ax=drawn_axes())
    mesh = ax.collections[0]
    row, column = np.unravel_index(np.argmax(mesh.get_array()), mesh.get_array().shape)
    assert (row, column) == (0, 4)
    assert ax.get_xlabel() == "x (weight units)"
    assert ax.get_ylabel() == "y (1 is 12.5 weight units)"


def test_a_trajectory_is_a_line_from_ring_to_square_and_the_view_is_that_of_the_grid():
    points = made_points()
    ax = plot_contour(made_surface(), points=points, ax=drawn_axes())
    np.testing.assert_array_equal(
        np.transpose(ax.lines[0].get_data()), points["position"].values[:3]
    )
    ends = [c.get_offsets() for c in ax.collections[-2:]]
    np.testing.assert_array_equal(np.concatenate(ends), points["position"].values[[0, 2]])
    (alone,) = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(np.ravel(alone.get_data()), points["position"].values[3])
    assert [text.get_text() for text in ax.texts if "another" in text.get_text()]
    assert ax.get_xlim() == (-1.25, 1.25) and ax.get_ylim() == (-2.5, 1.5)
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("draw", "dims"), [(plot_profile, 1), (plot_contour, 2), (plot_surface, 3)]
)
def test_each_of_several_points_has_a_mark_a_colour_and_a_name(draw, dims):
    surface, points = made_surface(), made_points().isel(point=[3, 0, 1])
    points = points.assign_coords(
        trajectory=("point", ["", "", ""]), name=("point", ["a", "b", "c"])
    )
    if dims == 1:
        surface = surface.isel(y=2, drop=True)
        points = points.isel(axis=[0])
    ax = draw(surface, points=points, ax=drawn_axes(dims))
    legend = ax.get_legend()
    entries = {
        text.get_text(): line
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
        if text.get_text() in ("a", "b", "c")
    }
    assert list(entries) == ["a", "b", "c"]
    assert len({line.get_marker() for line in entries.values()}) == 3
    colors = {line.get_markerfacecolor() for line in entries.values()}
    assert len(colors) == 3 and colors <= set(COLORS)  # Okabe and Ito's, told apart by all
    drawn = [line.get_marker() for line in ax.lines if line.get_markerfacecolor() in colors]
    assert set(drawn) - {"None"} == {line.get_marker() for line in entries.values()}
    ax.figure.draw_without_rendering()


def test_several_points_on_screen_have_marks_and_names_of_their_own():
    points = made_points().isel(point=[3, 0]).assign_coords(trajectory=("point", ["", ""]))
    points = points.assign_coords(name=("point", ["a", "b"]))
    named = {t.name: t for t in surface_figure(made_surface(), points=points).data}
    marks = [(named[name].marker.symbol, named[name].marker.color) for name in "ab"]
    assert marks[0][0] != marks[1][0] and marks[0][1] != marks[1][1]


def test_what_lies_off_the_plane_or_outside_is_written_above():
    surface, points = made_surface(), made_points()
    points["position"].values[1] = [1.5, 0.0]
    name = points["trajectory"].values[0]
    words = f"{name}: 1 of 3 checkpoints outside, up to 0.7 weight units off the plane"
    assert what_is_off(surface, points) == f"{words}\noutside: another"
    for draw, dims in ((plot_contour, 2), (plot_surface, 3)):
        ax = draw(surface, points=points, ax=drawn_axes(dims))
        title = ax.get_title(loc="left")
        assert "1 of 3 checkpoints outside" in title and "outside: another" in title
        ax.figure.draw_without_rendering()


def test_nothing_is_written_above_where_all_is_shown():
    points = made_points().isel(point=[0, 1, 2]).drop_vars("distance")
    assert what_is_off(made_surface(), points) == "" == what_is_off(made_surface(), None)
    assert plot_contour(made_surface(), points=points, ax=drawn_axes()).get_title("left") == ""


def test_a_path_is_hung_up_to_a_width_beyond_the_sheet():
    surface, points = made_surface(), made_points()
    points["position"].values[:2] = [[2.9, 0.0], [3.1, 0.0]]
    (x, _, _) = plot_surface(surface, points=points, ax=drawn_axes(3)).lines[0].get_data_3d()
    np.testing.assert_array_equal(x, [2.9, np.nan, 0.0])
    np.testing.assert_array_equal(surface_figure(surface, points=points).data[1].x, x)


def test_names_of_points_at_one_height_do_not_cover_one_another():
    points = made_points().isel(point=[3, 3])
    points["position"].values[:] = [[0.0, 0.0], [0.1, 0.0]]
    ax = plot_contour(made_surface(), points=points, ax=drawn_axes())
    ax.figure.draw_without_rendering()
    one, other = (text.get_window_extent() for text in ax.texts if "another" in text.get_text())
    assert not one.overlaps(other)


def test_heights_are_logarithms_of_losses_and_holes_stay_holes():
    surface, points = made_surface(), made_points()
    ax = plot_surface(surface, points=points, ax=drawn_axes(3))
    figure = surface_figure(surface, points=points)
    sheet = figure.data[0]
    wanted = np.log10(np.where(np.isfinite(surface["loss"]), surface["loss"], np.nan))
    np.testing.assert_allclose(np.array(sheet.z, dtype=float), wanted.T)
    np.testing.assert_array_equal(sheet.x, surface["x"].values)
    for drawn in (ax.lines[0].get_data_3d()[2], figure.data[1].z):
        np.testing.assert_allclose(drawn, np.log10(points["loss"].values[:3]))
    assert figure.data[1].name == HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    assert ax.get_zlabel() == "training loss (mean per sample)"
    ax.figure.draw_without_rendering()


def test_every_cell_with_a_standard_error_has_a_bar_of_two():
    surface = made_surface(stderr=0.1)
    bars = surface_figure(surface).data[1]
    loss = surface["loss"].values
    low, high, gap = np.array(bars.z, dtype=float).reshape(*loss.shape, 3).transpose(2, 0, 1)
    finite = np.isfinite(loss)
    np.testing.assert_allclose(high[finite], np.log10(loss[finite] + 0.196))
    floor = loss[finite].min()
    np.testing.assert_allclose(low[finite], np.log10(np.maximum(loss[finite] - 0.196, floor)))
    assert np.isnan(gap).all() and np.isnan(high[~finite]).all()
    assert np.array(bars.x).reshape(*loss.shape, 3)[2, 1, 0] == surface["x"].values[2]
    assert len(surface_figure(made_surface()).data) == 1  # no bars without standard errors


def test_shells_hold_every_cell_of_a_space():
    surface = made_surface(3)
    shells = surface_figure(surface, points=made_points(3)).data[0]
    at = surface["loss"].values[1, 2, 0]
    cell = np.ravel_multi_index((1, 2, 0), surface["loss"].shape)
    assert shells.value[cell] == pytest.approx(np.log10(at))
    assert (shells.x[cell], shells.y[cell], shells.z[cell]) == (-0.5, 0.0, 0.0)
    assert np.isnan(shells.value[0])


def test_a_profile_has_training_test_and_bands_of_two_standard_errors():
    surface = made_surface(1, stderr=0.1)
    ax = plot_profile(surface, points=made_points(1), ax=drawn_axes())
    train, test = (line.get_ydata() for line in ax.lines[:2])
    finite = surface["finite"].values
    np.testing.assert_allclose(train[finite], surface["loss"].values[finite])
    np.testing.assert_allclose(test[finite], surface["test_loss"].values[finite])
    assert np.isnan(train[~finite]).all()
    band = ax.collections[0].get_datalim(ax.transData)
    highest = surface["loss"].values[finite].max()
    assert band.y1 == pytest.approx(highest + 0.196)
    assert len(ax.patches) == 2  # the strips where the loss is not finite
    assert ax.get_yscale() == "log"
    exact = plot_profile(made_surface(1), quantity="error", ax=drawn_axes())
    assert not exact.collections


def test_a_density_is_drawn_with_its_band_and_marks():
    density, found = made_density(), made_eigenvalues()
    ax = plot_density(density, eigenvalues=found, ax=drawn_axes())
    line = ax.lines[0].get_ydata()
    shown = ~np.isnan(line)
    np.testing.assert_allclose(line[shown], density["density"].values[shown])
    assert (density["density"].values[~shown] < 0.06 * single_bump(density)).all()
    assert ax.get_yscale() == "log"
    # One eigenvalue in 1,000 by itself: its bump is as high as the line that stands for one.
    at = int(np.abs(density["eigenvalue"].values - 5).argmin())
    assert line[at] == pytest.approx(single_bump(density), rel=0.05)
    marks = ax.containers[0]
    np.testing.assert_array_equal(marks.lines[0].get_xdata(), [5.0, 2.0])
    reach = [segment[:, 0].tolist() for segment in marks.lines[2][0].get_segments()]
    assert reach == [[5 - 1e-6, 5 + 1e-6], [1.99, 2.01]]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1.0, 100.0], True), ([0.0, 1.0], True), ([-1.0, 1.0], False), ([2.0, 3.0], False)],
)
def test_the_scale_follows_the_losses(values, logarithmic):
    surface = made_surface(1).isel(x=[0, 1]).assign(loss=("x", values))
    scale = heights(surface)
    assert (scale.log is not None) == logarithmic
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())
    assert len(scale.ticks()) >= 2


def test_a_constant_surface_is_drawn():
    flat = made_surface(holes=False)
    flat = flat.assign(loss=flat["loss"] * 0 + 0.5, error=flat["error"] * 0)
    for variable in ("loss", "error"):
        plot_contour(flat, variable=variable, ax=drawn_axes()).figure.draw_without_rendering()
    plot_surface(flat, ax=drawn_axes(3)).figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plot_contour(made_surface(1), ax=drawn_axes()), "plot_profile"),
        (lambda: plot_profile(made_surface(2), ax=drawn_axes()), "plot_contour"),
        (lambda: plot_surface(made_surface(3), ax=drawn_axes(3)), "isel"),
        (lambda: surface_figure(made_surface(1)), "plot_profile"),
        (lambda: plot_contour(made_surface(), variable="risk", ax=drawn_axes()), "expected one of"),
        (lambda: plot_profile(made_surface(1), quantity="x", ax=drawn_axes()), "loss, error"),
        (
            lambda: plot_contour(made_surface() * np.nan, ax=drawn_axes()),
            "none of the 20 values of 'loss' is finite",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, words):
    with pytest.raises(InvalidArgument, match=words):
        draw()
