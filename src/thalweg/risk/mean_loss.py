"""The mean loss of a model over samples: its value, and losses and errors sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.curvature.vector_products import Traces
from thalweg.errors import InvalidArgument, InvalidWeights, NotDefined
from thalweg.evaluation.batch_size import choose_batch_size, measure_activations
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.landscape.provenance import Provenance, Split, Word
from thalweg.problems.samples import Samples
from thalweg.problems.weighing import Totals
from thalweg.risk.model_state import ModelState
from thalweg.risk.passes import Passes
from thalweg.risk.self_check import SelfCheck

# Share of the memory that may hold samples in the form in which the model takes them.
FOR_SAMPLES = 8


class MeanLoss(ModelState):
    """
    The mean loss of a model over the samples of a split, and what each sample adds to it.

    Attributes
    ----------
    split : {"train", "test"}
        Which data are measured.
    memory : int
        Budget in bytes for the activations of a batch.
    checked : SelfCheck or None
        What the self-check found.
    """

    split: Split
    memory: int
    checked: SelfCheck | None
    _given_batch_size: int | None
    _given_samples: Samples
    _batch_size: int | None
    _traces: Traces

    def _setup(
        self, measured: ModelCopy, split: Split, batch_size: int | None, memory: int
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidArgument(f"batch_size={batch_size}; write a positive number or None.")
        self._measured, self.split, self.memory = measured, split, memory
        self._given_samples = measured.problem.samples(split, batch_size=batch_size)
        if measured.policy == "batch" and measured.norms and not self._given_samples.joined:
            self._check_whole()
        self._given_batch_size = self._batch_size = batch_size
        self._traces: Traces = {}

    def _check_whole(self) -> None:
        if self.samples > 1:
            raise InvalidArgument(
                f"batchnorm='batch' takes all data as one batch, and these are {self.samples}"
                " batches as given; write batchnorm='recalibrate' or 'frozen'."
            )

    @property
    def _samples(self) -> Samples:
        """The samples, in the form in which the model takes them where there is room for it."""
        return self._measured.convert_once(self._given_samples, self.memory // FOR_SAMPLES)

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return len(self._given_samples)

    @property
    def totals(self) -> Totals:
        """What the split's samples add up to: their weight in the value, and in the error."""
        return self.problem.totals(self._given_samples)

    @property
    def data(self) -> Samples:
        """The samples themselves."""
        return self._samples

    @property
    def batch_size(self) -> int:
        """Samples evaluated at once; of batches as given, one."""
        if not self._samples.joined:
            return 1
        if self._batch_size is None:
            self._batch_size = choose_batch_size(self._measured, self._samples, self.memory)
        return self._batch_size

    @property
    def activation_bytes(self) -> int:
        """Bytes that the evaluation of one sample keeps for a backward pass."""
        return measure_activations(self._measured, self._samples).total

    @property
    def target_scale(self) -> float:
        """Root mean square of the targets; 1 where there are none."""
        targets = self._samples.targets
        return 1.0 if targets is None else float(targets.double().square().mean().sqrt())

    @property
    def provenance(self) -> Provenance:
        """State which function is measured, and how, as facts that code may test."""
        return Provenance(
            problem=self.problem.name,
            split=self.split,
            samples=self.samples,
            batchnorm=self.policy if self.normalized else "none",
            dtype=self.dtype,
            data=self._given_samples.described,
            weighed=self.problem.weighed_by(self._given_samples),
            draws=self.problem.drawn(self._given_samples),
            further={} if self.checked is None else {"self-check": self.checked.words},
        )

    @property
    def described(self) -> dict[str, Word]:
        """Say which function is measured, and how: stands in the attributes of every result."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the mean loss at ``w``, shape (W,)."""
        return self._at(w).evaluate(count_wrong=False)["loss"]

    def error(self, w: Tensor, /) -> float:
        """
        Evaluate the share of misclassified samples at ``w``.

        Raises
        ------
        NotDefined
            If the problem is a regression.
        """
        values = self._at(w).evaluate(count_wrong=True)
        if "error" not in values:
            self._passes.check_classifies()  # raises, and says why
        return values["error"]

    def evaluate(self, w: Tensor, /) -> dict[str, float]:
        """Evaluate ``loss`` and, where it is defined, ``error`` in one pass."""
        return self._at(w).evaluate(count_wrong=True)

    @property
    def output_shape(self) -> torch.Size | None:
        """Shape of the network's outputs on the first sample; None where the loss shows none."""
        with self._measured.values():
            outputs = self._measured.forward(self.data.slice(0, 1))[0].outputs
        return None if outputs is None else outputs.shape

    def sample_losses(self, w: Tensor, /) -> Tensor:
        """
        Evaluate every sample's loss at ``w``.

        Returns
        -------
        Tensor
            Shape (N,), in the order of the data. Where samples count differently (class weights,
            ignored targets, ``Problem(weight=...)``), sample i's is ``weight_i loss_i N / T``, T
            the sum of the weights, so that the plain mean of all is always the value.
        """
        passes = self._at(w)
        with self._measured.values():
            return torch.cat([passes.losses(*bounds) for bounds in passes.bounds()])

    def evaluate_samples(self, w: Tensor, /) -> dict[str, Tensor]:
        """
        Evaluate each sample's ``loss`` and, where it is defined, ``error``.

        Returns
        -------
        dict
            Tensors of shape (N,), whose plain means are those of `evaluate`: losses as those of
            `sample_losses`; errors 0 or 1, and N over the number of samples that are not ignored
            in place of 1 where some are.
        """
        passes = self._at(w)
        with self._measured.values():
            parts = [passes.of_samples(*bounds) for bounds in passes.bounds()]
        losses, wrong = zip(*parts, strict=True)
        values = {"loss": torch.cat(losses)}
        return values if wrong[0] is None else values | {"error": torch.cat(wrong)}

    def residuals(self, w: Tensor, /) -> Tensor:
        """
        Evaluate outputs minus targets at ``w``: shape (N, C).

        Raises
        ------
        NotDefined
            If the loss is not the squared loss, or samples do not count alike.
        """
        weighed = self.problem.weighed_by(self._samples)
        if weighed is not None and self._samples.joined:
            raise NotDefined(
                f"samples count {weighed}, so the risk is not the mean square of its residuals;"
                " leave out weight=."
            )
        passes = self._at(w)
        with self._measured.values():
            batches = (self._samples.slice(*bounds) for bounds in passes.bounds())
            return torch.cat([passes.residuals(batch) for batch in batches])

    @property
    def _passes(self) -> Passes:
        return Passes(self._measured, self._samples, self.totals, lambda: self.batch_size)

    def _at(self, w: Tensor) -> Passes:
        self._settle(w)
        return self._passes

    def _settle(self, w: Tensor) -> None:
        if bad := self.space.not_finite(w):
            raise InvalidWeights(
                f"{bad}. The risk is defined for finite weights; take a checkpoint from before the"
                " training diverged."
            )
        self._measured.settle(w)
