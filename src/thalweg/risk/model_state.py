"""The model's copy behind a landscape: where it computes, and its state beside w."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thalweg.errors import NotDefined, first_line
from thalweg.evaluation.copying import as_evaluated, cast, copy_module
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.landscape.provenance import Policy
from thalweg.landscape.space import ParameterSpace
from thalweg.polynomial import Excursion, excursions, reset_excursions
from thalweg.problems.problem import Problem


class ModelState:
    """What an empirical risk has from the copy of its model alone, whatever the data."""

    _measured: ModelCopy

    @property
    def problem(self) -> Problem:
        """The problem measured."""
        return self._measured.problem

    @property
    def space(self) -> ParameterSpace:
        """The space of the trainable weights."""
        return self._measured.space

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, gradients and forward passes."""
        return self._measured.dtype

    @property
    def device(self) -> torch.device:
        """Where passes run."""
        return self._measured.device

    @property
    def policy(self) -> Policy:
        """What batch normalization uses: the argument ``batchnorm``."""
        return self._measured.policy

    @property
    def normalized(self) -> bool:
        """Whether the model has batch normalization."""
        return bool(self._measured.norms)

    def excursions(self, *, reset: bool = False) -> dict[str, Excursion]:
        """Give what polynomial activations saw in training steps; ``reset`` forgets it then."""
        seen = excursions(self._measured.model)
        if reset:
            reset_excursions(self._measured.model)
        return seen

    def buffers(self) -> dict[str, Tensor]:
        """Copy the buffers of the model's copy, as training left them."""
        return self._measured.buffers()

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Set buffers of the model's copy by name; those not named stay."""
        self._measured.set_fixed(buffers)

    def fixed(self) -> dict[str, Tensor]:
        """Copy all of the state that w leaves out: frozen weights and buffers, by name."""
        return self._measured.fixed()

    def set_fixed(self, tensors: Mapping[str, Tensor]) -> None:
        """Set frozen weights and buffers of the model's copy by name; those not named stay."""
        self._measured.set_fixed(tensors)

    def model_in_double(self) -> nn.Module:
        """
        Copy the model as the user wrote it, in float64 on the CPU, with the state measured.

        Nothing in it is taken over; its trained weights are the user's.

        Raises
        ------
        NotDefined
            If it cannot be copied, or no copy is the model.
        """
        if self._measured.borrowed:
            raise NotDefined(
                f"the structure of {type(self.problem.model).__name__} is read off a copy of it,"
                " and no copy is the model: it cannot be copied, or a function (a hook, a wrapped"
                " forward) refers to the original; write that as a part of its forward, which"
                " reads self."
            )
        try:
            model = copy_module(self.problem.model)
        except Exception as error:  # any module may come, and say anything
            raise NotDefined(
                f"the structure of {type(self.problem.model).__name__} is read off a copy of it,"
                f" and it cannot be copied: {first_line(error)}."
            ) from None
        as_evaluated(cast(model, torch.device("cpu"), torch.float64))
        state = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, tensor in self.fixed().items():
            state[name].data.copy_(tensor)
        return model
