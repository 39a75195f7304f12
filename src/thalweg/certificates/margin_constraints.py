"""What "correctly classified" asks of a network's outputs: linear inequalities, one set a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import NotDefined
from thalweg.problems.problem import Problem


@dataclass(frozen=True)
class Decision:
    """
    Samples that are right under the same inequalities ``rows @ outputs > threshold``.

    Attributes
    ----------
    samples : Tensor
        Their numbers in the batch, int64.
    rows : Tensor
        float64, shape (K, C).
    threshold : float
        What each must exceed.
    """

    samples: Tensor
    rows: Tensor
    threshold: float

    def margins(self, outputs: Tensor) -> Tensor:
        """Evaluate by how much each inequality holds: shape (n, K), of these samples' outputs."""
        return outputs @ self.rows.T - self.threshold


def decisions(problem: Problem, outputs: Tensor, targets: Tensor) -> list[Decision]:
    """
    Write out when the samples of a batch are right.

    Parameters
    ----------
    problem : Problem
        Classes by the largest of C outputs, or two classes by one output on either side of a
        threshold.
    outputs : Tensor
        Shape (n, C), (n, 1) or (n,), at any weights: only its shape matters.
    targets : Tensor
        As the problem has them.

    Returns
    -------
    list of Decision
        One for each class that occurs.

    Raises
    ------
    NotDefined
        If the problem decides in another way.
    """
    if problem.error is not None:
        raise NotDefined(
            "a certified margin reads classes off the largest output, or off the side of a single"
            " one; this problem has an error(outputs, targets) of its own. Use class numbers or"
            " one-hot targets."
        )
    problem.wrong(outputs, (None, targets))  # raises where targets are no classes
    labels, threshold = labels_and_threshold(problem, targets, outputs)
    if threshold is None:
        return [_largest(outputs.shape[1], int(c), labels) for c in labels.unique()]
    positive = labels > 0
    sides = [(positive, 1.0), (~positive, -1.0)]
    return [
        Decision(
            torch.nonzero(chosen).flatten(),
            torch.tensor([[sign]], dtype=torch.float64),
            sign * threshold,
        )
        for chosen, sign in sides
        if bool(chosen.any())
    ]


def labels_and_threshold(
    problem: Problem, targets: Tensor, outputs: Tensor
) -> tuple[Tensor, float | None]:
    """
    Give class numbers, shape (n,), and the threshold where one output tells two classes apart.

    Parameters
    ----------
    problem, targets, outputs
        As for `decisions`.
    """
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        return targets if targets.dim() == 1 else targets.argmax(1), None
    kind = problem.output_kind
    labels = (targets.flatten() > (0.0 if kind == "signed" else 0.5)).long()
    return labels, 0.5 if kind == "probabilities" else 0.0


def _largest(classes: int, label: int, labels: Tensor) -> Decision:
    rows = -torch.eye(classes, dtype=torch.float64)
    rows[:, label] += 1.0
    other_classes = [c for c in range(classes) if c != label]
    return Decision(torch.nonzero(labels == label).flatten(), rows[other_classes], 0.0)
