"""The copy of a model compared with the user's own: their losses, at its weights and at others."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import SelfCheckFailed
from thalweg.evaluation.borrowed import Borrowed
from thalweg.evaluation.call import one_function
from thalweg.evaluation.copying import dtype_of
from thalweg.evaluation.model_copy import ModelCopy, to
from thalweg.landscape.space import plain_name
from thalweg.problems.loss import Evaluation
from thalweg.problems.module_attributes import to_evaluation_mode
from thalweg.problems.samples import Samples

# Relative differences of one function evaluated twice in a precision, by other kernels.
ROUNDING = {torch.float64: 1e-8, torch.float32: 3e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
log = logging.getLogger("thalweg")


class NotTheModel(Exception):
    """A copy answers otherwise than the model it was made of."""


class ValueCheck:
    """
    Losses of a copy and of the user's own model, on the same samples at the same weights.

    Parameters
    ----------
    measured : ModelCopy
        The copy, or the user's module lent.
    samples : Samples
        Those that are compared.
    points : tuple of Tensor
        The model's weights, and moved ones, shape (W,) each.
    """

    def __init__(self, measured: ModelCopy, samples: Samples, points: tuple[Tensor, ...]) -> None:
        self.measured, self.problem = measured, measured.problem
        self.samples, self.points = samples, points

    def largest_difference(self) -> float:
        """
        Give the largest difference of the copy's losses from those of the user's own model.

        Raises
        ------
        NotTheModel
            If the copy answers otherwise than the model, beyond rounding.
        SelfCheckFailed
            If the user's module itself does, lent, or the loss does not depend on the weights.
        """
        batch = self.samples.slice(0, len(self.samples))
        own = self._losses_of_user(batch)
        with self.measured.values():
            copied = [self._losses(w, batch) for w in self.points]
        self._check_moves(own, copied)
        self._say_what_is_not_finite(own[0])
        expected, measured = torch.stack(own), torch.stack(copied)
        finite = torch.isfinite(expected) & torch.isfinite(measured)
        expected, measured = expected[finite], measured[finite]
        if not len(expected):
            return math.nan
        scale, apart = float(expected.abs().max()), float((expected - measured).abs().max())
        difference = apart / scale if scale else apart
        if difference > self._rounding:
            self._say_difference(own, copied)
        return difference

    def _say_what_is_not_finite(self, losses: Tensor) -> None:
        finite = int(torch.isfinite(losses).sum())
        if finite == losses.numel():
            return
        log.warning(
            "%s: at the model's own weights %d of the %d losses that the self-check looked at are"
            " not finite numbers; see whether the data hold NaN or infinite numbers, and whether"
            " the loss divides by zero or takes a logarithm of it.",
            self.problem.name,
            losses.numel() - finite,
            losses.numel(),
        )

    @property
    def _rounding(self) -> float:
        kinds = {t.dtype for t in self.problem.model.parameters() if t.is_floating_point()}
        return max(ROUNDING.get(kind, 2e-3) for kind in {*kinds, self.measured.dtype})

    def _losses(self, w: Tensor, batch: Any) -> Tensor:
        self.measured.load(w)
        return _counted(self.measured.forward(batch)[0])

    def _losses_of_user(self, batch: Any) -> list[Tensor]:
        """Evaluate the user's own module, lent for it and given back, at both points."""
        model, space = self.problem.model, self.measured.space
        device = next(model.parameters()).device
        moved = to(batch, device, _dtype_taken(model))
        losses = []
        for w in self.points:
            lent = Borrowed(model)  # anew: it may keep what it computes at one point
            with one_function(), lent():
                to_evaluation_mode(model)
                named = {plain_name(name): p for name, p in model.named_parameters()}
                for name, tensor in space.unpack(w).items():
                    named[name].data.copy_(tensor)
                losses.append(_counted(self.problem.evaluate(model, _cloned(moved))))
        return losses

    def _check_moves(self, own: list[Tensor], copied: list[Tensor]) -> None:
        if any(not torch.equal(*pair) for pair in (own, copied)):
            return
        raise SelfCheckFailed(
            f"{self.problem.name}: the loss is {float(own[0].mean()):.6g} at your weights and, to"
            " the last bit, at weights moved by 25 %: it does not depend on the model's weights."
            " Does the loss use the model that it is given (loss(model, batch) must call `model`),"
            " and does the model read its weights anew at every call (nothing cached)?"
        )

    def _say_difference(self, own: list[Tensor], copied: list[Tensor]) -> None:
        measured, expected = _told_apart(copied[0], own[0])
        moved, expected_moved = _told_apart(copied[1], own[1])
        if self.measured.dtype == torch.float32 and dtype_of(self.problem.model) == torch.float64:
            log.warning(
                "%s: in float32, as asked, the loss is %s where your float64 model gives %s;"
                " leave out dtype to measure in float64.",
                self.problem.name,
                measured,
                expected,
            )
            return
        words = (
            f"the loss measured is {measured} where your model gives {expected}, and {moved} where"
            f" it gives {expected_moved} at moved weights"
        )
        if not self.measured.borrowed:
            raise NotTheModel(words)
        raise SelfCheckFailed(
            f"{self.problem.name}: {words}. Something outside of the module's parameters and"
            " buffers decides what it computes; write the model so that forward depends on these"
            " and on its inputs alone, or check=False to measure it nevertheless."
        )


def _told_apart(*losses: Tensor) -> tuple[str, ...]:
    """Write means with as many digits as tell them apart, six at least."""
    means = [float(of_samples.mean()) for of_samples in losses]
    written = (tuple(f"{mean:.{digits}g}" for mean in means) for digits in range(6, 18))
    return next((words for words in written if len(set(words)) > 1), tuple(map(str, means)))


def _dtype_taken(model: nn.Module) -> torch.dtype:
    """Give the precision that the user's model takes inputs in."""
    kinds = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return kinds[0] if kinds else dtype_of(model)


def _counted(evaluation: Evaluation) -> Tensor:
    """Give the losses, 0 where they count nothing."""
    losses, weights, _ = evaluation.detached()
    counted = losses if weights is None else torch.where(weights == 0, 0.0, losses)
    return counted.double().cpu()


def _cloned(batch: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.clone, batch)
