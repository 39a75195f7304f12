"""Recording a training of Lightning, with the real library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import thalweg as tw
from thalweg.run import open_run

lightning = pytest.importorskip("lightning.pytorch")

from thalweg.integrations.lightning import RecordTraining  # noqa: E402


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.fail_at = fail_at

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer

    def training_step(self, batch: Any, index: int) -> Tensor:
        if index == self.fail_at:
            raise RuntimeError("the user's own error")
        x, y = batch
        return nn.functional.mse_loss(self(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


def fit(model: Net, folder: Path, *callbacks: Any, epochs: int = 2) -> Any:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=5,
        default_root_dir=folder,
    )
    trainer.fit(model, DataLoader(TensorDataset(*data()), batch_size=4))
    return trainer


def made() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.mark.filterwarnings("ignore")
def test_a_training_is_recorded_and_left_as_it_is(tmp_path: Path) -> None:
    plain, recorded = made(), made()
    fit(plain, tmp_path)
    trainer = fit(recorded, tmp_path, RecordTraining(tmp_path / "run", every=8))
    for one, other in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)
    run = open_run(tmp_path / "run")
    steps = [int(path.name.partition(".")[0]) for path in run.checkpoints("main")]
    assert steps == [0, 8, 16, 20]
    assert [event["step"] for event in run.events() if "loss" in event] == [5, 10, 15, 20]
    # The last checkpoint is the model, and Lightning's own file opens as the same point.
    problem = tw.Problem(recorded, nn.MSELoss(), data())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(recorded)
    assert torch.equal(tw.open_point(problem, run.checkpoints("main")[-1]).weights(risk.space), w)
    assert torch.equal(tw.open_point(problem, tmp_path / "own.ckpt").weights(risk.space), w)


@pytest.mark.filterwarnings("ignore")
def test_an_error_of_the_users_ends_the_recording_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(Net(fail_at=6), tmp_path, RecordTraining(tmp_path / "run", every=4), epochs=1)
    steps = [path.name for path in open_run(tmp_path / "run").checkpoints("main")]
    # Lightning computes losses within the optimizer's step: what an error leaves there is no step.
    assert [int(name.partition(".")[0]) for name in steps] == [0, 4]


@pytest.mark.filterwarnings("ignore")
def test_one_callback_serves_several_trainings(tmp_path: Path) -> None:
    callback = RecordTraining(tmp_path / "run", every=10)
    fit(made(), tmp_path, callback, epochs=1)
    fit(made(), tmp_path, callback, epochs=1)
    run = open_run(tmp_path / "run")
    assert len(run.checkpoints("main")) == len(run.checkpoints("main-2")) == 2
