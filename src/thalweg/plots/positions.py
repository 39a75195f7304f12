"""Positions of an embedding, by layer, in as many dimensions as a picture has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument

if TYPE_CHECKING:
    import xarray as xr


def positions(embedding: xr.Dataset, layer: str, dims: int) -> NDArray[np.float64]:
    """
    Take the first axes of one layer's embedding.

    Parameters
    ----------
    embedding : xarray.Dataset
        As `thalweg.embed` returns it.
    layer : str
        One of its layers.
    dims : int
        How many axes; those the embedding lacks are zero.

    Returns
    -------
    float64 array of shape (n, dims)
        In units of weights.

    Raises
    ------
    InvalidArgument
        If the embedding has no such layer.
    """
    layers = [str(name) for name in embedding["layer"].values]
    if layer not in layers:
        raise InvalidArgument(f"got layer {layer!r}, expected one of {', '.join(layers)}")
    places = embedding["position"].isel(layer=layers.index(layer)).transpose("checkpoint", "dim")
    shown = places.values[:, :dims].astype(float)
    return np.pad(shown, ((0, 0), (0, dims - shown.shape[1])))


def losses(embedding: xr.Dataset) -> NDArray[np.float64] | None:
    """Training loss of each checkpoint, shape (n,); None if no checkpoint states one."""
    if "loss" not in embedding or not np.isfinite(embedding["loss"].values).any():
        return None
    return np.asarray(embedding["loss"].values, dtype=float)
