"""The empirical risk of a network on its data: the landscape that Thalweg is about."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self
from warnings import warn
from weakref import WeakSet

import torch
from torch import Tensor, nn

from thalweg.curvature.gram import gram, pull_back
from thalweg.curvature.operators import Jacobian
from thalweg.errors import InvalidArgument, NotDeterministic, ThalwegError, first_line
from thalweg.evaluation.batch_size import keep_large_blocks
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.evaluation.normalization import check_policy
from thalweg.landscape.provenance import Split
from thalweg.problems.batches import digest
from thalweg.problems.module_attributes import ModuleAttributes
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples
from thalweg.risk.batched_models import BatchedModels
from thalweg.risk.derivatives import Derivatives
from thalweg.risk.many_points import evaluate_points
from thalweg.risk.mean_loss import FOR_SAMPLES
from thalweg.risk.per_sample import PerSample
from thalweg.risk.self_check import SelfCheck, check_level, self_check
from thalweg.risk.spec import load_again, write_spec
from thalweg.run.progress import Progress, silent

_BORROWED = (
    "%s: %s. No copy of it is the model (a function refers to the original); your own module is"
    " measured, lent for each call and given back as it was."
)
log = logging.getLogger("thalweg")


class EmpiricalRisk(Derivatives):
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
        why, own = "", ModuleAttributes(problem.model)
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
            except Exception as difference:
                # Only a copy's: a borrowed module is not told from the model by them.
                refused = isinstance(difference, ThalwegError)
                if measured.borrowed or (refused and not isinstance(difference, NotDeterministic)):
                    raise
                sentence = first_line(difference).partition(". ")[0]
                why = sentence.removeprefix(f"{problem.name}: ")
                own.exchange()  # what its class or a function did to the model through the copy

    @property
    def _calibration(self) -> Samples:
        return self.problem.samples("train", batch_size=self._given_batch_size)

    def _prepare(self) -> None:
        """Find out how the model takes its inputs, and that it answers alike when asked twice."""
        measured = self._measured
        measured.calibration = self._calibration
        measured.look_at(self._calibration)
        measured.choose_layout(self._calibration)
        measured.calibration = measured.convert_once(self._calibration, self.memory // FOR_SAMPLES)
        self._passes.check_deterministic()

    def on(self, split: Split) -> EmpiricalRisk:
        """Give the risk on other data of the same problem; both share model and statistics."""
        risk = object.__new__(EmpiricalRisk)
        risk._setup(self._measured, split, self._given_batch_size, self.memory)
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
            batch_size=self._given_batch_size,
            memory=self.memory,
            check=self.checked or False,
        )
        risk.set_fixed(self.fixed())
        risk.hold(w)
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
            check=self.checked or False,
        )
        exact.set_fixed(self.fixed())
        return exact

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """
        Evaluate loss and gradient at many points, shape (k, W): shapes (k,) and (k, W).

        As one batch of models, unless batch norm or the data's form forbid it.
        """
        self._settle(points[0])
        return evaluate_points(self, self._measured, points)

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


_SAID: WeakSet[nn.Module] = WeakSet()  # a check-up makes a dozen risks of one model


def _say_dropout(model: nn.Module) -> None:
    """Say once of a model that its dropout is left off."""
    if model in _SAID:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            log.warning(
                "%s (Dropout) is in train mode; the risk is measured with dropout off. Write"
                " model.eval() to say that this is meant.",
                name,
            )
            _SAID.add(model)
            return
