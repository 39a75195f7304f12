"""What a landscape holds beside the weights that are trained: frozen weights and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from thalweg.landscape.protocols import Landscape, Stateful


class LandscapeState:
    """
    Frozen weights and buffers of a landscape by name; none where it is not `Stateful`.

    Parameters
    ----------
    landscape : Landscape
        Whose they are.
    """

    def __init__(self, landscape: Landscape) -> None:
        # Asked once: to compare with a protocol takes Python longer than a short step of training.
        self._stateful = landscape if isinstance(landscape, Stateful) else None

    def buffers(self) -> dict[str, Tensor]:
        """Copy the buffers."""
        return {} if self._stateful is None else dict(self._stateful.buffers())

    def fixed(self) -> dict[str, Tensor]:
        """Copy frozen weights and buffers."""
        return {} if self._stateful is None else dict(self._stateful.fixed())

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Overwrite the buffers named."""
        if buffers and self._stateful is not None:
            self._stateful.set_buffers(buffers)

    def set_fixed(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the frozen weights and buffers named."""
        if tensors and self._stateful is not None:
            self._stateful.set_fixed(tensors)

    @contextmanager
    def left_as_found(self) -> Iterator[None]:
        """Put everything back after the block."""
        before = self.fixed()
        try:
            yield
        finally:
            self.set_fixed(before)
