"""Surfaces and spectra as a run holds them, made up, with what a picture may stumble over."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from made_trajectories import HOSTILE
from thalweg.geometry.density import density_of


def made_surface(dims: int = 2, *, holes: bool = True, stderr: float = 0.0) -> xr.Dataset:
    """A bowl of losses from 1 to 100 over an uneven grid; corners infinite and undefined."""
    axes = [np.linspace(-1, 1, 5), np.linspace(-2, 1, 4), np.linspace(0, 2, 3)][:dims]
    places = np.meshgrid(*axes, indexing="ij")
    loss = 10.0 ** (2 * sum(place**2 for place in places) / sum(float(max(a**2)) for a in axes))
    if holes:
        loss[(0,) * dims], loss[(-1,) * dims] = np.inf, np.nan
    names = ("x", "y", "z")[:dims]
    values = {"loss": loss, "error": loss / 200, "test_loss": 2 * loss, "test_error": loss / 100}
    spread = np.where(np.isfinite(loss), stderr, np.nan)
    variables: dict[str, Any] = {name: (names, value) for name, value in values.items()}
    variables |= {f"{name}_stderr": (names, spread) for name in values}
    variables["samples"] = (names, np.full(loss.shape, 60))
    variables["finite"] = (names, np.isfinite(loss))
    attrs: dict[str, Any] = {
        "split": "train",
        "samples": 60,
        "weights": 1234,
        "batchnorm": "no batch norm",
        "directions": "random, Gaussian, scaled to the weights by filter, seed 7",
        "centre": HOSTILE,
        "direction_norms": [1.0, 12.5, 3.0][:dims],
    }
    return xr.Dataset(variables, dict(zip(names, axes, strict=True)), attrs)


def made_points(dims: int = 2) -> xr.Dataset:
    """Three checkpoints of a trajectory, and a given point far outside the surface."""
    places = np.array([[-0.9, 0.5, 0.3], [0.5, -0.5, 1.0], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    return xr.Dataset(
        {
            "position": (("point", "axis"), places[:, :dims]),
            "distance": ("point", [0.7, 0.2, 0.0, 0.0]),
            "loss": ("point", [50.0, 5.0, 1.0, 2.0]),
        },
        coords={
            "trajectory": ("point", [HOSTILE, HOSTILE, HOSTILE, ""]),
            "name": ("point", ["", "", "", "another"]),
            "step": ("point", [0, 10, 20, -1]),
        },
        attrs={"variance_share": 0.125},
    )


def made_density() -> xr.Dataset:
    """Two probes of a spectrum of 1,000 eigenvalues: nearly all at zero, one at 2, one at 5."""
    nodes = np.array([[-0.01, 2.0, 5.0], [0.01, 2.0, 5.0]])
    weights = np.array([[0.998, 0.001, 0.001], [0.9985, 0.0005, 0.001]])
    near = {"count": 998.25, "stderr": 0.25, "least": 998.0, "most": 999.0}
    near |= {"low": 995.0, "high": 1000.0, "threshold": 0.05}
    about = {"products": 6, "samples": 60, "seed": 0}
    told = {f"near_zero_{name}": value for name, value in near.items()}
    return density_of(nodes, weights, 1000, width=0.05).assign_attrs(
        **about, **told, operator="Hessian"
    )


def made_eigenvalues() -> xr.Dataset:
    """The two eigenvalues of `made_density` beyond zero."""
    columns = {"value": [5.0, 2.0], "residual": [1e-3, 0.1], "error": [1e-6, 1e-2]}
    variables = {name: ("rank", column) for name, column in columns.items()}
    return xr.Dataset(variables, attrs={"status": "converged", "products": 12, "size": 1000})
