"""Where perturbed copies go: how far from where they were, from their siblings, from the end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from thalweg.dynamics.checkpoint_writer import split_state
from thalweg.landscape.space import ParameterSpace
from thalweg.run import Run, Task, read_checkpoint

if TYPE_CHECKING:
    import xarray as xr

# A copy is elsewhere if it stays at least this share of the perturbation away from its parent.
ELSEWHERE = 0.5
_UNMEASURED = {"loss": np.nan, "error": np.nan, "test_error": np.nan}


@dataclass(frozen=True)
class Copy:
    """
    A perturbed copy and the points it went through.

    Attributes
    ----------
    about : dict
        ``trajectory``, ``network``, ``parent``, ``moment``, ``optimizer``, ``scale`` and ``copy``.
    space : ParameterSpace
        Of its weights.
    home : Tensor
        Shape (W,): its parent before the perturbation.
    final : Tensor
        Shape (W,): where the parent's own training ended.
    points : Tensor
        Shape (T, W): after the perturbation, and at every checkpoint up to the end.
    steps, epochs : list
        Of the points.
    returned : bool
        Whether it ended at zero training error.
    figures : dict
        Losses and errors at its start and end, ``parent_loss``, ``parent_error``,
        ``epochs_to_zero``.
    """

    about: dict[str, Any]
    space: ParameterSpace
    home: Tensor
    final: Tensor
    points: Tensor
    steps: list[int]
    epochs: list[float]
    returned: bool
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Name what it shares with its siblings: network, moment, scale and optimizer."""
        about = self.about
        return f"{about['network']}: {about['moment']}, {about['optimizer']}, {about['scale']:g}"

    def is_sibling(self, other: Copy) -> bool:
        """Say whether another is a copy of the same parent in the same group."""
        same = other.group == self.group and other.about["parent"] == self.about["parent"]
        return same and other is not self

    def row(self) -> dict[str, Any]:
        """Give all figures of the copy."""
        start, end = self.points[0], self.points[-1]
        displacement = _distance(end, self.home) / _distance(start, self.home)
        home, *ends = (filter_directions(self.space, w) for w in (self.home, start, end))
        turned = _distance(ends[1], home) / _distance(ends[0], home)
        return {
            **self.about,
            "group": self.group,
            "returned": self.returned,
            "elsewhere": min(displacement, turned) >= ELSEWHERE,
            "perturbation": _distance(start, self.home),
            "distance": _distance(end, self.home),
            "distance_final": _distance(end, self.final),
            "displacement": displacement,
            "displacement_filters": turned,
            **self.figures,
        }


def filter_directions(space: ParameterSpace, w: Tensor) -> Tensor:
    """
    Scale every filter of every kernel to length one, and leave out all else.

    What batch normalization or the ReLU makes irrelevant, the length of a filter, is so left out
    of distances.

    Returns
    -------
    Tensor
        Of all kernels' entries; ``w`` itself where the space has no kernels.
    """
    parts = [
        torch.nn.functional.normalize(tensor.transpose(0, p.filter_dim).flatten(1), dim=1).flatten()
        for p, tensor in zip(space.parameters, space.unpack(w).values(), strict=True)
        if p.kind == "weight" and len(p.shape) > 1
    ]
    return torch.cat(parts) if parts else w


def read_copy(
    run: Run,
    task: Task,
    outcome: dict[str, Any],
    *,
    space: ParameterSpace,
    network: str,
    zero_error: float,
) -> Copy:
    """
    Read a copy that was trained on.

    Parameters
    ----------
    run : Run
        Where its checkpoints lie.
    task, outcome
        As `thalweg.studies.trainings.branch_task` made it, and what came of it.
    space : ParameterSpace
        Of its network.
    network : str
        What its network is called.
    zero_error : float
        The training error that counts as zero.
    """
    arguments = task.arguments
    parents = run.checkpoints(arguments["parent"])
    home, at = read_checkpoint(
        next(path for path in parents if int(path.stem) == outcome["from_step"])
    )
    read = [read_checkpoint(path) for path in run.checkpoints(arguments["trajectory"])]
    keys = ("trajectory", "parent", "moment", "scale", "copy")
    optimizer = arguments["training"].get("optimizer", "sgd")
    return Copy(
        about={key: arguments[key] for key in keys} | {"network": network, "optimizer": optimizer},
        space=space,
        home=split_state(space, home)[0],
        final=split_state(space, read_checkpoint(parents[-1])[0])[0],
        points=torch.stack([split_state(space, tensors)[0] for tensors, _ in read]),
        steps=[about["step"] for _, about in read],
        epochs=[about["epoch"] for _, about in read],
        returned=bool(outcome["error"][-1] <= zero_error),
        figures=_figures(outcome, zero_error, at),
    )


def _figures(outcome: dict[str, Any], zero: float, at: dict[str, Any]) -> dict[str, float]:
    below = np.flatnonzero(outcome["error"] <= zero)
    parent = {key: at.get(key) for key in ("loss", "error")}
    return {
        **{f"parent_{key}": np.nan if x is None else float(x) for key, x in parent.items()},
        **{f"start_{key}": float(outcome[key][0]) for key in _UNMEASURED},
        **{f"end_{key}": float(outcome[key][-1]) for key in _UNMEASURED},
        "epochs_to_zero": float(outcome["epoch"][below[0]]) if below.size else np.nan,
        "epochs": float(outcome["epoch"][-1]),
    }


def gather_copies(copies: Sequence[Copy]) -> xr.Dataset:
    """
    Gather the figures of all copies along ``copy``; NaN where one was not measured.

    Returns
    -------
    xarray.Dataset
        ``displacement`` is the distance from the parent at the end over that at the start,
        ``displacement_filters`` the same for `filter_directions`.
    """
    import xarray as xr

    rows = [copy.row() for copy in copies]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    dataset = xr.Dataset(
        {name: ("member", np.array([row.get(name, np.nan) for row in rows])) for name in names}
    )
    for name in ("perturbation", "distance", "distance_final"):
        dataset[name].attrs["units"] = "Euclidean distance of weights"
    for name in ("displacement", "displacement_filters"):
        dataset[name].attrs["units"] = "lengths of the perturbation"
    return dataset


def distances_over_time(copies: Sequence[Copy]) -> xr.Dataset:
    """
    Measure how far each copy is from where it was and from its siblings, at every checkpoint.

    Returns
    -------
    xarray.Dataset
        Along ``record``: ``home``, ``final`` (where the parent's training ended) and ``siblings``
        (mean over those that have a checkpoint of the same step; NaN without any).
    """
    import xarray as xr

    rows = []
    for copy in copies:
        siblings = [sibling for sibling in copies if copy.is_sibling(sibling)]
        for step, epoch, point in zip(copy.steps, copy.epochs, copy.points, strict=True):
            at_step = [s.points[s.steps.index(step)] for s in siblings if step in s.steps]
            apart = [_distance(point, sibling) for sibling in at_step]
            rows.append(
                {
                    "home": _distance(point, copy.home),
                    "final": _distance(point, copy.final),
                    "siblings": float(np.mean(apart)) if apart else np.nan,
                    "step": step,
                    "epoch": epoch,
                    "trajectory": copy.about["trajectory"],
                    "group": copy.group,
                }
            )
    columns = {name: ("record", np.array([row[name] for row in rows])) for name in rows[0]}
    measured = ("home", "final", "siblings")
    dataset = xr.Dataset(
        {name: columns[name] for name in measured},
        coords={name: column for name, column in columns.items() if name not in measured},
    )
    for name in measured:
        dataset[name].attrs["units"] = "Euclidean distance of weights"
    return dataset


def end_distances(copies: Sequence[Copy]) -> xr.Dataset:
    """
    Measure the distances between the ends of all copies, and from the parent's points.

    Returns
    -------
    xarray.Dataset
        ``distance`` over dims ``end`` and ``other``: the parent at each moment, then the copies by
        moment, optimizer and scale, with ``moment``, ``optimizer`` and ``scale`` of each.
    """
    import xarray as xr

    parents = {copy.about["moment"]: copy.home for copy in copies}
    names = [f"parent, {moment}" for moment in parents] + [
        str(copy.about["trajectory"]) for copy in copies
    ]
    points = torch.stack([*parents.values(), *(copy.points[-1] for copy in copies)]).double()
    moments = [*parents, *(copy.about["moment"] for copy in copies)]
    optimizers = [*("" for _ in parents), *(copy.about["optimizer"] for copy in copies)]
    scales = [*(0.0 for _ in parents), *(copy.about["scale"] for copy in copies)]
    return xr.Dataset(
        {
            "distance": (
                ("end", "other"),
                torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").numpy(),
                {"units": "Euclidean distance of weights"},
            )
        },
        coords={
            "end": names,
            "other": names,
            "moment": ("end", moments),
            "optimizer": ("end", optimizers),
            "scale": ("end", scales),
        },
    )


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).norm())
