"""A private copy of the user's model whose weights are one flat vector: never the model itself."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from thalweg.errors import InvalidProblem, InvalidWeights, first_line
from thalweg.evaluation.borrowed import Borrowed
from thalweg.evaluation.call import one_function
from thalweg.evaluation.converted_samples import convert_once
from thalweg.evaluation.copying import as_evaluated, cast, cast_tensor, copy_module, dtype_of
from thalweg.evaluation.forward import Forward
from thalweg.evaluation.inplace import InPlaceActivations
from thalweg.evaluation.layout import WatchGroupNorm, lay_out
from thalweg.evaluation.normalization import Normalization
from thalweg.landscape.provenance import Policy
from thalweg.landscape.space import ParameterSpace, plain_name
from thalweg.polynomial import PolynomialActivation
from thalweg.problems.loss import Evaluation
from thalweg.problems.module_attributes import Kept, ModuleAttributes
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples

log = logging.getLogger("thalweg")

# Statistics are re-estimated on batches of this size whatever the evaluation batch is, so that
# no split of the data changes them.
CALIBRATION_BATCH = 250


def chunks(samples: int, size: int) -> Iterator[tuple[int, int]]:
    """Split ``range(samples)`` into nearly equal parts of at most ``size``: no tiny last one."""
    parts = max(1, -(-samples // size))
    bounds = [samples * i // parts for i in range(parts + 1)]
    yield from itertools.pairwise(bounds)


def to(batch: object, device: torch.device, dtype: torch.dtype) -> object:
    """Move a batch (tensors in tuples, lists, dicts) to a device; its numbers to a dtype."""
    if isinstance(batch, Tensor):
        return cast_tensor(batch, device, dtype)
    if type(batch) is tuple:  # walking a tree takes 40 microseconds, as a small model does
        return tuple(to(part, device, dtype) for part in batch)
    return tree_map_only(Tensor, lambda tensor: cast_tensor(tensor, device, dtype), batch)


class ModelCopy:
    """
    A deep copy of a problem's model in evaluation mode, its weights views into a flat vector.

    Whatever is measured, value or derivative, goes through `forward`, at the copy's own weights, or
    through `forward_with`, at others: in one mode and with the same kernels.

    Parameters
    ----------
    problem : Problem
        Whose model is copied.
    policy : {"batch", "frozen", "recalibrate"}
        What batch normalization uses.
    dtype : torch.dtype or None
        Of weights, buffers and inputs; None means the model's own, float32 at least. Complex
        numbers are pairs of it.
    device : torch.device or None
        None means where the model's parameters are.
    borrow : bool
        Use the user's own module, lent and given back in each call, where a copy would not be
        the model.

    Attributes
    ----------
    borrowed : bool
        Whether the user's own module is used.
    functional : bool
        Whether weights can be replaced for the time of a call; moved, where not.
    twice_differentiable : bool
        Whether torch's second derivatives are those of the function; differences of gradients are
        taken where not.
    transforms : dict of str to bool
        Of which linear maps the products by torch's function transforms are those of its graphs,
        as far as that was looked at: its forward derivatives do not know all functions.
    """

    def __init__(
        self,
        problem: Problem,
        policy: Policy,
        dtype: torch.dtype | None,
        device: torch.device | None,
        *,
        borrow: bool = False,
    ) -> None:
        self.problem, self.policy = problem, policy
        self.dtype = dtype or dtype_of(problem.model)
        self.device = device or _device_of(problem.model)
        self.model, self._lent = _copied(problem.model, borrow)
        self.borrowed = self._lent is not None
        self._forward = Forward(problem, self.model)
        self.layout: torch.memory_format | None = None
        self.changes_inputs = False
        scripted = any(isinstance(m, torch.jit.ScriptModule) for m in self.model.modules())
        self.functional = self.twice_differentiable = not scripted
        self.transforms: dict[str, bool] = {}
        self.calibration: Samples | None = None
        self._forms: dict[int, tuple[Samples, Samples]] = {}
        self._calibrated = False  # whether the statistics are those at the weights
        self._only_values = False
        self._kept: Kept | None = None
        self._differentiates = False  # whether the loss takes derivatives in the weights itself
        with self.at_work():
            self._take_over()

    def _take_over(self) -> None:
        as_evaluated(cast(self.model, self.device, self.dtype))
        self.norms, self._inplace = Normalization(self.model), InPlaceActivations(self.model)
        self.norms.check(self.policy)
        self._polynomials = [m for m in self.model.modules() if isinstance(m, PolynomialActivation)]
        self.space = ParameterSpace.of(self.model)
        self.weights = self.space.pack(self.model).clone()
        self.gradient = torch.zeros_like(self.weights)
        named = dict(self.model.named_parameters())
        self._trained = [named.pop(name) for name in self.space.names]
        views = (self.space.unpack(flat).values() for flat in (self.weights, self.gradient))
        for parameter, weight, slope in zip(self._trained, *views, strict=True):
            parameter.data, parameter.grad = weight, slope

    def at_work(self) -> AbstractContextManager[None]:
        """Have the module hold the weights of the copy inside the block."""
        return nullcontext() if self._lent is None else self._lent()

    @contextmanager
    def values(self) -> Iterator[None]:
        """
        Evaluate values only inside the block: nothing is kept for derivatives in the weights.

        Autograd stays on, for losses that differentiate the network in its inputs; also in the
        weights, where the loss differentiates in them (a gradient's norm as a penalty, MAML).
        """
        if self._only_values:
            yield
            return
        with self._for_values(True), self._inplace.pass_():
            yield

    def derivatives(self) -> AbstractContextManager[None]:
        """Evaluate for derivatives in the weights inside the block, also inside of `values`."""
        return self._for_values(False)

    @contextmanager
    def _for_values(self, only: bool) -> Iterator[None]:
        before, self._only_values = self._only_values, only
        self._require_gradients(not only)
        try:
            with one_function(), self.at_work(), torch.enable_grad():
                yield
        finally:
            self._only_values = before
            self._require_gradients(not before)

    def _require_gradients(self, required: bool) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(required or self._differentiates)

    def load(self, w: Tensor) -> None:
        """Go to the point ``w``: one copy of W numbers."""
        self.space.check(w)
        alike = w.dtype == self.weights.dtype and w.device == self.weights.device
        self._calibrated = self._calibrated and alike and torch.equal(w, self.weights)
        if not self._calibrated:
            self.weights.copy_(w)

    def settle(self, w: Tensor) -> None:
        """Go to ``w`` and have the statistics that the policy wants there."""
        self.load(w)
        if self.norms and self.policy == "recalibrate":
            self._recalibrate()

    def _recalibrate(self) -> None:
        if self._calibrated:
            return
        with self.values():
            self.norms.store(self.norms.estimate(lambda: self.each_calibration(lambda _: None)))
        self._calibrated = True

    @property
    def keeps_statistics(self) -> bool:
        """Whether batch norm uses the same statistics at every point."""
        return self.policy in ("frozen", "held")

    def hold(self, w: Tensor) -> None:
        """Make the statistics at ``w`` the copy's buffers, which are then used at every point."""
        home = self.weights.clone()
        self.load(w)
        with self.values():
            self.norms.keep(self.norms.estimate(lambda: self.each_calibration(lambda _: None)))
        self.load(home)

    def each_calibration(self, after: Callable[[int], None]) -> None:
        """Run the model on every calibration batch, calling ``after(batch size)`` behind each."""
        assert self.calibration is not None
        size = CALIBRATION_BATCH if self.calibration.joined else 1
        for start, stop in chunks(len(self.calibration), size):
            self.forward(self.calibration.slice(start, stop))
            after(stop - start)

    def forward(self, batch: object) -> tuple[Evaluation, object]:
        """Evaluate a batch: losses with their weights, and the batch as it was moved."""
        moved = self.moved(batch)
        with one_function(), self.at_work():
            self._forget()
            evaluation = self.problem.evaluate(self.model, moved)
        return evaluation.detached() if self._only_values else evaluation, moved

    def forward_with(self, tensors: Mapping[str, Tensor], moved: object) -> Evaluation:
        """
        Evaluate a batch with tensors in place of weights and buffers: a function of all of them.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            By name.
        moved : object
            The batch, as `moved` gives it; it may be given again.
        """
        if self.changes_inputs:
            moved = tree_map_only(Tensor, Tensor.clone, moved)
        if self._differentiates:
            trained = set(self.space.names)
            tensors = {n: _in_graph(t) if n in trained else t for n, t in tensors.items()}
        with one_function(), self.at_work():
            self._forget()
            return self._forward.with_tensors(tensors, moved)

    def _forget(self) -> None:
        """Take away what earlier calls have left in the model, at other weights perhaps."""
        if self._kept is not None:
            self._kept.take_away()

    def moved(self, batch: object) -> object:
        """Give a batch as the model takes it: device, dtype and layout."""
        moved = self._converted(batch)
        return tree_map_only(Tensor, Tensor.clone, moved) if self.changes_inputs else moved

    def _converted(self, batch: object) -> object:
        moved = to(batch, self.device, self.dtype)
        return lay_out(moved, self.layout)

    def convert_once(self, samples: Samples, budget: int) -> Samples:
        """Give samples in the form in which the model takes them, if that fits into a budget."""
        key = id(samples)
        if key not in self._forms:
            self._forms[key] = samples, convert_once(samples, self._converted, budget)
        return self._forms[key][1]

    def look_at(self, samples: Samples) -> None:
        """Find out, on the first samples, what the model overwrites, keeps and differentiates."""
        with self.at_work():
            before = ModuleAttributes(self.model)
            try:
                self._find_changed_inputs(samples)
            except RuntimeError:
                self._differentiates = True
                self._find_changed_inputs(samples)
            kept = Kept(before)
        self._kept = kept if kept.tensors else None

    def _find_changed_inputs(self, samples: Samples) -> None:
        self.changes_inputs = True
        with self.values():
            moved = self.moved(samples.slice(0, min(2, len(samples))))
            leaves = [leaf for leaf in tree_leaves(moved) if isinstance(leaf, Tensor)]
            before = [leaf._version for leaf in leaves]
            self.problem.evaluate(self.model, moved)
        self.changes_inputs = before != [leaf._version for leaf in leaves]

    def choose_layout(self, samples: Samples) -> None:
        """
        Lay images out channels last where there are convolutions, and the model can.

        Products then take 5 to 25 % less; values between a fifth less (large images) and two fifths
        more (many channels of few pixels). A model that takes views of what a convolution gave,
        ``x.view(len(x), -1)``, cannot. Where there is a group norm, or may be one in TorchScript,
        images are contiguous, whatever they were: see `WatchGroupNorm`.
        """
        modules = list(self.model.modules())
        convolves = any(isinstance(module, nn.Conv2d) for module in modules)
        normalizes = any(isinstance(m, (nn.GroupNorm, torch.jit.ScriptModule)) for m in modules)
        if not (convolves or normalizes) or self.device.type != "cpu":
            return
        self.layout = torch.channels_last if self.dtype == torch.float32 else None
        watch = WatchGroupNorm()
        try:
            with self.values(), watch:
                self.forward(samples.slice(0, min(2, len(samples))))
        except RuntimeError:
            self.layout = None
        if normalizes or watch.seen:
            self.layout = torch.contiguous_format

    @property
    def watched(self) -> bool:
        """Whether activations record how far pre-activations leave their intervals."""
        return bool(self._polynomials)

    def watching(self) -> AbstractContextManager[None]:
        """Let polynomial activations record how far pre-activations leave their intervals."""
        return self._watching() if self._polynomials else self.at_work()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with self.at_work():
            for module in self._polynomials:
                module.train()
            try:
                yield
            finally:
                for module in self._polynomials:
                    module.eval()

    def buffers(self) -> dict[str, Tensor]:
        """Copy the copy's buffers by name."""
        with self.at_work():
            return {name: tensor.detach().clone() for name, tensor in self.model.named_buffers()}

    def fixed(self) -> dict[str, Tensor]:
        """Copy all of the state that the flat vector leaves out: frozen weights and buffers."""
        with self.at_work():
            return {name: tensor.detach().clone() for name, tensor in self._fixed()}

    def set_fixed(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite frozen weights and buffers by name; those not named stay."""
        by_plain_name = {plain_name(name): tensor for name, tensor in tensors.items()}
        with self.at_work():
            for name, tensor in self._fixed():
                if (new := by_plain_name.get(plain_name(name))) is not None:
                    _check_alike(name, new, tensor)
                    tensor.data.copy_(new)
            self.norms.restore_buffers()
        self._calibrated = False

    def _fixed(self) -> list[tuple[str, Tensor]]:
        frozen = [(n, t) for n, t in self.model.named_parameters() if n not in self.space.names]
        return sorted([*frozen, *self.model.named_buffers()], key=lambda pair: pair[0])


def _in_graph(tensor: Tensor) -> Tensor:
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _check_alike(name: str, tensor: Tensor, own: Tensor) -> None:
    # torch would copy one number into all, and leave imaginary parts out.
    if tensor.shape != own.shape or tensor.is_complex() != own.is_complex():
        raise InvalidWeights(
            f"{name!r} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}, expected"
            f" {tuple(own.shape)} and {own.dtype}."
        )


def _copied(model: nn.Module, borrow: bool) -> tuple[nn.Module, Borrowed | None]:
    if not borrow:
        try:
            return copy_module(model), None
        except Exception as error:  # any module may come, and say anything
            log.warning(
                "%s cannot be copied (%s); your own module is measured instead, lent for each call"
                " and given back as it was.",
                type(model).__name__,
                first_line(error),
            )
    inner = dict(model.named_children()).get("_orig_mod", model)
    return inner, Borrowed(inner)


def _device_of(model: nn.Module) -> torch.device:
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise InvalidProblem(
            f"{type(model).__name__} lies on the meta device, where tensors have shapes and no"
            " numbers; load its weights first: model.load_state_dict(weights, assign=True), or"
            " model.to_empty(device='cpu') and then its own initialization."
        )
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1:
        raise InvalidProblem(
            f"the model's parameters lie on several devices ({sorted(map(str, devices))}); expected"
            " one: write model.to(device), or give EmpiricalRisk(..., device=...)."
        )
    return devices.pop() if devices else torch.device("cpu")
