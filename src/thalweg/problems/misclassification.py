"""Which samples are misclassified: rules for the usual forms of outputs and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import NotDefined
from thalweg.problems.criteria import Kind

_WRITE = (
    " Write Problem(..., error=wrong) with `def wrong(outputs, targets)` returning a bool tensor of"
    " shape (n,), True where a sample counts as misclassified."
)


def wrong(outputs: Tensor, targets: object, kind: Kind) -> Tensor:
    """
    Say which samples are misclassified.

    Parameters
    ----------
    outputs : Tensor
        Shape (n, C), or (n,) or (n, 1) for two classes.
    targets : Tensor
        Class numbers (n,), one-hot rows (n, C), or 0 and 1 (for a signed criterion -1 and 1).
    kind : str
        How the criterion reads outputs.

    Returns
    -------
    Tensor
        Shape (n,), bool.

    Raises
    ------
    NotDefined
        If nothing of this fits.
    """
    if not isinstance(targets, Tensor):
        raise NotDefined(f"the targets are a {type(targets).__name__}, not a tensor." + _WRITE)
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        if targets.dim() == 1 and not targets.is_floating_point():
            return outputs.argmax(1) != targets
        if targets.shape == outputs.shape and _one_hot(targets):
            return outputs.argmax(1) != targets.argmax(1)
    single = outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)
    if single and targets.numel() == len(outputs) and kind in ("logits", "probabilities", "signed"):
        threshold = 0.5 if kind == "probabilities" else 0.0
        least = 0.0 if kind == "signed" else 0.5
        return (outputs.flatten() > threshold) != (targets.flatten() > least)
    raise NotDefined(
        "classification error is not defined for outputs of shape"
        f" {tuple(outputs.shape)} and {_described(targets)}." + _WRITE
    )


def _one_hot(targets: Tensor) -> bool:
    binary = ((targets == 0) | (targets == 1)).all()
    return bool(binary & (targets.sum(1) == 1).all())


def _described(targets: Tensor) -> str:
    kind = str(targets.dtype).removeprefix("torch.")
    return f"{kind} targets of shape {tuple(targets.shape)} that are no classes"


class NearestClass:
    """
    Classification by a scalar: a sample counts as wrong where its output is nearer another class.

    Parameters
    ----------
    classes : int
        C; class c has the target value 2 c / (C - 1) - 1.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def encode(self, labels: Tensor) -> Tensor:
        """Give the targets of class numbers (N,): shape (N, 1), float32, in [-1, 1]."""
        return (labels.float() * (2 / max(1, self.classes - 1)) - 1).unsqueeze(1)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compare outputs and targets, both (n, 1)."""
        return self._decode(outputs) != self._decode(targets)

    def _decode(self, values: Tensor) -> Tensor:
        steps = (values.flatten() + 1) * ((self.classes - 1) / 2)
        return torch.clamp(steps.round(), 0, self.classes - 1)
