"""Which function a landscape is: facts that code may test, and the words made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Policy = Literal["batch", "frozen", "held", "recalibrate"]
Split = Literal["train", "test"]
Word = str | int | float

POLICIES: dict[str, str] = {
    "batch": "batch-norm statistics of the whole set taken as one batch",
    "frozen": "batch-norm statistics frozen at the model's buffers",
    "held": "batch-norm statistics re-estimated on the training set at one point, and held",
    "recalibrate": "batch-norm statistics re-estimated at w on the training set",
}
_NO_BATCH_NORM = "no batch norm"


@dataclass(frozen=True)
class Provenance:
    """
    Which function is measured, and how.

    What is None is not known, or has no meaning for the landscape.

    Attributes
    ----------
    problem : str or None
        Name of the problem.
    split : {"train", "test"} or None
        Which of its data are measured.
    samples : int or None
        Number of samples.
    batchnorm : {"recalibrate", "frozen", "held", "batch", "none"} or None
        What batch normalization uses; ``"none"`` where a network has none.
    dtype : torch.dtype or None
        Of weights, gradients and forward passes.
    data : str or None
        How the data are taken: samples joined, batches as given, one whole.
    weighed : str or None
        How samples are weighed, where not each counts one.
    draws : str or None
        How random numbers of the model or loss are held fixed, where any are drawn.
    further : mapping of str to str, int or float
        More that results state and no code tests.

    Examples
    --------
    >>> provenance = Provenance("digits", split="train", batchnorm="none")
    >>> provenance.words
    {'problem': 'digits', 'split': 'train', 'batchnorm': 'no batch norm'}
    """

    problem: str | None = None
    split: Split | None = None
    samples: int | None = None
    batchnorm: Policy | Literal["none"] | None = None
    dtype: torch.dtype | None = None
    data: str | None = None
    weighed: str | None = None
    draws: str | None = None
    further: Mapping[str, Word] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        """Whether samples depend on one another, by batch statistics taken at each point."""
        return self.batchnorm in ("recalibrate", "batch")

    @property
    def constant(self) -> bool:
        """Whether batch norm uses the same statistics at every point."""
        return self.batchnorm in ("frozen", "held")

    @property
    def words(self) -> dict[str, Word]:
        """What stands in the attributes of results."""
        norm = None if self.batchnorm is None else POLICIES.get(self.batchnorm, _NO_BATCH_NORM)
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        facts: dict[str, Word | None] = {
            "problem": self.problem,
            "split": self.split,
            "samples": self.samples,
            "batchnorm": norm,
            "dtype": dtype,
            "data": self.data,
            "weighed": self.weighed,
            "draws": self.draws,
            **self.further,
        }
        return {name: fact for name, fact in facts.items() if fact is not None}
