"""The tree that is drawn is the tree that was given."""

from __future__ import annotations

import pytest

from thalweg.errors import InvalidArgument
from thalweg.plots import plot_disconnectivity

MERGES = [(1.0, (0,), (2,)), (1.5, (1,), (3,)), (3.0, (0, 2), (1, 3))]


def test_each_join_is_at_its_level_and_no_lines_cross():
    axes = plot_disconnectivity([0.0, 0.2, 0.5, 0.1], MERGES, labels=list("abcd"), ylabel="loss")
    tops = [max(line.get_ydata()) for line in axes.lines[:3]]
    assert tops == [1.0, 1.5, 3.0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "c", "b", "d"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("minimum", "loss")
    bottoms = axes.lines[3].get_ydata()
    assert list(bottoms) == [0.0, 0.5, 0.2, 0.1]
    spans = [sorted((min(line.get_xdata()), max(line.get_xdata()))) for line in axes.lines[:2]]
    assert spans == [[0, 1], [2, 3]]


def test_a_merge_too_few_is_refused():
    with pytest.raises(InvalidArgument, match="one merge fewer than minima"):
        plot_disconnectivity([0.0, 1.0, 2.0], MERGES[:1])
