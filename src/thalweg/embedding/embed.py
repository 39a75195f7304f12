"""Embed recorded weights: from a run, checkpoints or an array to a labelled data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.embedding import quality
from thalweg.embedding.checkpoint_source import CheckpointSource
from thalweg.embedding.distances import RELATIVE_ACCURACY, Distances, pairwise_distances
from thalweg.embedding.mds import check_dims, classical_mds, metric_mds
from thalweg.embedding.orientation import orient
from thalweg.embedding.pca import principal_components
from thalweg.embedding.source import ArraySource, WeightSource
from thalweg.errors import InvalidArgument
from thalweg.run.holes import gone_before, said_of
from thalweg.run.progress import Progress, silent

logger = logging.getLogger("thalweg")

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    Embeddable: TypeAlias = (
        str
        | PathLike[str]
        | "HasCheckpoints"
        | WeightSource
        | NDArray[Any]
        | Tensor
        | Sequence[str | PathLike[str]]
    )


class HasCheckpoints(Protocol):
    """Whatever lists its checkpoints, as a run does."""

    def checkpoints(self) -> list[Path]:
        """Paths of the safetensors files."""


# A method's positions for one layer's distances, and what else it reports: name to values.
_Outcome = tuple[NDArray[np.float64], dict[str, Any]]


def embed(
    run_or_weights: Embeddable,
    *,
    dims: int = 3,
    method: str = "mds",
    layers: Sequence[str] | None = None,
    memory: int = 256 * 2**20,
    entry: str | None = None,
    allow: Iterable[str | type] = (),
    progress: Progress = silent,
) -> xr.Dataset:
    """Embed points of weight space in a few dimensions, the whole network and each layer.

    Parameters
    ----------
    run_or_weights : path, run, sequence of paths, array or WeightSource
        A run directory or the object that `open_run` returns; the paths of checkpoints in any
        layout that `open_point` reads, in their order; a folder or pattern of them
        (``"ckpt/epoch_*.pt"``), ordered by the step in their names or in the files; or an array or
        tensor of shape (n, W), one point a row.
    dims : int
        Number of dimensions, at most n - 1.
    method : {"mds", "classical", "pca"}
        "mds": metric scaling, SMACOF started from classical scaling; "classical": classical
        scaling; "pca": principal components, the same positions with their explained variance.
    layers : sequence of str, optional
        What to embed, each by its own distances; by default "network" (all weights together) and
        every layer.
    memory : int
        Bytes of weights to hold in memory at a time.
    entry : str, optional
        Entry of the files, where they have several, such as a model and its moving average.
    allow : iterable of str or type
        Classes that may stand beside the weights in files, as for `open_point`.
    progress : callable
        Shows how far the distances and the layers have come.

    Returns
    -------
    xarray.Dataset
        Float64; lengths are in units of weights. ``position`` (layer, checkpoint, dim), centred
        and turned as `orient` says; ``distance`` (layer, checkpoint, other), right to a relative
        error of 1e-9; ``stress`` (layer), Kruskal's stress-1; ``point_stress`` and ``fidelity``
        (layer, checkpoint), see `point_stress` and `fidelity`; ``negative_share`` (layer) for
        "classical", ``explained_variance`` and ``explained_variance_ratio`` (layer, dim) for
        "pca", ``iterations`` and ``converged`` (layer) for "mds". Coordinates ``trajectory``,
        ``step``, ``parent``, ``epoch``, ``loss``, ``error``, ``test_loss`` and ``test_error``
        where checkpoints state them (NaN or "" for those that do not). Where layers were frozen or
        unfrozen on the way, points lie in the space of all weights that ever were trained;
        the attributes ``frozen`` and ``absent`` name those that stand still, or are not there yet,
        at some of the checkpoints.

    Raises
    ------
    InvalidArgument
        For too few points, ``dims`` beyond what the points can span, an unknown method or layer.
    CheckpointRefused, CheckpointMismatch
        For files that are no checkpoints, or not of one network.
    InvalidWeights
        For NaN or infinite weights.

    Examples
    --------
    >>> corners = np.zeros((4, 10))
    >>> corners[1, 2] = corners[2, 5] = corners[3, [2, 5]] = 1.0
    >>> square = embed(corners, dims=2)
    >>> float(square["stress"].sel(layer="network").round(6))
    0.0
    """
    if method not in _METHODS:
        raise InvalidArgument(f"got method {method!r}, expected one of {', '.join(_METHODS)}")
    source = _as_source(run_or_weights, entry, allow)
    if absent := getattr(source, "absent", ()):
        logger.warning(
            "embed: %d tensors (%s) are not in every checkpoint; where one is missing, it stands at"
            " its value in the nearest checkpoint that has it.",
            *(len(absent), ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")),
        )
    check_dims(source.points, dims)
    distances = pairwise_distances(source, layers=layers, memory=memory, progress=progress)
    columns: dict[str, list[Any]] = {}
    with progress(len(distances.layers), f"embedding ({method})") as bar:
        for matrix in distances.values:
            for name, value in _embed_layer(matrix, dims, method).items():
                columns.setdefault(name, []).append(value)
            bar.update()
    return _dataset(source, distances, columns, method)


def _classical(distances: NDArray[np.float64], dims: int) -> _Outcome:
    scaling = classical_mds(distances, dims=dims)
    return scaling.positions, {"negative_share": scaling.negative_share}


def _metric(distances: NDArray[np.float64], dims: int) -> _Outcome:
    scaling = metric_mds(distances, classical_mds(distances, dims=dims).positions)
    return scaling.positions, {"iterations": scaling.iterations, "converged": scaling.converged}


def _pca(distances: NDArray[np.float64], dims: int) -> _Outcome:
    components = principal_components(distances, dims=dims)
    return components.positions, {
        "explained_variance": components.explained_variance,
        "explained_variance_ratio": components.explained_variance_ratio,
    }


_METHODS: dict[str, Callable[[NDArray[np.float64], int], _Outcome]] = {
    "mds": _metric,
    "classical": _classical,
    "pca": _pca,
}
_METHOD_NAMES = {
    "mds": "metric multidimensional scaling (SMACOF from classical scaling)",
    "classical": "classical multidimensional scaling",
    "pca": "principal component analysis",
}


def _embed_layer(distances: NDArray[np.float64], dims: int, method: str) -> dict[str, Any]:
    positions, extras = _METHODS[method](distances, dims)
    positions = orient(positions)
    shown = quality.shown_distances(positions)
    return {
        "position": positions,
        "stress": quality.stress_1(distances, shown),
        "point_stress": quality.point_stress(distances, shown),
        "fidelity": quality.fidelity(distances, shown),
        **extras,
    }


def _as_source(
    weights: Any, entry: str | None = None, allow: Iterable[str | type] = ()
) -> WeightSource:
    """Find the weights behind whatever the user passed."""
    if isinstance(weights, str | PathLike):
        weights = _at_path(weights)
    if hasattr(weights, "checkpoints"):
        return _of_run(weights.checkpoints(), entry, allow)
    if hasattr(weights, "read") and hasattr(weights, "blocks"):
        source: WeightSource = weights
        return source
    if hasattr(weights, "detach"):
        return ArraySource(_to_numpy(weights))
    if isinstance(weights, Sequence) and all(
        isinstance(item, str | os.PathLike) for item in weights
    ):
        return _files(weights, entry, allow)
    try:
        return ArraySource(np.asarray(weights))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgument(
            f"cannot embed {type(weights).__name__} ({error}); pass a run, a list of checkpoint "
            "paths, or an array of shape (n, W)"
        ) from None


def _of_run(paths: list[Path], entry: str | None, allow: Iterable[str | type]) -> WeightSource:
    """Open all that a run recorded, and say what it has not any more."""
    source = _files(paths, entry, allow)
    abouts = getattr(source, "metadata", ())
    missing = [before for pair in zip(paths, abouts, strict=True) if (before := gone_before(*pair))]
    if missing:
        logger.warning("embed: %s", said_of(missing))
    return source


def _files(
    paths: Sequence[str | PathLike[str]], entry: str | None, allow: Iterable[str | type]
) -> WeightSource:
    if entry is None and all(str(path).endswith(".safetensors") for path in paths):
        return CheckpointSource(paths)
    from thalweg.embedding.plain_files import FileSource  # torch, which others do without

    return FileSource(paths, entry=entry, allow=allow)


def _at_path(path: str | PathLike[str]) -> Any:
    """Open the run, or list the files in order, at a path."""
    from thalweg.problems.trajectory_files import holds_files, trajectory_files
    from thalweg.run import is_run, open_run

    if not is_run(path) and holds_files(path):
        return trajectory_files(path).files
    return open_run(Path(path))


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    import torch

    tensor = tensor.detach().cpu()
    # numpy has no bfloat16; float32 holds it exactly.
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


# Variable: dimensions after "layer", meaning, unit.
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "position": (("checkpoint", "dim"), "position in the embedding", "weight"),
    "distance": (("checkpoint", "other"), "Euclidean distance in weight space", "weight"),
    "stress": ((), "Kruskal's stress-1", "1"),
    "point_stress": (("checkpoint",), "stress-1 of one checkpoint's distances", "1"),
    "fidelity": (("checkpoint",), "correlation of shown with true distances", "1"),
    "negative_share": ((), "share of negative eigenvalues", "1"),
    "explained_variance": (("dim",), "variance along the component", "weight^2"),
    "explained_variance_ratio": (("dim",), "share of the total variance", "1"),
    "iterations": ((), "SMACOF steps", "1"),
    "converged": ((), "whether SMACOF came to rest", "1"),
}
# What checkpoints may state about themselves, with what stands where one does not.
_STATED: dict[str, float | str] = {
    "parent": "",
    "epoch": np.nan,
    "loss": np.nan,
    "error": np.nan,
    "test_loss": np.nan,
    "test_error": np.nan,
}
# Attributes of a source, and of the data set: weights that some checkpoints hold constant.
_HELD = ("frozen", "absent")


def _dataset(
    source: WeightSource, distances: Distances, columns: dict[str, list[Any]], method: str
) -> xr.Dataset:
    import xarray as xr

    values = {"distance": distances.values, **columns}
    variables = {
        name: (("layer", *dims), np.asarray(values[name]), {"long_name": meaning, "units": unit})
        for name, (dims, meaning, unit) in _VARIABLES.items()
        if name in values
    }
    numbers = np.arange(source.points)
    coords: dict[str, Any] = {
        "layer": list(distances.layers),
        "checkpoint": numbers,
        "other": numbers,
        **_stated(getattr(source, "metadata", ())),
    }
    attrs = {
        "method": _METHOD_NAMES[method],
        "measured": "Euclidean distances of the weights that are trained at any checkpoint, "
        f"float64 sums, relative error below {RELATIVE_ACCURACY:g}",
        "orientation": "centred; principal axes in order of falling variance; the largest "
        "coordinate of each axis is positive",
        "near_pairs": [int(pairs) for pairs in distances.refined],
        **{name: list(names) for name in _HELD if (names := getattr(source, name, ()))},
    }
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _stated(metadata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coordinates along "checkpoint" from what the files say about themselves."""
    if not any(metadata):
        return {}
    coords: dict[str, Any] = {
        "trajectory": ("checkpoint", [str(about.get("trajectory", "")) for about in metadata]),
        "step": ("checkpoint", [int(about.get("step", -1)) for about in metadata]),
    }
    for name, missing in _STATED.items():
        stated = [about.get(name) for about in metadata]
        if any(value is not None for value in stated):
            kind = type(missing)
            column = [missing if value is None else kind(value) for value in stated]
            coords[name] = ("checkpoint", column)
    return coords
