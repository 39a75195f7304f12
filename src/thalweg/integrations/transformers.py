"""Record what a Hugging Face ``Trainer`` trains."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from thalweg.errors import MissingExtra
from thalweg.integrations.recording import Recording
from thalweg.run import Run

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise MissingExtra(
        "thalweg.integrations.transformers needs the package transformers; write"
        " pip install 'thalweg[transformers]'."
    ) from None


class RecordTraining(TrainerCallback):
    """
    A callback that records a training, as `thalweg.record` does a loop of one's own.

    Only the first of several processes records. The trainer tells no callback of an error that
    ends it: the checkpoints up to there are kept, not one of the end.

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
    ``Trainer(model, arguments, callbacks=[RecordTraining("runs/mine", every=50)], ...)``
    """

    def __init__(
        self, run: Run | str | os.PathLike[str], *, every: int = 100, trajectory: str = "main"
    ) -> None:
        self._recording = Recording(run, every=every, trajectory=trajectory)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        """Begin, before the first batch."""
        if state.is_world_process_zero and model is not None:
            # accelerate wraps both; the plain ones are stepped, and have the states.
            plain = getattr(optimizer, "optimizer", optimizer)
            scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
            self._recording.begin(model, [plain], [scheduler] if scheduler is not None else [])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write what the trainer logs: losses, the gradient's norm, the learning rate."""
        numbers = {
            name.replace("/", "_"): value
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        self._recording.log(**numbers)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End, after the last batch."""
        self._recording.end()
