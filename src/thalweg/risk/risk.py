"""The empirical risk of a network on its data: the landscape that Thalweg is about."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal, Self
from warnings import warn

import torch
from torch import Tensor, nn

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.gram import gram, pull_back
from thalweg.curvature.operators import GaussNewton, Hessian, Jacobian
from thalweg.curvature.vector_products import Method, Plan, Traces
from thalweg.errors import (
    InvalidArgument,
    InvalidWeights,
    NotDefined,
    ThalwegError,
)
from thalweg.evaluation.batch_size import choose_batch_size, keep_large_blocks, product_batch_size
from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.evaluation.normalization import check_policy
from thalweg.landscape.provenance import Provenance, Split, Word
from thalweg.problems.batches import digest
from thalweg.problems.precision import full_precision
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples
from thalweg.problems.weighing import Totals
from thalweg.risk.batched_models import BatchedModels
from thalweg.risk.many_points import evaluate_points
from thalweg.risk.model_state import ModelState
from thalweg.risk.passes import Passes
from thalweg.risk.per_sample import PerSample
from thalweg.risk.self_check import NotTheModel, SelfCheck, check_level, self_check
from thalweg.risk.spec import load_again, write_spec
from thalweg.run.progress import Progress, silent

# Share of the memory that may hold samples in the form in which the model takes them.
_FOR_SAMPLES = 8
_BORROWED = (
    "%s: %s. No copy of it is the model (a function refers to the original); your own module is"
    " measured, lent for each call and given back as it was."
)
log = logging.getLogger("thalweg")


class EmpiricalRisk(ModelState):
    """
    The mean loss of a problem's model over its data, as a function of one flat vector.

    The model is copied; the user's stays as it is, buffers included. Dropout is off. Means weigh
    every sample the same however the data are split into batches, and are accumulated in float64.

    Parameters
    ----------
    problem : Problem
        Model, loss and data.
    split : {"train", "test"}
        Which data are measured. Batch-norm statistics are re-estimated on the training data in
        either case.
    batchnorm : {"recalibrate", "frozen", "held", "batch"}
        Which function of w is measured where the model has batch normalization: statistics
        re-estimated at w in calibration batches of 250 whose moments are pooled (the default),
        frozen at the model's buffers, re-estimated once at the model's own weights and held for
        every w (`held` moves the point), or those of the whole set taken as one batch.
    dtype : torch.dtype, optional
        float32 or float64; by default the model's own, float32 at least.
    device : torch.device or str, optional
        Where to compute; by default where the model is.
    batch_size : int, optional
        Samples evaluated at once; by default as many as memory serves fast. Batches as given
        are always evaluated one by one. Where the loss compares the samples of a batch, a number
        of at least N has all samples make one whole.
        Products of the Hessian take half as many of a given size, else what the budget allows.
    memory : int
        Budget in bytes for the activations of a batch.
    check : {"quick", "full", False} or SelfCheck
        How much is compared before the first number, on samples chosen at random: the losses
        with those of the user's own model, here and at moved weights; gradient and a product with
        the Hessian with differences; and that the user's model and data are unchanged. The
        ``checked`` of another risk of the same model is taken over, and nothing checked again.

    Attributes
    ----------
    checked : SelfCheck or None
        What the check found.

    Raises
    ------
    NotDeterministic
        If the first samples evaluated twice give two answers.
    SelfCheckFailed
        If what would be measured is not the user's function, or its gradient is not its own.

    Notes
    -----
    Mini-batch gradients use the batch's own statistics, as training does, except under
    ``"frozen"`` and ``"held"``. The full gradient is the gradient of the value, and the Hessian
    its derivative: under ``"recalibrate"`` and ``"batch"`` they go through the statistics.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        split: Split = "train",
        batchnorm: str = "recalibrate",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        memory: int = 1 << 30,
        check: Literal["quick", "full", False] | SelfCheck = "quick",
    ) -> None:
        place = None if device is None else torch.device(device)
        policy, level = check_policy(batchnorm), check_level(check)
        _say_dropout(problem.model)
        keep_large_blocks()
        why = ""
        for borrow in (False, True):
            measured = ModelCopy(problem, policy, dtype, place, borrow=borrow)
            self._setup(measured, split, batch_size, memory)
            try:
                self._prepare()
                self.checked = self_check(measured, self._calibration, level) if level else None
                if policy == "held":
                    measured.hold(measured.weights)
                if why:
                    log.warning(_BORROWED, problem.name, why)
                return
            except (NotTheModel, RuntimeError) as difference:
                # Only a copy's: a borrowed module is not told from the model by them.
                if measured.borrowed or isinstance(difference, ThalwegError):
                    raise
                why = str(difference).partition("\n")[0]

    @property
    def _calibration(self) -> Samples:
        return self.problem.samples("train", batch_size=self._given)

    def _prepare(self) -> None:
        """Find out how the model takes its inputs, and that it answers alike when asked twice."""
        measured = self._measured
        measured.calibration = self._calibration
        measured.find_changed_inputs(self._calibration)
        measured.choose_layout(self._calibration)
        measured.calibration = measured.convert_once(self._calibration, self.memory // _FOR_SAMPLES)
        self._passes.check_deterministic()

    def _setup(
        self, measured: ModelCopy, split: Split, batch_size: int | None, memory: int
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidArgument(f"batch_size={batch_size}; write a positive number or None.")
        self._measured, self.split, self.memory = measured, split, memory
        self._given_samples = measured.problem.samples(split, batch_size=batch_size)
        if measured.policy == "batch" and measured.norms and not self._given_samples.joined:
            self._check_whole()
        self._given = self._batch_size = batch_size
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
        return self._measured.convert_once(self._given_samples, self.memory // _FOR_SAMPLES)

    def on(self, split: Split) -> EmpiricalRisk:
        """Give the risk on other data of the same problem; both share model and statistics."""
        risk = object.__new__(EmpiricalRisk)
        risk._setup(self._measured, split, self._given, self.memory)
        risk._batch_size, risk.checked = self._batch_size, self.checked
        return risk

    def held(self, w: Tensor, /) -> EmpiricalRisk:
        """
        Give the risk whose batch-norm statistics are those at ``w``, whatever point it is at.

        Parameters
        ----------
        w : Tensor
            Shape (W,): where the statistics are re-estimated, once.

        Returns
        -------
        EmpiricalRisk
            With ``batchnorm="held"``; a Hessian of it costs half of one through the statistics.
        """
        risk = EmpiricalRisk(
            self.problem,
            split=self.split,
            batchnorm="held",
            dtype=self.dtype,
            device=self.device,
            batch_size=self._given,
            memory=self.memory,
            check=False,
        )
        risk.set_fixed(self.fixed())
        risk.hold(w)
        risk.checked = self.checked
        return risk

    def hold(self, w: Tensor, /) -> None:
        """
        Re-estimate the batch-norm statistics at ``w``, and use them at every point from now on.

        Parameters
        ----------
        w : Tensor
            Shape (W,).

        Raises
        ------
        InvalidArgument
            If the risk does not hold its statistics.
        """
        if self.policy != "held":
            raise InvalidArgument(
                f"batchnorm={self.policy!r} holds no statistics; write risk.held(w)."
            )
        self._measured.hold(w)

    def held_out(self) -> EmpiricalRisk | None:
        """Give the risk on the test data, or None where there are none, or these are they."""
        return self.on("test") if self.split == "train" and self.problem.test is not None else None

    def draw(self, indices: Tensor, /) -> PerSample:
        """Give some samples by their indices, shape (n,), to be evaluated one by one."""
        return PerSample(self, indices)

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
    def target_scale(self) -> float:
        """Root mean square of the targets; 1 where there are none."""
        targets = self._samples.targets
        return 1.0 if targets is None else float(targets.double().square().mean().sqrt())

    def gram(
        self,
        w: Tensor,
        /,
        *,
        outputs: Sequence[int] | Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """
        Assemble the Gram matrix J J^T of the outputs' Jacobian at ``w``, in float64 on the CPU.

        Options are those of `thalweg.curvature.gram.gram`.
        """
        exact = self.in_double()
        return gram(exact._jacobian(w), outputs=outputs, progress=progress)

    def pull_back(
        self, w: Tensor, y: Tensor, /, *, outputs: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Multiply the outputs' transposed Jacobian: see `thalweg.curvature.gram.pull_back`."""
        return pull_back(self.in_double()._jacobian(w), y, outputs=outputs)

    def _jacobian(self, w: Tensor) -> Jacobian:
        return self.jacobian(w.detach().to(self.device, self.dtype))

    def in_double(self) -> EmpiricalRisk:
        """Give this function of w, with its state, in float64 on the CPU: itself where it is."""
        cpu = torch.device("cpu")
        if self.dtype == torch.float64 and self.device == cpu:
            return self
        policy, memory = self.policy, self.memory
        exact = EmpiricalRisk(
            self.problem,
            split=self.split,
            batchnorm=policy,
            dtype=torch.float64,
            device=cpu,
            memory=memory,
            check=False,
        )
        exact.set_fixed(self.fixed())
        exact.checked = self.checked
        return exact

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``.

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        batch : Tensor, optional
            Indices of samples, shape (n,): the gradient of their mean loss.

        Returns
        -------
        Tensor
            Shape (W,), in the risk's dtype.
        """
        return self.value_and_gradient(w, batch)[1]

    def value_and_gradient(self, w: Tensor, batch: Tensor | None = None, /) -> tuple[float, Tensor]:
        """Evaluate loss and gradient (of a mini-batch, where one is given) in one pass."""
        if batch is not None:
            loss, _, gradient = self.batch_gradient(w, batch, track=False)
            return float(loss), gradient.clone()
        passes = self._at(w)
        loss_sum, total = passes.gradient()
        return loss_sum, total.to(self.dtype)

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """
        Evaluate loss and gradient at many points, shape (k, W): shapes (k,) and (k, W).

        As one batch of models, unless batch norm or the data's form forbid it.
        """
        self._settle(points[0])
        return evaluate_points(self, self._measured, points)

    def hessian(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> Hessian:
        """
        Give the Hessian at ``w`` as a linear operator, shape (W, W).

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        layers : iterable of str, optional
            Only the block of these layers' weights; ``op.entries`` are their places in ``w``.
        method : {"trace", "graph", "recompute"}, optional
            How products are computed; by default the fastest on the first batch. What is kept
            between products stays within the risk's ``memory``.

        Returns
        -------
        Hessian
            ``op @ v`` for v of shape (W,) or (W, k). It is the derivative of `gradient`, through
            batch-norm statistics where they depend on the weights; ``batchnorm="held"`` is half
            as dear.
        """
        return Hessian(self._plan(w, layers, method))

    def gauss_newton(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> GaussNewton:
        """
        Give the Gauss-Newton matrix at ``w`` as a linear operator, shape (W, W).

        Parameters are those of `hessian`, without the method ``"graph"``. Its factors are
        ``op.jacobian`` and ``op.loss_hessian``.
        """
        return GaussNewton(self._plan(w, layers, method))

    def jacobian(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> Jacobian:
        """
        Give the Jacobian of the outputs at ``w`` as a linear operator, shape (N C, W).

        Parameters are those of `hessian`, without the method ``"graph"``. Row ``i * C + c``
        belongs to output c of sample i; ``op.T`` is the transpose.
        """
        return Jacobian(self._plan(w, layers, method))

    def _plan(self, w: Tensor, layers: Iterable[str] | None, method: Method | None) -> Plan:
        self._settle(w)
        functions = BatchFunctions(
            *(self._measured, self._samples, self._product_batch, w, layers),
            weight=self.totals.weight,
        )
        through = self.policy == "recalibrate" and bool(self._measured.norms)
        return Plan(functions, self.described, method, self.memory, self._traces, through)

    @cached_property
    def _product_batch(self) -> int:
        if not self._samples.joined:
            return 1
        if self._given is None:
            return product_batch_size(self._measured, self._samples, self.memory)
        # Products work on several times the numbers of a forward pass: half the batch.
        return max(1, self._given // 2)

    def stepping(self) -> AbstractContextManager[None]:
        """Set up once, for the steps inside the block, what each would set up by itself."""
        return one_function()

    def batch_gradient(
        self, w: Tensor, batch: Tensor, /, *, track: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """
        Take one training step's gradient, without waiting for any number.

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        batch : Tensor
            Indices of samples, shape (n,).
        track : bool
            Let batch norm update the running buffers of the model's copy, as training does.

        Returns
        -------
        loss : Tensor
            Mean loss of the batch, weighted as torch's criterion weighs on this batch, 0-d.
        wrong : Tensor or None
            Number of misclassified samples, 0-d, of batches as given their number times the share
            of misclassified samples; None where it is not defined.
        gradient : Tensor
            Shape (W,); overwritten by the next call.
        """
        measured, passes = self._measured, self._passes
        measured.load(w)
        measured.gradient.zero_()
        mode = measured.norms.mode(self._step_mode(track))
        with full_precision(), mode, measured.watching():
            evaluation, moved = measured.forward(passes.data.take(batch))
            loss = evaluation.mean()
            loss.backward()
        return loss.detach(), passes.wrong_in_step(evaluation.outputs, moved), measured.gradient

    def copies(self, count: int) -> BatchedModels:
        """Give ``count`` copies whose training steps are taken as one batch of models."""
        return BatchedModels(self, self._measured, count)

    def fingerprint(self) -> str:
        """Digest the data, the model but for its trainable weights, and the loss."""
        # Addresses in what modules and functions print differ between processes.
        made_of = re.sub("0x[0-9a-f]+", "", f"{self.problem.model} {self.problem.loss}")
        # Statistics of batch norm come from the training data whatever is measured.
        data = [self.problem.samples("train").fingerprint, self._samples.fingerprint]
        text = " ".join([*data, made_of]).encode()
        return digest(torch.tensor(list(text), dtype=torch.uint8), *self.fixed().values())

    def spec(self) -> dict[str, Any]:
        """
        Write down how this risk is made, in JSON values for `remake`.

        Raises
        ------
        InvalidArgument
            If its problem was put together by hand, or by settings that are no JSON values.
        """
        return {
            "problem": write_spec(self.problem),
            "split": self.split,
            "batchnorm": self.policy,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            # Measured here, so that all workers round alike.
            "batch_size": self.batch_size,
            "memory": self.memory,
            "check": self.checked.level if self.checked else False,
        }

    def recipe(self) -> dict[str, Any]:
        """Give `spec` under its old name, with a warning."""
        warn("EmpiricalRisk.recipe is called spec now", DeprecationWarning, stacklevel=2)
        return self.spec()

    @classmethod
    def remake(cls, spec: Mapping[str, Any], fixed: Mapping[str, Tensor]) -> Self:
        """Make the risk of a specification again, with these frozen weights and buffers."""
        how = {**spec, "dtype": getattr(torch, spec["dtype"])}
        risk = cls(load_again(how.pop("problem")), **how)
        risk.set_fixed(fixed)
        return risk

    def _step_mode(self, track: bool) -> Literal["stored", "running", "batch"]:
        if self._measured.keeps_statistics:
            return "stored"
        return "running" if track else "batch"

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


def _say_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            log.warning(
                "%s (Dropout) is in train mode; the risk is measured with dropout off. Write"
                " model.eval() to say that this is meant.",
                name,
            )
            return
