"""Record what a Lightning ``Trainer`` trains."""

from __future__ import annotations

import os
from typing import Any

import torch

from thalweg.errors import MissingExtra
from thalweg.integrations.recording import Recording
from thalweg.run import Run

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise MissingExtra(
        "thalweg.integrations.lightning needs the package lightning; write"
        " pip install 'thalweg[lightning]'."
    ) from None


class RecordTraining(Callback):
    """
    A callback that records a training, as `thalweg.record` does a loop of one's own.

    Weights stand under the names that they have in the module, as in Lightning's own ``.ckpt``
    files; only the first of several processes records. Nothing that goes wrong in recording ends
    the training.

    Parameters
    ----------
    run : Run or path
        Where to record; a plain run directory is made at a new path.
    every : int
        Optimizer steps between checkpoints.
    trajectory : str
        Name of the training in the run.

    Examples
    --------
    ``Trainer(callbacks=[RecordTraining("runs/mine", every=50)])``
    """

    def __init__(
        self, run: Run | str | os.PathLike[str], *, every: int = 100, trajectory: str = "main"
    ) -> None:
        self._recording = Recording(run, every=every, trajectory=trajectory)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, before the first batch."""
        if trainer.is_global_zero:
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            self._recording.begin(pl_module, trainer.optimizers, schedulers)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the loss of a step that is logged."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            self._recording.log(loss=loss if isinstance(loss, torch.Tensor) else None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End, after the last batch."""
        self._recording.end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what there is where the training ends by an error or Ctrl-C."""
        self._recording.end(exception)
