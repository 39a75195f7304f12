"""A landscape and a grid: all that a block of a surface is computed from, here or in a worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InvalidProblem
from thalweg.geometry.anchors import Anchors
from thalweg.geometry.grid import AXES, Grid
from thalweg.landscape.protocols import (
    Described,
    Function,
    HeldOut,
    Remakeable,
    Stateful,
    evaluator,
    require,
    words_of,
)
from thalweg.problems.batches import digest
from thalweg.risk import EmpiricalRisk
from thalweg.run.tensors import read_tensors, write_tensors

_FIXED = "fixed/"


@dataclass(frozen=True)
class Job:
    """
    A landscape and the grid it is seen on.

    Parameters
    ----------
    risk : Function
        An `EmpiricalRisk`, or anything with a ``space`` and a ``value``.
    grid : Grid
        The points.
    test : bool
        Look at the test data as well, where there are any.
    anchors : Anchors, optional
        Points that the grid goes through, whose frozen weights and buffers differ; without them
        those of the risk are everywhere.
    """

    risk: Function
    grid: Grid
    test: bool = True
    anchors: Anchors | None = None

    @cached_property
    def risks(self) -> dict[str, Function]:
        """What is measured, by prefix of the results' names."""
        risk = self.risk
        held_out = risk.held_out() if self.test and isinstance(risk, HeldOut) else None
        return {"": risk} if held_out is None else {"": risk, "test_": held_out}

    def go_to(self, cell: int) -> Tensor:
        """Give the risk the frozen weights and buffers of a cell, and return its point."""
        if self.anchors is not None:
            risk = require(self.risk, Stateful, "a plane through whole states", "give flat vectors")
            risk.set_fixed(self.anchors.at(self.grid.place(cell)))
        return self.grid.point(cell)

    @cached_property
    def evaluators(self) -> dict[str, Callable[[Tensor], Mapping[str, float]]]:
        """What evaluates each of `risks` at a point."""
        return {prefix: evaluator(risk) for prefix, risk in self.risks.items()}

    @cached_property
    def key(self) -> str:
        """
        Digest of all that the values depend on.

        Raises
        ------
        InvalidArgument
            If the landscape does not describe itself.
        """
        require(
            self.risk,
            Described,
            "run",
            "leave out run, or give it one (a dict): blocks are kept"
            " under what tells this landscape from others",
        )
        facts = {
            "described": words_of(self.risk),
            "measures": {
                prefix: risk.fingerprint() if isinstance(risk, Remakeable) else ""
                for prefix, risk in self.risks.items()
            },
        }
        text = torch.tensor(list(json.dumps(facts, sort_keys=True).encode()), dtype=torch.uint8)
        return digest(text, *self._tensors.values())

    @property
    def _tensors(self) -> dict[str, Tensor]:
        grid = self.grid
        axes = {
            f"axis_{name}": torch.from_numpy(a) for name, a in zip(AXES, grid.axes, strict=False)
        }
        anchors = {} if self.anchors is None else self.anchors.tensors
        return {"w": grid.w, "directions": grid.directions, **axes, **anchors}

    def save(self, path: Path) -> None:
        """
        Write the job where workers find it.

        Raises
        ------
        InvalidArgument
            If workers cannot make its risk again.
        """
        risk = require(
            self.risk,
            Remakeable,
            "engine",
            "leave out engine, or measure an EmpiricalRisk of"
            " load_problem(...), which workers can make again",
        )
        fixed = {_FIXED + name: tensor for name, tensor in risk.fixed().items()}
        tensors = {
            name: t.detach().cpu().contiguous() for name, t in (self._tensors | fixed).items()
        }
        about = {"spec": json.dumps(risk.spec()), "test": json.dumps(self.test)}
        write_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: Path, key: str) -> Job:
        """
        Read what `save` wrote and make the risk again.

        Raises
        ------
        InvalidProblem
            If what is made here is not what ``key`` stands for.
        """
        tensors, about = read_tensors(path)
        fixed = {n.removeprefix(_FIXED): t for n, t in tensors.items() if n.startswith(_FIXED)}
        risk = EmpiricalRisk.remake(json.loads(about["spec"]), fixed)
        axes = [tensors[f"axis_{name}"].numpy() for name in AXES if f"axis_{name}" in tensors]
        w, directions = (tensors[name].to(risk.device) for name in ("w", "directions"))
        anchors = Anchors.of_tensors(tensors)
        job = cls(risk, Grid(w, directions, axes), json.loads(about["test"]), anchors)
        if job.key != key:
            raise InvalidProblem(
                f"{risk.problem.name}, made again by its entry string in a worker, is not the"
                " problem of the surface: model, loss, data or frozen weights differ. Let the entry"
                " make the same problem at every call, and change the model only by weights."
            )
        return job
