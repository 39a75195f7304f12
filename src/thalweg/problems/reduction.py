"""Whether a loss is a mean over samples: one batch against its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import DependsOnBatches, InvalidProblem
from thalweg.problems.criteria import SUMMED
from thalweg.problems.loss import Evaluation

# Sums in another order move a float32 loss by 1e-6, and a float64 one by 1e-7 where the model
# computes something in float32; a wrong reduction moves it by much more.
_TOLERANCE = {torch.float64: 1e-6, torch.bfloat16: 0.05, torch.float16: 0.01}
_REMEDIES = (
    " Return one loss per sample, shape (n,), from loss(model, batch). If samples count"
    " differently, say how much: Problem(..., weight=lambda batch: ...), the weight of a batch or"
    " those of its samples, e.g. its number of tokens that count. If the loss or the model is meant"
    " to compare the samples of a batch (a mean over it, negatives from it), the batches are part"
    " of the loss: give a list of them, or tw.Batches(loader); or take the data as one whole,"
    " tw.Whole(data) or EmpiricalRisk(..., batch_size=N) with all N samples."
)


def check_reduction(
    evaluate: Callable[[Any], Evaluation],
    batch: Any,
    parts: Sequence[Any],
    sizes: Sequence[int],
) -> None:
    """
    Find out whether a loss is a mean over samples, by a batch and its parts.

    Parameters
    ----------
    evaluate : callable
        From a batch to its losses and weights.
    batch : object
        The whole batch.
    parts : sequence
        Its parts, in order; of unlike sizes, so that a mean of means is found out.
    sizes : sequence of int
        Numbers of samples of the parts.

    Raises
    ------
    DependsOnBatches
        If a sample's loss or weight depends on its batch.
    InvalidProblem
        If the loss is a sum over samples.
    """
    whole, *pieces = (evaluate(samples).detached() for samples in (batch, *parts))
    if not bool(torch.isfinite(whole.losses).all()):
        return
    _check_weights(whole, pieces, sizes)
    if whole.losses.dim():
        expected = torch.cat([piece.losses.reshape(-1) for piece in pieces])
        if not _close(whole.losses, expected):
            raise _depends(float(whole.mean()), float(expected.mean()), pieces, sizes)
        return
    total = sum(piece.weight for piece in pieces)
    expected = torch.stack([piece.total() for piece in pieces]).sum() / total
    if _close(whole.losses, expected):
        return
    if _close(whole.losses, torch.stack([piece.losses for piece in pieces]).sum()):
        write = "loss.mean() in place of loss.sum(), or return (n,)"
        raise InvalidProblem(SUMMED.format(what="the loss", write=write))
    raise _depends(float(whole.losses), float(expected), pieces, sizes)


def _check_weights(whole: Evaluation, pieces: Sequence[Evaluation], sizes: Sequence[int]) -> None:
    got, expected = whole.weight, sum(piece.weight for piece in pieces)
    if abs(got - expected) > 1e-4 * abs(got):
        raise DependsOnBatches(
            f"weight= depends on how samples are put into batches: it gives {got:.6g} for a batch"
            f" of {sum(sizes)}, and {expected:.6g} for its parts of {_joined(sizes)} together."
            " Expected a number that adds up, such as the number of tokens that count, or one for"
            " each sample, shape (n,)."
        )


def _depends(
    got: float, expected: float, pieces: Sequence[Evaluation], sizes: Sequence[int]
) -> DependsOnBatches:
    means = [float(piece.mean()) for piece in pieces]
    of_means = all(not piece.losses.dim() for piece in pieces)
    between = of_means and min(means) < got < max(means)
    hint = (
        " It lies between the parts' own, as a mean does that counts some samples more than others:"
        " class weights, or ignored tokens."
        if between
        else ""
    )
    return DependsOnBatches(
        f"the loss depends on how samples are put into batches: {got:.6g} on a batch of"
        f" {sum(sizes)}, {expected:.6g} as the mean over its parts of {_joined(sizes)}."
        + hint
        + _REMEDIES
    )


def _joined(sizes: Sequence[int]) -> str:
    *first, last = map(str, sizes)
    return f"{', '.join(first)} and {last}" if first else last


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    tolerance = _TOLERANCE.get(a.dtype, 1e-4)
    scale = float(torch.maximum(a.abs().max(), b.abs().max()))
    return bool(((a - b).abs() <= tolerance * scale + 1e-12).all())
