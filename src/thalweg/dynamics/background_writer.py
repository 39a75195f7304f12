"""Checkpoints written while the training goes on: from copies, in a thread, a bounded number."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics.checkpoint_writer import CheckpointWriter
from thalweg.run.bounds import memory_limit

# One that is written and one that is copied: with more, a disk that is too slow would only be
# noticed later.
_COPIES = 2


class BackgroundWriter:
    """
    Write checkpoints behind a training's back.

    The state is copied at once, into memory that is used again; a thread that lives as long as the
    write takes brings it to the disk. Where two copies are on their way, or memory does not hold
    two, the training waits.

    Attributes
    ----------
    written : int or None
        The step of the last checkpoint that is known to lie on the disk.
    failed : int or None
        The step of one that could not be written.
    """

    def __init__(self) -> None:
        self.written: int | None = None
        self.failed: int | None = None
        self._free: list[dict[str, Tensor]] = [{} for _ in range(_COPIES)]
        self._writes: deque[_Write] = deque()

    def keep(
        self,
        writer: CheckpointWriter,
        step: int,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
    ) -> None:
        """
        Have the checkpoint of a step written.

        Raises
        ------
        Exception
            What an earlier write raised.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if _COPIES * size > memory_limit() and not any(self._free):
            self.finish()
            writer.keep(step, tensors, about)
            self.written = step
            return
        while self._writes and (not self._free or not self._writes[0].thread.is_alive()):
            self._take_back()
        copies = _copied(tensors, self._free.pop())
        before = self._writes[-1].thread if self._writes else None
        self._writes.append(_Write(writer, step, copies, about, before))

    def finish(self) -> None:
        """Wait for all that is on its way; the first error of a write is raised."""
        while self._writes:
            self._take_back()

    def _take_back(self) -> None:
        """Wait for the oldest write, and have its memory back."""
        write = self._writes.popleft()
        write.thread.join()
        self._free.append(write.copies)
        if write.error is not None:
            self.failed = write.step
            raise write.error
        self.written = write.step


class _Write:
    """One checkpoint on its way to the disk, after the one before it."""

    def __init__(
        self,
        writer: CheckpointWriter,
        step: int,
        copies: dict[str, Tensor],
        about: Mapping[str, Any],
        before: threading.Thread | None,
    ) -> None:
        self.writer, self.step, self.copies, self.about = writer, step, copies, about
        self.before = before
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=f"checkpoint of step {step}")
        self.thread.start()

    def _run(self) -> None:
        if self.before is not None:
            self.before.join()
            self.before = None
        try:
            self.writer.keep(self.step, self.copies, self.about)
        except Exception as error:
            self.error = error


def _copied(tensors: Mapping[str, Tensor], memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, into memory that held such ones before where there is any."""
    copies = {}
    for name, tensor in tensors.items():
        plain, room = tensor.detach(), memory.get(name)
        if room is not None and _alike(room, plain):
            copies[name] = room.copy_(plain)
        else:
            copies[name] = plain.to("cpu", copy=True)
    return copies


def _alike(room: Tensor, tensor: Tensor) -> bool:
    return (
        room.shape == tensor.shape
        and room.dtype == tensor.dtype
        and room.layout == tensor.layout == torch.strided
        and room.is_conj() == tensor.is_conj()
        and room.is_neg() == tensor.is_neg()
    )
