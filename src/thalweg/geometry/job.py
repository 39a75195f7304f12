"""A risk and a grid: all that a block of a surface is computed from, here or in a worker."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from thalweg.errors import InvalidArgument, InvalidProblem
from thalweg.geometry.grid import AXES, Grid
from thalweg.landscape import Landscape
from thalweg.problems.batches import digest
from thalweg.risk import EmpiricalRisk
from thalweg.risk.spec import recipe_of, remake
from thalweg.run.files import write_atomic

_FIXED = "fixed/"


@dataclass(frozen=True)
class Scene:
    """
    A landscape and the grid it is seen on.

    Parameters
    ----------
    risk : Landscape
        An `EmpiricalRisk`, or anything with a ``value``.
    grid : Grid
        The points.
    test : bool
        Look at the test data as well, where the problem has any.
    """

    risk: Landscape
    grid: Grid
    test: bool = True

    @cached_property
    def risks(self) -> dict[str, EmpiricalRisk]:
        """The risks that are measured, by prefix of their results' names; none of a landscape."""
        risk = self.risk
        if not isinstance(risk, EmpiricalRisk):
            return {}
        if self.test and risk.split == "train" and risk.problem.test is not None:
            return {"": risk, "test_": risk.on("test")}
        return {"": risk}

    @cached_property
    def key(self) -> str:
        """
        Digest of all that the values depend on.

        Raises
        ------
        InvalidArgument
            If the landscape does not describe itself.
        """
        described = getattr(self.risk, "described", None)
        if described is None:
            raise InvalidArgument(
                f"{type(self.risk).__name__} has no attribute 'described', so a run cannot tell its"
                " blocks from another landscape's; leave out run, or give it one (a dict)."
            )
        facts: dict[str, Any] = {"described": described, "measures": sorted(self.risks)}
        tensors = list(self._tensors.values())
        if isinstance(self.risk, EmpiricalRisk):
            problem = self.risk.problem
            # Statistics of batch norm come from the training data whatever is measured.
            measured = [problem.samples("train"), *(r.data for r in self.risks.values())]
            facts["data"] = [samples.fingerprint for samples in measured]
            # Addresses in what modules and functions print differ between processes.
            facts["made of"] = re.sub("0x[0-9a-f]+", "", f"{problem.model} {problem.loss}")
            tensors += self.risk.fixed().values()
        text = torch.tensor(list(json.dumps(facts, sort_keys=True).encode()), dtype=torch.uint8)
        return digest(text, *tensors)

    @property
    def _tensors(self) -> dict[str, Tensor]:
        grid = self.grid
        axes = {
            f"axis_{name}": torch.from_numpy(a) for name, a in zip(AXES, grid.axes, strict=False)
        }
        return {"w": grid.w, "directions": grid.directions, **axes}

    def save(self, path: Path) -> None:
        """
        Write the scene where workers find it.

        Raises
        ------
        InvalidArgument
            If workers cannot make its risk again.
        """
        if not isinstance(self.risk, EmpiricalRisk):
            raise InvalidArgument(
                f"engine was given, and workers cannot make a {type(self.risk).__name__} again;"
                " leave out engine, or measure an EmpiricalRisk of load_problem(...)."
            )
        fixed = {_FIXED + name: tensor for name, tensor in self.risk.fixed().items()}
        tensors = {
            name: t.detach().cpu().contiguous() for name, t in (self._tensors | fixed).items()
        }
        about = {"recipe": json.dumps(recipe_of(self.risk)), "test": json.dumps(self.test)}
        write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=about))

    @classmethod
    def load(cls, path: Path, key: str) -> Scene:
        """
        Read what `save` wrote and make the risk again.

        Raises
        ------
        InvalidProblem
            If what is made here is not what ``key`` stands for.
        """
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata()
        fixed = {n.removeprefix(_FIXED): t for n, t in tensors.items() if n.startswith(_FIXED)}
        risk = remake(json.loads(about["recipe"]), fixed)
        axes = [tensors[f"axis_{name}"].numpy() for name in AXES if f"axis_{name}" in tensors]
        w, directions = (tensors[name].to(risk.device) for name in ("w", "directions"))
        scene = cls(risk, Grid(w, directions, axes), json.loads(about["test"]))
        if scene.key != key:
            raise InvalidProblem(
                f"{risk.problem.name}, made again by its entry string in a worker, is not the"
                " problem of the surface: model, loss, data or frozen weights differ. Let the entry"
                " make the same problem at every call, and change the model only by weights."
            )
        return scene
