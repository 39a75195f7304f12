"""Labels by gradient flow against known ones, at two tolerances, and where descents go instead."""

from __future__ import annotations

import pytest
import torch

from thalweg.basins.labels import basin_labels
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import (
    FlatBasins,
    MultifractalField,
    NestedField,
    Noisy,
    RuggedField,
)


def scattered(count, dims, size=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, dims, generator=generator, dtype=torch.float64)


def agreement(found, known):
    """Share of points of which both partitions, matched basin by basin, say the same."""
    names = {}
    hits = [names.setdefault(int(a), b) == b for a, b in zip(found, known, strict=True)]
    # Two known basins under one label are a miss as well.
    one_to_one = len(set(names.values())) == len(names)
    return sum(hits) / len(hits) if one_to_one else 0.0


LANDSCAPES = [
    (RuggedField(3, flat=1), 0.7),
    (NestedField(6, heights=(1.0, 0.3), spacings=(3.0, 1.0), per_level=2), 0.5),
    (MultifractalField(4, rough=1, octaves=2), 0.6),
    (FlatBasins(5, count=3, flat=2), None),
]


@pytest.mark.parametrize(("landscape", "size"), LANDSCAPES, ids=lambda x: type(x).__name__)
def test_labels_are_the_known_ones(landscape, size, count=15):
    if size is None:
        points = landscape.centres.repeat(count // 3, 1)
        points = points + scattered(len(points), landscape.space.size, 0.2)
    else:
        points = scattered(count, landscape.space.size, size)
    found = basin_labels(landscape, points, height=1e-4)
    known = [landscape.label(point) for point in points]
    assert found.changed <= 0.01
    assert agreement(found.labels, known) >= 0.99
    assert bool(found.rest.all()) and found.elsewhere == {}


@pytest.mark.slow
@pytest.mark.parametrize(("landscape", "size"), LANDSCAPES, ids=lambda x: type(x).__name__)
def test_many_labels_are_the_known_ones(landscape, size):
    test_labels_are_the_known_ones(landscape, size, count=200)


def test_large_steps_and_noise_end_elsewhere():
    field = RuggedField(2, spacing=1.0)
    noisy = Noisy(field, samples=16, noise=8.0)
    points = scattered(10, 2)
    noise = {"lr": 0.05, "momentum": 0.0, "steps": 60, "schedule": "constant", "batch_size": 1}
    descents = {
        "small steps": {"optimizer": "gd", "lr": 0.01, "steps": 60},
        "long steps": {"optimizer": "gd", "lr": 0.4, "steps": 60},
        "noise": noise,
    }
    found = basin_labels(noisy, points, height=1e-3, descents=descents)
    assert found.elsewhere["small steps"] <= 0.05
    assert found.elsewhere["noise"] > 0.2 and found.elsewhere["long steps"] > 0.2
    assert found.changed == 0.0


def test_refusals():
    field = RuggedField(2)
    with pytest.raises(InvalidArgument, match=r"write points of shape \(k, W\), one a row"):
        basin_labels(field, field.well(0), height=0.1)
    with pytest.raises(InvalidArgument, match="a positive height"):
        basin_labels(field, field.well(0)[None], height=0.0)
