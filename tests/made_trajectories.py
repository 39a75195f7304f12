"""Embeddings and curves as a run holds them, made up, with what a picture may stumble over."""

from __future__ import annotations

import numpy as np
import xarray as xr

HOSTILE = "<script>alert(1)</script> $x_{ %{y} _"
LAYERS = ["network", "conv", "head"]


def made_embedding(names=("seed0", "seed0-early-0", HOSTILE), points=4, **coords):
    """Each trajectory in turn, its steps written backwards."""
    rng = np.random.default_rng(0)
    n = len(names) * points
    along = "checkpoint"
    columns = {
        "trajectory": np.repeat(names, points),
        "parent": np.repeat(["seed0" if "early" in name else "" for name in names], points),
        "moment": np.repeat(["early" if "early" in name else "" for name in names], points),
        "step": np.tile(np.arange(points)[::-1] * 10, len(names)),
        "loss": np.linspace(2.0, 0.1, n) * (np.arange(n) != n - 1),
        **coords,
    }
    return xr.Dataset(
        {
            "position": (("layer", along, "dim"), rng.standard_normal((3, n, 3))),
            "stress": ("layer", [0.01, 0.3, np.inf]),
            "fidelity": (("layer", along), rng.uniform(0.5, 1, (3, n))),
        },
        coords={"layer": LAYERS, **{key: (along, value) for key, value in columns.items()}},
    )


def made_curves(**options):
    embedding = made_embedding(**options)
    columns = {
        name: ("record", embedding[name].values) for name in embedding.coords if name != "layer"
    }
    n = embedding.sizes["checkpoint"]
    loss = columns.pop("loss")
    test = np.where(np.arange(n) % 2, np.linspace(3, 1, n), np.nan)
    variables = {"loss": loss, "error": ("record", np.linspace(0.9, 0, n))}
    variables |= {"test_loss": ("record", test), "test_error": ("record", test / 4)}
    return xr.Dataset(variables, coords={**columns, "epoch": ("record", columns["step"][1] / 10.0)})
