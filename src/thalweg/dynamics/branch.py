"""Branches: copies of a trajectory's weights, perturbed at chosen moments and trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics.batched_training import train_together
from thalweg.dynamics.checkpoint_writer import split_state
from thalweg.dynamics.train import train
from thalweg.dynamics.training import TrainResult
from thalweg.errors import CheckpointRefused, InvalidArgument
from thalweg.landscape import Landscape
from thalweg.landscape.space import ParameterSpace
from thalweg.result import Result
from thalweg.run.checkpoints import describe_checkpoint, read_checkpoint
from thalweg.run.seeds import derive_seed, torch_generator
from thalweg.run.store import Run

# The share of training after which each named moment lies.
MOMENTS = {"early": 0.1, "middle": 0.5, "final": 1.0}


def perturb(
    space: ParameterSpace, w: Tensor, *, scale: float = 0.25, generator: torch.Generator
) -> Tensor:
    """
    Add Gaussian noise proportional to each layer's weight scale (Liao and Poggio 2017).

    The standard deviation is ``scale`` times the root mean square of the layer's weights
    (`ParameterSpace.layer_scales`): of the kernel, or of the scales of a normalization layer. A
    layer is a module; its biases get noise of the same standard deviation.

    Parameters
    ----------
    space : ParameterSpace
        Names the layers.
    w : Tensor
        Shape (W,); not changed.
    scale : float
        Noise relative to the weights.
    generator : torch.Generator
        A CPU generator; the noise does not depend on the device of ``w``.

    Returns
    -------
    Tensor
        Shape (W,), in the dtype and on the device of ``w``.
    """
    noise = torch.randn(space.size, generator=generator, dtype=torch.float64)
    scales = space.layer_scales(w)
    for parameter in space.parameters:
        noise[parameter.slice] *= scale * scales[parameter.layer]
    return w.detach() + noise.to(w)


def moments(steps: Sequence[int], at: Sequence[str | int] = tuple(MOMENTS)) -> dict[str, int]:
    """
    Choose recorded steps by name or number.

    Parameters
    ----------
    steps : sequence of int
        The recorded steps of a trajectory.
    at : sequence of str or int
        ``"early"``, ``"middle"``, ``"final"``: the first recorded step after at least 10%, 50%,
        100% of the steps; or recorded steps themselves.

    Returns
    -------
    dict of str to int
        The step of each moment; a moment given by number is called ``"step<number>"``.

    Raises
    ------
    InvalidArgument
        If there is no such moment.

    Examples
    --------
    >>> moments(range(0, 1001, 30), ["early", "middle", "final", 600])
    {'early': 120, 'middle': 510, 'final': 990, 'step600': 600}
    """
    recorded = sorted(steps)
    if not recorded:
        raise InvalidArgument(
            "the trajectory has no recorded steps to branch from; train with a run that keeps"
            " checkpoints: train(..., run=folder)."
        )
    return dict(_moment(recorded, moment) for moment in at)


def _moment(recorded: list[int], moment: str | int) -> tuple[str, int]:
    if isinstance(moment, str):
        if moment not in MOMENTS:
            moments = ", ".join(repr(name) for name in MOMENTS)
            raise InvalidArgument(f"at={moment!r}; write {moments}, or the number of a step.")
        least = MOMENTS[moment] * recorded[-1]
        return moment, next(step for step in recorded if step >= least)
    if moment not in recorded:
        near = sorted(recorded, key=lambda step: abs(step - moment))[:4]
        listed = ", ".join(str(step) for step in sorted(near))
        raise InvalidArgument(
            f"step {moment} was not recorded; write one of the recorded steps near it: {listed}."
        )
    return f"step{moment}", moment


@dataclass(frozen=True)
class Branch(Result):
    """
    One perturbed copy and its training.

    Attributes
    ----------
    moment : str
        The name of the moment at which it leaves its parent.
    step : int
        The parent's step there.
    copy : int
        Its number among the copies of that moment, from 0.
    start : Tensor
        The perturbed weights, shape (W,).
    result : TrainResult
        What training on came to.
    """

    moment: str
    step: int
    copy: int
    start: Tensor
    result: TrainResult


@dataclass(frozen=True)
class BranchTree(Result):
    """
    All branches of one trajectory.

    Attributes
    ----------
    parent : str
        Name of the trajectory they leave.
    branches : tuple of Branch
        By moment, then by copy.
    """

    parent: str
    branches: tuple[Branch, ...]

    def __iter__(self) -> Iterator[Branch]:
        return iter(self.branches)

    def __len__(self) -> int:
        return len(self.branches)


Trajectory = TrainResult | Sequence[str | os.PathLike[str]]


def branch(
    landscape: Landscape,
    trajectory: Trajectory,
    *,
    at: Sequence[str | int] = tuple(MOMENTS),
    scale: float = 0.25,
    copies: int = 4,
    seed: int = 0,
    run: Run | str | os.PathLike[str] | None = None,
    name: str = "main",
    together: bool = False,
    **options: Any,
) -> BranchTree:
    """
    Perturb a trajectory's weights at chosen moments, several copies each, and train each on.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    trajectory : TrainResult or sequence of paths
        Where branches leave from: recorded checkpoints, or a result that holds snapshots.
    at : sequence of str or int
        The moments, see `moments`.
    scale : float
        Size of the perturbation, see `perturb`.
    copies : int
        Number of branches for each moment.
    seed : int
        Of the noise and of the order of the data; each branch has streams of its own.
    run : Run or path, optional
        Where the branches are recorded, each as the trajectory ``"<name>-<moment>-<copy>"``.
    name : str
        What the parent is called.
    together : bool
        Take the steps of all copies of a moment as one batch of models. The answers are the same
        up to rounding; what it costs depends on device and network, see
        ``benchmarks/branches.py``.
    **options
        Arguments of `train`, among them the length: ``epochs`` or ``steps``.

    Returns
    -------
    BranchTree
        The branches with their results.

    Raises
    ------
    InvalidArgument
        If a moment was not recorded, ``copies`` is less than one, or copies cannot be trained
        together.
    """
    if copies < 1:
        raise InvalidArgument(f"copies={copies}; write a number from 1 on.")
    points = _points(trajectory)
    leaves = moments(list(points), at)
    common: dict[str, Any] = {"scale": scale, "seed": seed, "name": name, "run": run, **options}
    branches = []
    for moment, step in leaves.items():
        calls = [
            _call(landscape.space, points[step], moment=moment, step=step, copy=copy, **common)
            for copy in range(copies)
        ]
        results = _train_all(landscape, calls, together)
        branches += [
            Branch(moment, step, copy, start, result)
            for copy, ((start, _), result) in enumerate(zip(calls, results, strict=True))
        ]
    return BranchTree(name, tuple(branches))


def train_branch(
    landscape: Landscape,
    point: Path | Tensor,
    *,
    moment: str,
    step: int,
    copy: int,
    scale: float = 0.25,
    seed: int = 0,
    name: str = "main",
    run: Run | str | os.PathLike[str] | None = None,
    trajectory: str = "",
    **options: Any,
) -> Branch:
    """
    Train one branch: what `branch` does for each, and a study as a task of its own.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    point : Path or Tensor
        The parent's checkpoint, or its weights, shape (W,).
    moment, step, copy
        As in `Branch`.
    scale, seed, name, run, **options
        As in `branch`.
    trajectory : str
        What it is recorded as, by default ``"<name>-<moment>-<copy>"``.

    Returns
    -------
    Branch
        The branch; its data order and noise depend on ``seed``, ``name``, ``step`` and ``copy``.
    """
    start, arguments = _call(
        landscape.space,
        point,
        moment=moment,
        step=step,
        copy=copy,
        scale=scale,
        seed=seed,
        name=name,
        run=run,
        trajectory=trajectory,
        **options,
    )
    return Branch(moment, step, copy, start, train(landscape, start, **arguments))


def _call(
    space: ParameterSpace,
    point: Path | Tensor,
    *,
    moment: str,
    step: int,
    copy: int,
    scale: float,
    seed: int,
    name: str,
    trajectory: str = "",
    about: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Tensor, dict[str, Any]]:
    """Perturb, and give the start with the arguments of `train` from there."""
    w, buffers = _state_at(space, point)
    generator = torch_generator(seed, "branch", name, step, copy)
    origin = {"parent": name, "moment": moment, "copy": copy, "from_step": step, "scale": scale}
    return perturb(space, w, scale=scale, generator=generator), {
        "buffers": buffers,
        "seed": derive_seed(seed, "branch", name, step, copy),
        "trajectory": trajectory or f"{name}-{moment}-{copy}",
        "about": {**(about or {}), **origin},
        **options,
    }


def _train_all(
    landscape: Landscape, calls: Sequence[tuple[Tensor, dict[str, Any]]], together: bool
) -> list[TrainResult]:
    if together:
        starts, arguments = zip(*calls, strict=True)
        return train_together(landscape, starts, arguments)
    return [train(landscape, start, **arguments) for start, arguments in calls]


def _points(trajectory: Trajectory) -> Mapping[int, Path | Tensor]:
    if isinstance(trajectory, TrainResult):
        if not trajectory.checkpoints:
            return dict(trajectory.snapshots)
        trajectory = trajectory.checkpoints
    return {_step(Path(path)): Path(path) for path in trajectory}


def _step(path: Path) -> int:
    about = describe_checkpoint(path)
    if "step" not in about:
        raise CheckpointRefused(f"{path} does not say its step: it was not recorded by Thalweg.")
    return int(about["step"])


def _state_at(space: ParameterSpace, point: Path | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    if isinstance(point, Tensor):
        return point, {}
    return split_state(space, read_checkpoint(point)[0])
