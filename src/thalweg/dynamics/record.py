"""Recording any training loop: checkpoints and metrics as it goes, the training unchanged."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from thalweg.dynamics.checkpoint_writer import Keeper, as_run
from thalweg.dynamics.optimizer_state import flatten_state, restore_state, rng_tensors, set_rng
from thalweg.errors import CheckpointMismatch, InvalidArgument, RunConflict
from thalweg.run.checkpoints import RESUME_PREFIX
from thalweg.run.store import Run


class Recorder:
    """
    Watches an optimizer and keeps what a later look or an exact resume needs; see `record`.

    Attributes
    ----------
    step : int
        How many steps the optimizer has taken.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, keeper: Keeper, every: int
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.step = 0
        self._keeper, self._every = keeper, every
        self._metrics: dict[str, float] = {}
        self._kept: int | None = None
        self._within_step = False

    def __enter__(self) -> Self:
        self._old = self._keeper.paths()
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
        ]
        self._aside = self._passing_state()
        if not self._old:
            self._keep(self._aside)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        # A step that was interrupted half-way leaves weights that belong to no step.
        if self._old or self._within_step or self._kept == self.step:
            return
        self._keep(self._passing_state() if error is None else self._aside)

    def log(self, **metrics: float | Tensor) -> None:
        """Note metrics of the present step, such as ``loss=..., error=...``."""
        plain = {name: float(value) for name, value in metrics.items()}
        self._metrics |= plain
        self._keeper.log(plain, self.step)

    def restore(self) -> int:
        """
        Load the last checkpoint back into model, optimizer and torch's global generators.

        Returns
        -------
        int
            The step it was kept at, 0 if there is none: the loop goes on from there.

        Raises
        ------
        CheckpointMismatch
            If the model or the optimizer is not of the kind that was recorded.
        """
        found = self._keeper.latest()
        self._old = []
        if found is None:
            return self.step
        tensors, about = found
        plain = {name: t for name, t in tensors.items() if not name.startswith(RESUME_PREFIX)}
        try:
            self.model.load_state_dict(plain)
            self.optimizer.load_state_dict(restore_state(tensors, about["optimizer"]))
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointMismatch(
                f"the last checkpoint of {self._keeper.trajectory!r} does not fit: {error}"
            ) from None
        set_rng(tensors)
        self.step = self._kept = about["step"]
        self._aside = self._passing_state()
        return self.step

    def _before_step(self, *_: object) -> None:
        if self._old:
            raise RunConflict(
                f"trajectory {self._keeper.trajectory!r} has {len(self._old)} checkpoints already."
                " Call recorder.restore() before the first step to go on from the last, or write"
                " trajectory='another name'."
            )
        self._within_step = True

    def _after_step(self, *_: object) -> None:
        self._within_step = False
        self.step += 1
        self._aside = self._passing_state()
        if self.step % self._every == 0:
            self._keep(self._aside)

    def _passing_state(self) -> dict[str, Tensor]:
        """Copy what the next forward pass changes: a resume must not see it changed twice."""
        trained = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        state = self.model.state_dict()
        passing = {name: tensor.clone() for name, tensor in state.items() if name not in trained}
        return passing | rng_tensors()

    def _keep(self, passing: dict[str, Tensor]) -> None:
        state, structure = flatten_state(self.optimizer.state_dict())
        about = {
            "parameters": [n for n, p in self.model.named_parameters() if p.requires_grad],
            "loss": self._metrics.get("loss"),
            "error": self._metrics.get("error"),
            "metrics": self._metrics,
            "optimizer": structure,
        }
        tensors = {**self.model.state_dict(), **state, **passing}
        self._keeper.keep(self.step, _unshared(tensors), about)
        self._kept, self._metrics = self.step, {}


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights), which a safetensors file cannot hold."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.detach().clone() if place in seen else tensor
        seen.add(place)
    return plain


def record(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    run: Run | str | os.PathLike[str],
    every: int = 100,
    trajectory: str = "main",
) -> Recorder:
    """
    Record any training loop: a context manager around it.

    Inside the block a checkpoint is kept before the first step, after each ``every`` steps of the
    optimizer, and at the end, also where the block ends by an error or Ctrl-C. Each holds the
    model's ``state_dict``, the optimizer's state and torch's global random state. The training
    itself is not touched: its weights are the same, bit for bit, with and without recording.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    optimizer : torch.optim.Optimizer
        What trains it; its calls to ``step`` are counted.
    run : Run or path
        Where to record; a plain run directory is made at a new path.
    every : int
        Steps between checkpoints.
    trajectory : str
        Name of this training in the run.

    Returns
    -------
    Recorder
        With ``log(loss=..., error=...)``, ``step``, and ``restore()``, which goes back to the last
        checkpoint and returns its step.

    Raises
    ------
    InvalidArgument
        If ``every`` is less than one.
    RunConflict
        At the first step, if the trajectory has checkpoints and ``restore()`` was not called.

    Notes
    -----
    A resumed loop repeats the rest exactly if its data follow from the step or from torch's global
    generators at a step's beginning. The state of a learning-rate scheduler is not kept: set its
    rate from ``recorder.step``.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with record(model, optimizer, run=folder, every=2) as recorder:
    ...         for _ in range(recorder.restore(), 5):
    ...             loss = model(torch.ones(1, 2)).square().sum()
    ...             optimizer.zero_grad()
    ...             loss.backward()
    ...             optimizer.step()
    ...     recorder.step
    5
    """
    if every < 1:
        raise InvalidArgument(f"every={every}; write a number of steps from 1 on.")
    return Recorder(model, optimizer, Keeper(as_run(run), trajectory), every)
