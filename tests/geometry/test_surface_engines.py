"""Surfaces on engines: the blocks of workers are those of this process, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thalweg.errors import InvalidArgument, TaskFailed
from thalweg.geometry.surface import surface
from thalweg.landscape import ParameterSpace
from thalweg.problems import Problem, load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, LocalProcesses, Run, create_run

SMALL: dict[str, Any] = {"widths": [4, 4], "train_size": 60, "test_size": 30}


def digits(**options: Any) -> EmpiricalRisk:
    risk = EmpiricalRisk(load_problem("digits", **SMALL), batch_size=20, **options)
    # Buffers that the entry alone does not make.
    buffers = {name: tensor + 0.5 for name, tensor in risk.buffers().items()}
    risk.set_buffers({n: b for n, b in buffers.items() if b.is_floating_point()})
    return risk


def stored(run: Run) -> list[Path]:
    return sorted((run.path / "blocks").rglob("0*.safetensors"))


@pytest.mark.parametrize("options", [{"batchnorm": "frozen"}, {"dtype": torch.float64}])
def test_an_engine_changes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    risk = digits(**options)
    w = risk.space.pack(risk.problem.model)
    run = create_run(tmp_path / "run", {})
    here = surface(risk, w, points=[3, 4])
    there = surface(risk, w, points=[3, 4], run=run, engine=InProcess())
    assert there.identical(here) and float(here.loss.std()) > 0.01
    assert len(stored(run)) == 12
    assert surface(risk, w, points=[3, 4], run=run).identical(here), "kept blocks serve both"


def test_worker_processes_give_the_same_surface(tmp_path: Path) -> None:
    risk = digits(batchnorm="frozen")
    w = risk.space.pack(risk.problem.model)
    run = create_run(tmp_path / "run", {})
    found = surface(risk, w, points=3, run=run, engine=LocalProcesses(1))
    assert found.identical(surface(risk, w, points=3))


def test_an_engine_does_only_the_blocks_that_are_left(tmp_path: Path) -> None:
    risk = digits(batchnorm="frozen")
    w = risk.space.pack(risk.problem.model)
    run = create_run(tmp_path / "run", {})
    whole = surface(risk, w, points=3, run=run)
    first, *_, last = stored(run)
    first.unlink()
    before = last.stat().st_mtime_ns
    assert surface(risk, w, points=3, run=run, engine=InProcess()).identical(whole)
    assert len(list(run.tasks.glob("*.json"))) == 1 and last.stat().st_mtime_ns == before
    first.unlink()
    assert surface(risk, w, points=3, run=run, engine=InProcess()).identical(whole)


class Flat:
    """A landscape that only this process knows."""

    space = ParameterSpace.euclidean(2)
    described: dict[str, Any] = {"landscape": "flat"}  # noqa: RUF012

    def value(self, w: torch.Tensor, /) -> float:
        return 0.0

    def gradient(self, w: torch.Tensor, batch: torch.Tensor | None = None, /) -> torch.Tensor:
        return torch.zeros(2)


def test_what_workers_cannot_make_again_is_refused(tmp_path: Path) -> None:
    run, engine = create_run(tmp_path / "run", {}), InProcess()
    with pytest.raises(InvalidArgument, match="without run"):
        surface(Flat(), torch.ones(2), engine=engine)
    with pytest.raises(
        InvalidArgument, match="engine takes a Remakeable landscape, and Flat has no fixed"
    ):
        surface(Flat(), torch.ones(2), run=run, engine=engine)
    by_hand = Problem(nn.Linear(2, 1), nn.MSELoss(), (torch.ones(3, 2), torch.ones(3, 1)))
    with pytest.raises(InvalidArgument, match="put together in this process"):
        surface(EmpiricalRisk(by_hand), torch.ones(3), run=run, engine=engine)
    with_module = EmpiricalRisk(load_problem("digits", **SMALL, activation=nn.Tanh()))
    w = with_module.space.pack(with_module.problem.model)
    with pytest.raises(InvalidArgument, match="no JSON values"):
        surface(with_module, w, run=run, engine=engine)


def test_an_entry_that_makes_another_problem_is_found_out(tmp_path: Path) -> None:
    file, mood = tmp_path / "moody.py", tmp_path / "mood.txt"
    file.write_text(
        "import pathlib, torch, thalweg\n"
        "def make():\n"
        f"    mood = float(pathlib.Path({str(mood)!r}).read_text())\n"
        "    data = torch.full((3, 2), mood), torch.ones(3, 1)\n"
        "    return thalweg.Problem(torch.nn.Linear(2, 1), torch.nn.MSELoss(), data)\n"
    )
    mood.write_text("1.0")
    risk = EmpiricalRisk(load_problem(f"{file}:make"))
    mood.write_text("2.5")
    run, engine = create_run(tmp_path / "run", {}), InProcess()
    with pytest.raises(TaskFailed, match="not the problem of the surface"):
        surface(risk, torch.ones(3), directions=1, points=2, run=run, engine=engine)
