"""Copies of one network side by side: the mini-batch gradients of all as one batch of models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map_only

from thalweg.errors import InvalidProblem, NotDefined, first_line
from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.space import ParameterSpace

if TYPE_CHECKING:
    from thalweg.risk.risk import EmpiricalRisk

# Loss, number of misclassified samples, gradient: as `EmpiricalRisk.batch_gradient` gives them.
Step = tuple[Tensor, Tensor | None, Tensor]


class Request(NamedTuple):
    """A step's gradient that a copy will ask for: which copy, at which weights, of which batch."""

    copy: int
    w: Tensor
    batch: Tensor


class BatchedModels:
    """
    Several points of one risk, each with running batch-norm buffers of its own.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of the network that all are copies of.
    measured : ModelCopy
        The risk's.
    count : int
        Number of copies K.

    Raises
    ------
    InvalidProblem
        If the model watches its pre-activations, which are recorded one network at a time; if the
        data are batches as given, which differ in shape; or if the model keeps its weights where no
        call can replace them.
    """

    def __init__(self, risk: EmpiricalRisk, measured: ModelCopy, count: int) -> None:
        if measured.watched:
            raise InvalidProblem(
                "excursions of polynomial activations are recorded one network at a time; train"
                " the copies one after another: write together=False."
            )
        if not risk.data.joined:
            raise InvalidProblem(
                "batches as given differ in shape, so copies cannot be evaluated as one batch of"
                " models; train the copies one after another: write together=False."
            )
        if not measured.functional:
            raise InvalidProblem(
                "the model keeps its weights where no call can replace them, so copies cannot be"
                " evaluated as one batch of models; train the copies one after another: write"
                " together=False."
            )
        self.risk, self.measured = risk, measured
        self.members = tuple(Copy(risk) for _ in range(count))

    def prepare(self, requests: Sequence[Request]) -> None:
        """
        Take the gradients that copies will ask for next, all batches of one length at once.

        Raises
        ------
        InvalidProblem
            If the model or its loss decides by values, so that no two can be evaluated as one.
        """
        ordered = sorted(requests, key=lambda request: (len(request.batch), request.copy))
        for _, group in itertools.groupby(ordered, key=lambda request: len(request.batch)):
            self._prepare(list(group))

    def _prepare(self, requests: list[Request]) -> None:
        members = [self.members[request.copy] for request in requests]
        batches = self._batches([request.batch for request in requests])
        weights = torch.stack([request.w for request in requests])
        buffers = _stack([member.held for member in members])
        try:
            with one_function():  # backward, too
                gradients, (losses, outputs, after) = vmap(grad(self._loss, has_aux=True))(
                    weights, buffers, batches
                )
        except RuntimeError as error:
            raise InvalidProblem(
                f"{self.risk.problem.name}: copies cannot be evaluated as one batch of models"
                f" ({first_line(error)}). Train them one after another: write"
                " together=False."
            ) from error
        for i, member in enumerate(members):
            member.held = {name: tensor[i] for name, tensor in after.items()}
            wrong = self._count_wrong(outputs[0][i], _of_copy(batches, i)) if outputs else None
            member.ready = losses[i], wrong, gradients[i]

    def _batches(self, indices: list[Tensor]) -> Any:
        """Give the samples of K batches of n, every tensor of shape (K, n, ...)."""
        moved = self.measured.moved(self.risk.data.take(torch.cat(indices)))
        shape = len(indices), len(indices[0])
        return tree_map_only(Tensor, lambda t: t.reshape(*shape, *t.shape[1:]), moved)

    def _loss(
        self, w: Tensor, buffers: dict[str, Tensor], batch: Any
    ) -> tuple[Tensor, tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]]:
        # Batch norm writes to its buffers: to clones, which are handed out.
        after = {name: tensor.clone() for name, tensor in buffers.items()}
        tensors = self.measured.space.unpack(w) | after
        frozen = self.measured.keeps_statistics
        with self.measured.norms.mode("stored" if frozen else "running"):
            evaluation = self.measured.forward_with(tensors, batch)
        loss, outputs = evaluation.mean(), evaluation.outputs
        shown = () if outputs is None else (outputs.detach(),)  # vmap gives tensors only
        return loss, (loss.detach(), shown, after)

    def _count_wrong(self, outputs: Tensor, batch: Any) -> Tensor | None:
        try:
            return self.risk.problem.wrong(outputs, batch).sum()
        except NotDefined:
            return None


class Copy:
    """
    One of several copies: a landscape whose next step's gradient has been prepared.

    Parameters
    ----------
    risk : EmpiricalRisk
        What it is measured by, on its own.
    """

    def __init__(self, risk: EmpiricalRisk) -> None:
        self.risk = risk
        self.held = risk.buffers()
        self.ready: Step | None = None

    @property
    def space(self) -> ParameterSpace:
        """The space of its points."""
        return self.risk.space

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.risk.samples

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and gradients."""
        return self.risk.dtype

    @property
    def device(self) -> torch.device:
        """Where passes run."""
        return self.risk.device

    @property
    def provenance(self) -> Provenance:
        """State which function is measured: that of the risk."""
        return self.risk.provenance

    @property
    def described(self) -> dict[str, Word]:
        """Say which function is measured: that of the risk."""
        return self.risk.described

    def fixed(self) -> dict[str, Tensor]:
        """Copy frozen weights, those of the risk, and its own buffers."""
        return self.risk.fixed() | self.buffers()

    def set_fixed(self, tensors: Mapping[str, Tensor]) -> None:
        """Set frozen weights of the risk and its own buffers by name; those not named stay."""
        self.risk.set_fixed(tensors)
        self.set_buffers(tensors)

    def buffers(self) -> dict[str, Tensor]:
        """Copy its own buffers."""
        return {name: tensor.clone() for name, tensor in self.held.items()}

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Set its own buffers by name; those not named stay."""
        shared = self.held.keys() & buffers.keys()
        self.held |= {name: buffers[name].to(self.held[name]) for name in shared}

    def batch_gradient(self, w: Tensor, batch: Tensor, /) -> Step:
        """Give the prepared gradient of this step."""
        ready, self.ready = self.ready, None
        assert ready is not None
        return ready

    def value(self, w: Tensor, /) -> float:
        """Evaluate the mean loss at ``w``."""
        return self._at_home().value(w)

    def value_and_gradient(self, w: Tensor, /) -> tuple[float, Tensor]:
        """Evaluate both at ``w``, on its own."""
        return self._at_home().value_and_gradient(w)

    def evaluate_samples(self, w: Tensor, /) -> dict[str, Tensor]:
        """Evaluate each sample's loss and, where it is defined, error."""
        return self._at_home().evaluate_samples(w)

    def evaluate(self, w: Tensor, /) -> dict[str, float]:
        """Evaluate loss and, where it is defined, error."""
        return self._at_home().evaluate(w)

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate the gradient at ``w``, on its own."""
        return self._at_home().gradient(w, batch)

    def _at_home(self) -> EmpiricalRisk:
        self.risk.set_buffers(self.held)
        return self.risk


def _of_copy(batches: Any, i: int) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor[i], batches)


def _stack(buffers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([tensors[name] for tensors in buffers]) for name in buffers[0]}
