"""How a problem's data are taken: what its loss, evaluated on some of them, says of all."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.errors import DependsOnBatches, NotDeterministic
from thalweg.problems.draws import DrawingFunctions, DrawnSamples, Draws
from thalweg.problems.given import Batches, Whole
from thalweg.problems.loss import Evaluation, Loss, TorchLoss
from thalweg.problems.objects import unbox
from thalweg.problems.precision import full_precision
from thalweg.problems.reduction import check_reduction
from thalweg.problems.samples import Samples
from thalweg.problems.untouched import Untouched
from thalweg.run.seeds import torch_generator

# Samples that a loss of the user's own is looked at on, and how far its weights are moved there;
# under a loss of torch's only the model could compare samples, and fewer show that.
_PROBED, _PROBED_OF_TORCH = 128, 32
_MOVE = 0.1
# Samples on which a loss is tried.
TRIED = 4
log = logging.getLogger("thalweg")


class Arrangement(ABC):
    """
    What a problem finds out about its loss on real data before any number is measured.

    Whether it draws random numbers, which are then held; whether it is a mean over samples, so that
    they may be joined to any batches; and which targets it ignores.
    """

    model: nn.Module
    draws: Literal["fixed"] | None
    name: str
    _split: dict[str, Samples]
    _arranged: dict[str, Samples | DependsOnBatches]
    _wholes: dict[str, Samples]
    _draws: Draws

    @property
    @abstractmethod
    def _loss(self) -> Loss:
        """The loss as one of a batch of samples."""

    @abstractmethod
    def evaluate(self, model: nn.Module, batch: Any) -> Evaluation:
        """Evaluate a batch."""

    def _look(
        self,
        evaluate: Callable[[nn.Module, Any], Evaluation],
        batch: Any,
        move: float = 0,
        seed: int = 0,
        by: Untouched | None = None,
    ) -> Evaluation:
        """Evaluate a batch with the user's own model, moved a little, and leave no trace on it."""
        placed = _as_taken(batch, self.model)
        with full_precision():
            return (by or Untouched(self.model))(
                lambda model, own: evaluate(model, unbox(own)), placed, move, seed
            )

    def _arrange(self, split: str) -> Samples | DependsOnBatches:
        """Look at the loss on real data: how these are to be taken, or why they cannot be."""
        samples = self._split[split]
        noisy = self._is_noisy(samples)
        try:
            if noisy:
                samples = self._with_draws(samples, split)
            if samples.joined:
                self._check_samples(samples, noisy)
        except DependsOnBatches as error:
            batches = getattr(self._split[split], "batches", None)
            if batches is None:
                return error
            reason = str(error).partition(". ")[0]
            log.warning("%s: %s. The batches are taken as they are given.", self.name, reason)
            as_given = Batches(batches, what=f"the {split} data")
            return self._with_draws(as_given, split) if noisy else as_given
        return samples

    def find_plain_splits(self) -> frozenset[str]:
        """Look at all splits; give those to be taken as they are: without noise, in any batches."""
        for split in self._split.keys() - self._arranged.keys():
            self._arranged[split] = self._arrange(split)
        return frozenset(
            split for split, taken in self._arranged.items() if taken is self._split[split]
        )

    def take_plainly(self, splits: Collection[str]) -> None:
        """Take splits as they are: so they were found to be taken on a problem of the same code."""
        for split in self._split.keys() & splits:
            samples, loss = self._split[split], self._loss
            if samples.joined and isinstance(loss, TorchLoss):
                self._find_ignored(loss, samples)
            self._arranged[split] = samples

    def _check_samples(self, samples: Samples, noisy: bool) -> None:
        loss = self._loss
        if isinstance(loss, TorchLoss):
            self._find_ignored(loss, samples)
            self._check_places(loss, samples)
        if noisy:
            self._check_draws(samples)
        else:
            self._check_reduction(samples)

    def _is_noisy(self, samples: Samples) -> bool:
        """Say whether random numbers move the loss."""
        first = samples.slice(0, min(TRIED, len(samples)) if samples.joined else 1)
        look = Untouched(self.model)
        try:
            losses, again = (
                self._look(self.evaluate, first, seed=seed, by=look).losses for seed in (1, 2)
            )
        except Exception:  # where it is evaluated in earnest, it says why it cannot be
            return False
        if look.drew:  # even if nothing came of it for these samples
            return True
        return losses.shape != again.shape or not torch.allclose(
            losses, again, 1e-5, 0, equal_nan=True
        )

    def _with_draws(self, samples: Samples, split: str) -> Samples:
        """Hold the random numbers of each sample fixed."""
        if self.draws is None and not self._draws.said:
            log.warning(
                "%s draws random numbers (noise): each sample keeps one draw, the same at every w."
                " Write Problem(..., draws='fixed') to say that this is meant.",
                self.name,
            )
            self._draws.said = True
        drawn = DrawnSamples(samples, split)
        count = len(drawn)
        if drawn.joined and count > 1 and not self._draws.layouts:
            sizes = (min(5, count - 1), min(7, count))
            smaller, larger = (self._drawn_shapes(drawn, size) for size in sizes)
            self._draws.find(smaller, larger, sizes)
        first = drawn.slice(0, min(TRIED, count) if drawn.joined else 1)
        losses, again = (self._look(self.evaluate, first, seed=seed).losses for seed in (1, 2))
        if not torch.equal(torch.nan_to_num(losses), torch.nan_to_num(again)):
            raise self._not_held(first)
        return drawn

    def _not_held(self, batch: Any) -> NotDeterministic:
        """Say why two evaluations differ although random numbers were held."""
        with DrawingFunctions() as drawing:
            self._look(self.evaluate, batch)
        source = (
            f"random numbers (noise) of {', '.join(sorted(set(drawing.names)))}, which cannot be"
            " held fixed."
            if drawing.names
            else "no random numbers of torch, which were held fixed (draws='fixed'). Does noise"
            " come from NumPy or the module random, from TorchScript, or does the forward change"
            " what it reads at the next call?"
        )
        return NotDeterministic(
            f"{self.name}: evaluated twice, the first samples gave two answers, for {source} Draw"
            " noise by torch.rand_like or torch.randn_like, or switch it off."
        )

    def _drawn_shapes(self, samples: Samples, size: int) -> dict[str, list[torch.Size]]:
        self._look(self.evaluate, samples.slice(0, size))
        return self._draws.shapes()

    def _check_draws(self, samples: Samples) -> None:
        """Find out whether each sample's numbers are its own, in any batch."""
        try:
            self._check_reduction(samples)
        except DependsOnBatches:
            if not self._draws.set_apart():
                raise
            self._check_reduction(samples)

    def _whole(self, split: str) -> Samples:
        if split not in self._wholes:
            samples = self._split[split]
            whole: Samples = Whole(samples.slice(0, len(samples)), what=f"the {split} data")
            noisy = self._is_noisy(whole)
            self._wholes[split] = self._with_draws(whole, split) if noisy else whole
        return self._wholes[split]

    def _find_ignored(self, loss: TorchLoss, samples: Samples) -> None:
        """Have targets looked at for ignored ones, batch by batch, only where there may be any."""
        ignored, targets = loss.criterion.ignored, samples.targets
        ignores = ignored is not None and (targets is None or bool((targets == ignored).any()))
        loss.may_ignore = ignores or (bool(self._arranged) and loss.may_ignore)

    def _check_places(self, loss: TorchLoss, samples: Samples) -> None:
        """Refuse weights that belong to places in a batch, where there are any."""
        if loss.criterion.places:
            self._look(self.evaluate, samples.slice(0, min(TRIED, len(samples))))

    def _check_reduction(self, samples: Samples) -> None:
        """Evaluate random samples, whole and in parts, at the user's weights and at others."""
        if len(samples) == 1 or _mixes_by_itself(self.model):
            return
        torchs = isinstance(self._loss, TorchLoss)
        probed = _PROBED_OF_TORCH if torchs else _PROBED
        order = torch.randperm(len(samples), generator=torch_generator(0, "reduction"))[:probed]
        cut = max(1, len(order) // 3)  # unequal: the mean must be weighted
        whole, *parts = (samples.take(indices) for indices in (order, order[:cut], order[cut:]))
        # A loss of torch's is no sum that is zero by chance here: the model's own weights suffice.
        for move in (0.0,) if torchs else (0.0, _MOVE):
            evaluate = partial(self._look, self.evaluate, move=move)
            check_reduction(evaluate, whole, parts, (cut, len(order) - cut))


def _mixes_by_itself(model: nn.Module) -> bool:
    # Batch norm without running statistics mixes samples whatever the loss is.
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    return any(not norm.track_running_stats for norm in norms)


def _as_taken(batch: Any, model: nn.Module) -> Any:
    """Give a batch where the model's weights are, real numbers in their precision."""
    parameters = list(model.parameters())
    kinds = [p.dtype for p in parameters if p.is_floating_point()]
    kinds += [p.dtype.to_real() for p in parameters if p.is_complex()]
    device, dtype = parameters[0].device, kinds[0] if kinds else torch.get_default_dtype()
    return torch.utils._pytree.tree_map_only(
        Tensor, lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), batch
    )
