"""Numbers and figures of results in trackers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.geometry.trace import trace
from thalweg.integrations.trackers import log_result


class Wandb:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int | None]] = []

    def log(self, content: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((content, step))


def test_numbers_of_results_of_every_kind() -> None:
    matrix = torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64))
    found = trace(matrix, rtol=0.01)
    tracker = Wandb()
    sent = log_result(tracker, found, name="trace", step=7)
    assert sent["trace/value"] == pytest.approx(10.0, rel=0.02)
    assert tracker.logged == [(sent, 7)]
    data = xr.Dataset({"loss": 0.5, "curve": ("t", np.ones(3))}, attrs={"length": 2, "how": "x"})
    assert log_result(Wandb(), data, name="line") == {"line/length": 2.0, "line/loss": 0.5}
    nested = {"a": {"b": 1, "yes": True, "none": None, "nan": float("nan")}}
    assert log_result(Wandb(), nested, name="n") == {"n/a/b": 1.0}


def test_figures_go_beside_them() -> None:
    figure = Figure()
    tracker = Wandb()
    log_result(tracker, {"x": 1}, name="n", figures={"line": figure})
    assert tracker.logged == [({"n/x": 1.0, "n/line": figure}, None)]


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="holds no single finite number"):
        log_result(Wandb(), {"x": float("inf")}, name="n")
    with pytest.raises(InvalidArgument, match="a list has neither log nor add_scalar"):
        log_result([], {"x": 1}, name="n")


def test_tensorboard(tmp_path: Any) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    log_result(writer, {"x": 1.5}, name="n", step=3, figures={"line": Figure()})
    writer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("n/x")
    assert (scalar.step, scalar.value) == (3, 1.5)
    assert events.Tags()["images"] == ["n/line"]


def test_swa_models_are_points(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    problem = tw.Problem(model, torch.nn.MSELoss(), (torch.randn(4, 2), torch.randn(4, 1)))
    space = tw.EmpiricalRisk(problem).space
    point = tw.open_point(problem, tmp_path / "swa.pt")
    assert torch.equal(point.weights(space), space.pack(model))
