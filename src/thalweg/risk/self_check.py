"""Before the first number: it is the user's function that is measured, and its derivatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.errors import InvalidArgument, SelfCheckFailed
from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.problems.batches import digest
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples
from thalweg.risk.derivative_check import DerivativeCheck, scaled_noise
from thalweg.risk.value_check import NotTheModel, ValueCheck
from thalweg.run.seeds import torch_generator

Level = Literal["full", "quick"]
log = logging.getLogger("thalweg")

# Samples whose values are compared, and those whose derivatives are.
_VALUES = {"full": 256, "quick": 64}
_SLOPES = {"full": 32, "quick": 8}
# Of batches as given, which may be large.
_BATCHES = {"full": (8, 4), "quick": (2, 1)}
# Share of its scale by which each tensor of weights is moved.
_MOVED = 0.25


@dataclass(frozen=True)
class SelfCheck:
    """
    What was compared before the first number, each as a relative difference.

    Attributes
    ----------
    level : {"full", "quick"}
        How much was looked at.
    samples : int
        Samples, chosen at random, whose losses were compared.
    copy : float
        Of the measured losses from those of the user's own model, at its weights and at others.
    gradient : float or None
        Of the slope along a direction from differences of losses; None where these are too rough
        to tell.
    hessian : float or None
        Of a product with the Hessian from differences of gradients; None as before.
    borrowed : bool
        Whether the user's own module is measured, because no copy is the model.
    differences : bool
        Whether products with the Hessian come from differences, because torch's are wrong.
    functional : bool
        Whether the gradient of the operators is that of training.
    alike : bool
        Whether it was made of the first network of the same code in this process, for all of them.
    """

    level: Level
    samples: int
    copy: float
    gradient: float | None
    hessian: float | None
    borrowed: bool
    differences: bool
    functional: bool = True
    alike: bool = False

    @property
    def words(self) -> str:
        """Say what was checked, without numbers that rounding moves."""
        parts = ["losses equal your model's, here and at moved weights"]
        if self.gradient is not None:
            parts.append("gradient equal to differences")
        if self.hessian is not None:
            parts.append("Hessian product equal to differences")
        parts.append("your model and data unchanged")
        of_whom = " of the first network of this code" if self.alike else ""
        return f"{self.level}, {self.samples} samples{of_whom}: {'; '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)


def check_level(check: str | bool | SelfCheck) -> Level | SelfCheck | None:
    """
    Return how much is to be checked, or what was checked before; None for nothing.

    Raises
    ------
    InvalidArgument
        If it is neither ``"full"``, ``"quick"``, ``False`` nor a `SelfCheck`.
    """
    if check is False:
        return None
    if isinstance(check, SelfCheck):
        return check
    if check not in get_args(Level):
        raise InvalidArgument(f"check={check!r}; write 'quick', 'full' or False.")
    return check  # type: ignore[return-value]


def self_check(measured: ModelCopy, samples: Samples, level: Level | SelfCheck) -> SelfCheck:
    """
    Compare the copy with the user's model, and its derivatives with differences.

    A check of the same content (weights, buffers, samples) is not repeated within a process.

    Parameters
    ----------
    measured : ModelCopy
        Left at the weights where it was.
    samples : Samples
        From which some are chosen at random.
    level : {"full", "quick"} or SelfCheck
        At most 256 samples, or 64; one that was made before is taken over.

    Raises
    ------
    NotTheModel
        If the copy, not the user's module lent, answers otherwise than the model.
    SelfCheckFailed
        If the lent module does, if the loss does not depend on the weights, if the gradient is not
        that of the loss, or if an evaluation changes the user's model or data.
    """
    if isinstance(level, SelfCheck):
        return _taken_over(measured, level)
    checks = measured.problem.__dict__.setdefault("_self_checks", {})
    state = [*measured.problem.model.parameters(), *measured.problem.model.buffers()]
    options = level, measured.policy, measured.dtype, measured.borrowed, id(samples)
    key = (*options, digest(*(tensor.detach() for tensor in state)))
    if key not in checks:
        checks[key] = _Check(measured, samples, level).run()
    return _taken_over(measured, checks[key])


def _taken_over(measured: ModelCopy, check: SelfCheck) -> SelfCheck:
    """Take derivatives as a check has found them to be right."""
    if check.borrowed and not measured.borrowed:
        raise NotTheModel("a copy answers otherwise, as a check made before has found")
    measured.functional = check.functional
    measured.twice_differentiable = check.functional and not check.differences
    return check


class _Check:
    """One self-check: the samples and weights that it looks at."""

    def __init__(self, measured: ModelCopy, samples: Samples, level: Level) -> None:
        self.measured, self.problem, self.level = measured, measured.problem, level
        self.generator = torch_generator(0, "self-check")
        order = torch.randperm(len(samples), generator=self.generator)
        values, slopes = (_VALUES[level], _SLOPES[level]) if samples.joined else _BATCHES[level]
        self.values = _ChosenSamples(samples, order[:values].sort().values)
        self.slopes = _ChosenSamples(samples, order[:slopes].sort().values)
        self.home = measured.weights.clone()
        own = measured.space.pack(self.problem.model).to(self.home)
        self.points = own, own + scaled_noise(measured.space, own, _MOVED, self.generator)

    def run(self) -> SelfCheck:
        """Compare all."""
        content = _Content(self.problem)
        with one_function(), self._as_in_evaluation():
            copy = ValueCheck(self.measured, self.values, self.points).largest_difference()
            derivatives = DerivativeCheck(
                self.measured, self.slopes, self.points[1], self.generator
            )
            compared = derivatives.compare()
        content.check_unchanged()
        if compared.differences:
            log.warning(
                "%s: torch's products with the Hessian are off by %.2g from differences of"
                " gradients (something in the model stops second derivatives); products are taken"
                " from differences.",
                self.problem.name,
                compared.hessian,
            )
        return SelfCheck(
            self.level,
            len(self.values),
            copy,
            compared.gradient,
            None if compared.differences else compared.hessian,
            self.measured.borrowed,
            compared.differences,
            self.measured.functional,
        )

    @contextmanager
    def _as_in_evaluation(self) -> Iterator[None]:
        """Have batch norm use what the user's model uses in evaluation mode."""
        norms, statistics = self.measured.norms, self.measured.norms.stored()
        with self.measured.at_work():
            norms.restore_buffers()
        try:
            with norms.mode("evaluation"):
                yield
        finally:
            norms.store(statistics)
            self.measured.load(self.home)


class _ChosenSamples:
    """Some samples of a set, as a set of their own."""

    targets = None
    fingerprint = ""

    def __init__(self, samples: Samples, indices: Tensor) -> None:
        self._samples, self._indices = samples, indices
        self.joined, self.described = samples.joined, samples.described

    def __len__(self) -> int:
        return len(self._indices)

    def slice(self, start: int, stop: int) -> Any:
        return self._samples.take(self._indices[start:stop])

    def take(self, indices: Tensor) -> Any:
        return self._samples.take(self._indices[indices])


class _Content:
    """The user's model and data as they are, to be compared afterwards."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._before = self._read()

    def _read(self) -> dict[str, Any]:
        model = self.problem.model
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        leaves = tree_leaves(self.problem.train)
        return {
            "weights": digest(*(tensor.detach() for tensor in state.values())),
            "gradients": [id(tensor.grad) for tensor in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "data": [leaf._version for leaf in leaves if isinstance(leaf, Tensor)],
        }

    def check_unchanged(self) -> None:
        after = self._read()
        changed = [name for name, was in self._before.items() if after[name] != was]
        if changed:
            raise SelfCheckFailed(
                f"{self.problem.name}: evaluating the loss changed the {' and '.join(changed)} of"
                " your own model or data; a landscape is a function that changes nothing. Write a"
                " forward and a loss that do not assign to what they read."
            )
