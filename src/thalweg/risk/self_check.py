"""Before the first number: it is the user's function that is measured, and its derivatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.differences import Function, along, in_double
from thalweg.curvature.linearize import Tensors
from thalweg.curvature.vector_products import HESSIAN
from thalweg.errors import InvalidArgument, SelfCheckFailed
from thalweg.evaluation.borrowed import Borrowed
from thalweg.evaluation.call import one_function
from thalweg.evaluation.copying import dtype_of
from thalweg.evaluation.model_copy import ModelCopy, to
from thalweg.landscape.space import plain_name
from thalweg.problems.batches import digest
from thalweg.problems.loss import Evaluation
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples
from thalweg.risk.embedding_options import EmbeddingOptions
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
# Relative differences of one function evaluated twice in a precision, by other kernels.
_ROUNDING = {torch.float64: 1e-8, torch.float32: 3e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
# Differences whose own error is larger decide nothing: a kink, or a function too rough.
_UNDECIDED = 0.02
# A fault leaves out or adds a term; what rounding and truncation leave is far below.
_WRONG = 0.02


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
    """

    level: Level
    samples: int
    copy: float
    gradient: float | None
    hessian: float | None
    borrowed: bool
    differences: bool
    functional: bool = True

    @property
    def words(self) -> str:
        """Say what was checked, without numbers that rounding moves."""
        parts = ["losses equal your model's, here and at moved weights"]
        if self.gradient is not None:
            parts.append("gradient equal to differences")
        if self.hessian is not None:
            parts.append("Hessian product equal to differences")
        parts.append("your model and data unchanged")
        return f"{self.level}, {self.samples} samples: {'; '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)


class NotTheModel(Exception):
    """A copy answers otherwise than the model it was made of."""


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
    made = level, measured.policy, measured.dtype, measured.borrowed, id(samples)
    key = (*made, digest(*(tensor.detach() for tensor in state)))
    if key not in checks:
        checks[key] = _Check(measured, samples, level).run()
    return _taken_over(measured, checks[key])


def _taken_over(measured: ModelCopy, answer: SelfCheck) -> SelfCheck:
    """Take derivatives as a check has found them to be right."""
    if answer.borrowed and not measured.borrowed:
        raise NotTheModel("a copy answers otherwise, as a check made before has found")
    measured.functional = answer.functional
    measured.twice_differentiable = answer.functional and not answer.differences
    return answer


class _Check:
    """One self-check: the samples and weights that it looks at."""

    def __init__(self, measured: ModelCopy, samples: Samples, level: Level) -> None:
        self.measured, self.problem, self.level = measured, measured.problem, level
        self.generator = torch_generator(0, "self-check")
        order = torch.randperm(len(samples), generator=self.generator)
        values, slopes = (_VALUES[level], _SLOPES[level]) if samples.joined else _BATCHES[level]
        self.values = _Chosen(samples, order[:values].sort().values)
        self.slopes = _Chosen(samples, order[:slopes].sort().values)
        self.home = measured.weights.clone()
        self.precise = True  # whether derivatives are compared in float64
        own = measured.space.pack(self.problem.model).to(self.home)
        self.points = own, own + self._noise(own, _MOVED)

    def run(self) -> SelfCheck:
        """Compare all."""
        before = _Untouched(self.problem)
        with one_function(), self._as_in_evaluation():
            copy = self._compare_values()
            gradient, hessian = self._compare_slopes()
        before.check()
        wrong = hessian is not None and not hessian <= _WRONG
        if wrong:
            log.warning(
                "%s: torch's products with the Hessian are off by %.2g from differences of"
                " gradients (something in the model stops second derivatives); products are taken"
                " from differences.",
                self.problem.name,
                hessian,
            )
        return SelfCheck(
            self.level,
            len(self.values),
            copy,
            gradient,
            None if wrong else hessian,
            self.measured.borrowed,
            wrong,
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

    def _compare_values(self) -> float:
        """Give the largest difference of the copy's losses from those of the user's own model."""
        batch = self.values.slice(0, len(self.values))
        own = self._losses_of_user(batch)
        with self.measured.values():
            copied = [self._losses(w, batch) for w in self.points]
        self._check_moves(own, copied)
        scale = max(float(losses.abs().max()) for losses in own)
        off = max(float((a - b).abs().max()) for a, b in zip(own, copied, strict=True))
        difference = off / scale if scale else off
        if torch.isfinite(torch.stack([*own, *copied])).all() and difference > self._rounding:
            self._say_difference(own, copied)
        return difference

    @property
    def _rounding(self) -> float:
        kinds = {t.dtype for t in self.problem.model.parameters() if t.is_floating_point()}
        return max(_ROUNDING.get(kind, 2e-3) for kind in {*kinds, self.measured.dtype})

    def _losses(self, w: Tensor, batch: Any) -> Tensor:
        self.measured.load(w)
        return _counted(self.measured.forward(batch)[0])

    def _losses_of_user(self, batch: Any) -> list[Tensor]:
        """Evaluate the user's own module, lent for it and given back, at both points."""
        model, space = self.problem.model, self.measured.space
        lent = Borrowed(model)
        losses = []
        with one_function(), lent():
            model.eval()
            where = next(model.parameters()).device
            moved = to(batch, where, _dtype_taken(model))
            named = {plain_name(name): p for name, p in model.named_parameters()}
            for w in self.points:
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
        said, want = (float(losses[0].mean()) for losses in (copied, own))
        moved, true = (float(losses[1].mean()) for losses in (copied, own))
        if self.measured.dtype == torch.float32 and dtype_of(self.problem.model) == torch.float64:
            log.warning(
                "%s: in float32, as asked, the loss is %.6g where your float64 model gives %.6g;"
                " leave out dtype to measure in float64.",
                self.problem.name,
                said,
                want,
            )
            return
        words = (
            f"the loss measured is {said:.6g} where your model gives {want:.6g}, and {moved:.6g}"
            f" where it gives {true:.6g} at moved weights"
        )
        if not self.measured.borrowed:
            raise NotTheModel(words)
        raise SelfCheckFailed(
            f"{self.problem.name}: {words}. Something outside of the module's parameters and"
            " buffers decides what it computes; write the model so that forward depends on these"
            " and on its inputs alone, or check=False to measure it nevertheless."
        )

    def _compare_slopes(self) -> tuple[float | None, float | None]:
        """Compare a slope with losses, and a product with the Hessian with gradients."""
        w = self.points[1]
        self.measured.load(w)
        trained = {id(p) for p in self.measured._trained}
        frozen = [p for p in self.measured.model.parameters() if id(p) not in trained]
        options = EmbeddingOptions(frozen)
        with self.measured.values(), options:
            weight = self.measured.forward(self.slopes.slice(0, len(self.slopes)))[0].weight or 1.0
        if options.noticed:
            raise SelfCheckFailed(
                f"{self.problem.name}: the gradient is not that of the loss:"
                f" {'; '.join(options.noticed)}. Write check=False where this is meant: all"
                " derivatives are then those of autograd."
            )
        functions = BatchFunctions(self.measured, self.slopes, len(self.slopes), w, weight=weight)
        constants, spec = functions.batch(0)
        fixed = self._precise(functions, constants, spec)
        primals = fixed[: len(functions.primals)]
        slopes = functions.gradient(primals, fixed, spec)
        with self.measured.norms.mode("batch" if functions.whole else "stored"):
            self._compare_gradients(slopes, w)
        if not self.measured.functional:
            fixed, self.precise = constants, self.measured.dtype == torch.float64
            slopes = functions.gradient(fixed[: len(functions.primals)], fixed, spec)
        direction = self._direction(functions, slopes)
        slope = sum(float((g * v).sum()) for g, v in zip(slopes, direction, strict=True))
        gradient = self._compare_slope(functions, fixed, spec, direction, slope)
        if not self.measured.twice_differentiable:
            return gradient, None
        return gradient, self._compare_products(functions, fixed, spec, direction)

    def _precise(self, functions: BatchFunctions, constants: Tensors, spec: Any) -> Tensors:
        """Give the batch in double precision, where the model can be evaluated in it."""
        double = in_double(constants)
        try:
            functions.loss(double[: len(functions.primals)], double, spec)
        except RuntimeError:
            self.precise = self.measured.dtype == torch.float64
            return constants
        return double

    def _direction(self, functions: BatchFunctions, slopes: Tensors) -> Tensors:
        """Mix the gradient, along which something happens, with noise, which meets every weight."""
        noise = self._noise(self.points[1], 1.0).to(slopes[0].dtype)
        flat = torch.cat([slope.reshape(-1) for slope in slopes])
        mixed = noise / noise.norm() + flat / flat.norm().clamp_min(1e-300)
        return functions.unflatten(mixed)

    def _compare_gradients(self, slopes: Tensors, w: Tensor) -> None:
        """Compare the gradient of training with that of the operators."""
        measured = self.measured
        measured.load(w)
        measured.gradient.zero_()
        with measured.at_work():
            loss = measured.forward(self.slopes.slice(0, len(self.slopes)))[0].mean()
            if not loss.requires_grad:
                raise SelfCheckFailed(
                    f"{self.problem.name}: the loss moves with the weights and has no gradient:"
                    " does the forward or the loss run under torch.no_grad or"
                    " torch.inference_mode, or leave torch (.numpy(), .item())?"
                )
            loss.backward()
        by_operators = torch.cat([slope.reshape(-1) for slope in slopes]).double()
        by_training = measured.gradient.double()
        size = max(float(by_operators.norm()), float(by_training.norm()), 1e-12)
        if not float((by_operators - by_training).norm()) <= 20 * _ROUNDING[measured.dtype] * size:
            measured.functional = measured.twice_differentiable = False

    def _compare_slope(
        self, functions: BatchFunctions, fixed: Tensors, spec: Any, direction: Tensors, slope: float
    ) -> float | None:
        def value(primals: Tensors) -> Tensors:
            return (functions.value(primals, fixed, spec),)

        difference, expected = None, 0.0
        for (rise,), error in _differences(value, fixed, direction):
            expected = float(rise)
            scale = max(abs(slope), abs(expected))
            difference = abs(slope - expected) / scale if scale else 0.0
            if difference <= self._tolerance(error):
                return difference
        if difference is None:
            return None
        raise SelfCheckFailed(
            f"{self.problem.name}: the gradient is not that of the loss: along a direction the loss"
            f" rises by {expected:.6g} a unit, the gradient says {slope:.6g}. Something in the"
            " model or its loss stops gradients or replaces them (detach, .data, no_grad, rounding,"
            " padding_idx or max_norm of F.embedding, a function with a backward of its own). Write"
            " check=False where this is meant: all derivatives are then those of autograd."
        )

    def _compare_products(
        self, functions: BatchFunctions, fixed: Tensors, spec: Any, direction: Tensors
    ) -> float | None:
        def gradient(primals: Tensors) -> Tensors:
            return functions.gradient(primals, fixed, spec)

        try:
            product = HESSIAN.graph(functions.at(fixed), fixed, spec)(direction)
        except RuntimeError:  # it has no second derivative, and products will be differences
            return None
        claimed = _joined(product)
        tried: list[tuple[float, float]] = []
        for differences, error in _differences(gradient, fixed, direction):
            seen = _joined(differences)
            size = max(float(claimed.norm()), float(seen.norm()))
            difference = float((claimed - seen).norm()) / size if size else 0.0
            if difference <= min(self._tolerance(error), _WRONG):
                return difference
            tried.append((error, difference))
        # The best differences decide, if they do: across kinks they may be as far off as a fault.
        error, difference = min(tried, default=(0.0, 0.0))
        return None if difference <= self._tolerance(error) else difference

    def _tolerance(self, error: float = 0.0) -> float:
        return 20 * error + (1e-4 if self.precise else 2e-2)

    def _noise(self, w: Tensor, share: float) -> Tensor:
        """Give noise of a share of each tensor's scale, of the network's where it is zero."""
        noise = torch.randn(len(w), generator=self.generator, dtype=torch.float64).to(w)
        overall = float(w.double().square().mean().sqrt()) or 1.0
        for parameter in self.measured.space.parameters:
            part = w[parameter.slice].double()
            scale = float(part.square().mean().sqrt()) if len(part) else 0.0
            noise[parameter.slice] *= share * (scale or overall)
        return noise


def _differences(
    function: Function, fixed: Tensors, direction: Tensors
) -> Iterator[tuple[Tensors, float]]:
    """
    Give those that decide something, by shorter and shorter steps: a long one crosses kinks.

    A ResNet-18 of 10**6 units a sample has so many that only the fifth is free of them.
    """
    for share in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5):
        slope, error = along(function, fixed[: len(direction)], direction, share=share)
        if error <= _UNDECIDED:
            yield slope, error


def _joined(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class _Chosen:
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


class _Untouched:
    """The user's model and data as they are, to be compared afterwards."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._before = self._look()

    def _look(self) -> dict[str, Any]:
        model = self.problem.model
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        data = [t for t in tree_leaves(self.problem.train) if isinstance(t, Tensor)]
        return {
            "weights": digest(*(tensor.detach() for tensor in state.values())),
            "gradients": [id(tensor.grad) for tensor in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "data": [tensor._version for tensor in data],
        }

    def check(self) -> None:
        after = self._look()
        changed = [name for name, was in self._before.items() if after[name] != was]
        if changed:
            raise SelfCheckFailed(
                f"{self.problem.name}: evaluating the loss changed the {' and '.join(changed)} of"
                " your own model or data; a landscape is a function that changes nothing. Write a"
                " forward and a loss that do not assign to what they read."
            )


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
