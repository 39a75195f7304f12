from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from made_trajectories import HOSTILE, LAYERS, made_curves, made_embedding
from thalweg.errors import InvalidArgument
from thalweg.plots import (
    curves_figure,
    embedding_figure,
    height_figure,
    plot_curves,
    plot_embedding,
    plot_fidelity,
    plot_height,
    plot_stress,
)
from thalweg.plots.interactive.style import log_ticks
from thalweg.plots.legend import add_legend
from thalweg.plots.logscale import log_scale
from thalweg.plots.palette import trajectories


def drawn_axes(dims=3):
    return Figure().add_subplot(projection="3d" if dims == 3 else None)


def path(embedding, name, layer):
    """The trajectory's positions in the order of its steps, by another way than the plots'."""
    rows = [i for i, one in enumerate(embedding["trajectory"].values) if one == name]
    rows.sort(key=lambda i: embedding["step"].values[i])
    return embedding["position"].sel(layer=layer).values[rows]


def test_trunks_come_before_their_branches_in_their_colour():
    data = made_embedding(names=("seed0-early-0", "seed0", "seed1"))
    found = {one.name: one for one in trajectories(data, "checkpoint")}
    assert list(found) == ["seed0", "seed0-early-0", "seed1"]
    assert found["seed0"].color == found["seed0-early-0"].color != found["seed1"].color
    assert found["seed0"].style == found["seed1"].style != found["seed0-early-0"].style
    assert found["seed0-early-0"].points.tolist() == [3, 2, 1, 0]
    assert found["seed0-early-0"].group == "seed0, early branches"


def test_a_ring_of_parents_ends():
    data = made_embedding(names=("a", "b"), parent=["b"] * 4 + ["a"] * 4)
    assert {one.name for one in trajectories(data, "checkpoint")} == {"a", "b"}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layer", LAYERS)
def test_plot_embedding_draws_the_positions_given(layer, dims):
    embedding = made_embedding()
    ax = plot_embedding(embedding, layer=layer, ax=drawn_axes(dims))
    read = (lambda line: line.get_data_3d()) if dims == 3 else (lambda line: line.get_data())
    lines = [np.transpose(read(line)) for line in ax.lines]
    wanted = [
        path(embedding, one.name, layer)[:, :dims] for one in trajectories(embedding, "checkpoint")
    ]
    assert len(lines) == len(wanted) == 3
    for line, points in zip(lines, wanted, strict=True):
        np.testing.assert_array_equal(line, points)


def test_colour_is_the_loss_raised_to_the_floor_and_grey_where_unknown():
    loss = np.linspace(2, 1, 12)
    loss[[0, 5]] = np.nan, 0.0
    embedding = made_embedding(loss=loss)
    ax = plot_embedding(embedding, ax=drawn_axes(2))
    given = [c.get_array() for c in ax.collections if c.get_array() is not None]
    shown = np.ma.concatenate(given).filled(np.nan)
    order = np.concatenate([one.points for one in trajectories(embedding, "checkpoint")])
    np.testing.assert_array_equal(shown, np.where(loss == 0, 1.0, loss)[order])


def test_plot_height_is_the_logarithm_of_the_loss():
    embedding = made_embedding()
    ax = plot_height(embedding, ax=drawn_axes())
    heights = np.concatenate([line.get_data_3d()[2] for line in ax.lines])
    order = np.concatenate([one.points for one in trajectories(embedding, "checkpoint")])
    loss = embedding["loss"].values[order]
    np.testing.assert_allclose(10**heights, np.where(loss == 0, loss[loss > 0].min(), loss))


@pytest.mark.parametrize("variable", ["loss", "error", "test_loss", "test_error"])
def test_plot_curves_draws_what_was_measured(variable):
    curves = made_curves()
    ax = plot_curves(curves, variable=variable, ax=drawn_axes(2))
    values = curves[variable].values
    floor = values[values > 0].min() if variable.endswith("loss") else 0
    for line, one in zip(ax.lines, trajectories(curves, "record"), strict=True):
        rows = [i for i in one.points if not np.isnan(values[i])]
        np.testing.assert_array_equal(line.get_xdata(), curves["epoch"].values[rows])
        np.testing.assert_array_equal(line.get_ydata(), np.maximum(values[rows], floor))
    assert ax.get_yscale() == ("log" if variable.endswith("loss") else "linear")


def test_stress_and_fidelity_are_drawn_as_given():
    embedding = made_embedding()
    widths = [bar.get_width() for bar in plot_stress(embedding, ax=drawn_axes(2)).patches]
    assert widths == [0.01, 0.3, 0.0]  # the infinite one has a label and no bar
    ax = plot_fidelity(embedding, ax=drawn_axes(2))
    for line, values in zip(ax.lines, embedding["fidelity"].values, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), values)
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), np.median(embedding["fidelity"], axis=1))


def test_hostile_names_are_drawn_as_they_are():
    figure = Figure()
    embedding = made_embedding(names=(HOSTILE, "_hidden", "$"))
    ax = plot_embedding(embedding, ax=figure.add_subplot())
    add_legend(ax, trajectories(embedding, "checkpoint"), ends=True)
    figure.draw_without_rendering()
    labels = [text.get_text().strip() for text in ax.get_legend().get_texts()]
    assert [label.replace(r"\$", "$") for label in labels] == [
        HOSTILE,
        "_hidden",
        "$",
        "start",
        "end",
    ]


def test_embedding_figure_holds_every_layer():
    embedding = made_embedding()
    figure = embedding_figure(embedding)
    shown = trajectories(embedding, "checkpoint")
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == LAYERS
    for (number, one), axis in itertools.product(enumerate(shown), range(3)):
        np.testing.assert_array_equal(
            figure.data[number]["xyz"[axis]], path(embedding, one.name, "network")[:, axis]
        )
        for button in buttons:
            wanted = path(embedding, one.name, button.label)[:, axis]
            np.testing.assert_array_equal(button.args[0]["xyz"[axis]][number], wanted)
    listed = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert listed[:4] == ["start", "end", "seed0", "seed0, early branches"]


def test_figures_escape_hostile_names():
    page = embedding_figure(made_embedding()).to_html(include_plotlyjs=False, full_html=False)
    assert "<script>alert" not in page
    names = [trace.name for trace in curves_figure(made_curves()).data]
    assert not any("<" in name for name in names)


def test_height_figure_and_curves_figure_show_the_data():
    embedding, curves = made_embedding(), made_curves()
    trace = height_figure(embedding, layer="conv").data[0]
    np.testing.assert_array_equal(trace.x, path(embedding, "seed0", "conv")[:, 0])
    np.testing.assert_allclose(10 ** np.array(trace.z), embedding["loss"].values[:4][::-1])
    lines = curves_figure(curves).data
    assert len(lines) == 4 * 3
    np.testing.assert_array_equal(lines[0].y, curves["loss"].values[:4][::-1])
    assert len(curves_figure(curves.drop_vars(["test_loss", "test_error"])).data) == 2 * 3


def test_points_without_trajectories_or_losses_are_drawn():
    bare = made_embedding().drop_vars(["trajectory", "parent", "moment", "step", "loss"])
    ax = plot_embedding(bare, ax=drawn_axes())
    assert not ax.lines
    assert len(embedding_figure(bare).data) == 1
    with pytest.raises(InvalidArgument, match="without losses"):
        plot_height(bare, ax=drawn_axes())


def test_one_dimension_is_drawn_on_a_line():
    flat = made_embedding().isel(dim=[0])
    ax = plot_embedding(flat, ax=drawn_axes())
    assert np.ptp([line.get_data_3d()[1] for line in ax.lines]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot_embedding(made_embedding(), layer="nose", ax=drawn_axes()),
            "network, conv, head",
        ),
        (lambda: plot_curves(made_curves(), variable="nose", ax=drawn_axes(2)), "loss, error"),
    ],
)
def test_what_is_not_there_is_named(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()


@pytest.mark.parametrize(
    ("values", "floor", "floored"),
    [
        ([1, 2], 1, 0),
        ([0, 0.5, 4], 0.5, 1),
        ([0, 0], 1.19e-7, 2),
        ([np.nan, 3], 3, 0),
        ([np.inf, 1], 1, 0),
        ([1e-11, 1], 1e-11, 0),
    ],
)
def test_log_scale_has_a_floor_and_a_top(values, floor, floored):
    scale = log_scale(values)
    assert scale.floor == pytest.approx(floor, rel=1e-2)
    assert scale.floored == floored
    assert np.isfinite(scale.top) and scale.top > scale.floor
    assert 1 <= len(scale.decades) <= 7
    placed = scale.place(values)
    assert np.array_equal(np.isnan(placed), np.isnan(values))


def test_plots_leave_the_users_settings_alone():
    before = dict(matplotlib.rcParams)
    plot_embedding(made_embedding(), ax=drawn_axes())
    plot_curves(made_curves(), ax=drawn_axes(2))
    assert dict(matplotlib.rcParams) == before


def test_a_scale_of_less_than_a_decade_still_has_round_ticks():
    places, words = log_ticks(log_scale([0.15, 0.6]))
    assert words == ["0.2", "0.5"]
    assert 10.0 ** np.array(places) == pytest.approx([0.2, 0.5])
    assert log_ticks(log_scale([1e-3, 10.0]))[0] == [-3, -2, -1, 0, 1]


@pytest.mark.parametrize(("top", "labels"), [(1.9, ["0.8", "1.07", "1.42", "1.9"]), (800.0, None)])
def test_a_bar_of_less_than_a_decade_has_plain_numbers(top, labels):
    from matplotlib.figure import Figure

    from thalweg.plots.colorbar import add_colorbar
    from thalweg.plots.logscale import log_scale

    figure = Figure()
    add_colorbar(figure.subplots(), log_scale([0.8, top]))
    shown = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
    assert shown == labels if labels else any("10^" in text for text in shown)
