"""A private copy of the user's model whose weights are one flat vector: never the model itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from thalweg.errors import InvalidProblem
from thalweg.evaluation.inplace import InPlaceActivations
from thalweg.evaluation.normalization import Normalization
from thalweg.landscape.provenance import Policy
from thalweg.landscape.space import ParameterSpace
from thalweg.polynomial import PolynomialActivation
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples

# Statistics are re-estimated on batches of this size whatever the evaluation batch is, so that
# no split of the data changes them.
CALIBRATION_BATCH = 250


def chunks(samples: int, size: int) -> Iterator[tuple[int, int]]:
    """Split ``range(samples)`` into nearly equal parts of at most ``size``: no tiny last one."""
    parts = max(1, -(-samples // size))
    bounds = [samples * i // parts for i in range(parts + 1)]
    yield from itertools.pairwise(bounds)


def to(batch: object, device: torch.device, dtype: torch.dtype) -> object:
    """Move a batch (tensors in tuples, lists, dicts) to a device; floats to a dtype."""
    return torch.utils._pytree.tree_map_only(
        Tensor, lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), batch
    )


def channels_last(batch: object) -> object:
    """Lay a batch's images, (n, C, H, W), out with the channels of a pixel side by side."""
    return torch.utils._pytree.tree_map_only(
        Tensor,
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
        batch,
    )


class ModelCopy:
    """
    A deep copy of a problem's model in evaluation mode, its weights views into a flat vector.

    Parameters
    ----------
    problem : Problem
        Whose model is copied.
    policy : {"batch", "frozen", "recalibrate"}
        What batch normalization uses.
    dtype : torch.dtype
        Of weights, buffers and inputs.
    device : torch.device or None
        None means where the model's parameters are.
    """

    def __init__(
        self, problem: Problem, policy: Policy, dtype: torch.dtype, device: torch.device | None
    ) -> None:
        self.problem, self.policy, self.dtype = problem, policy, dtype
        self.device = device or _device_of(problem.model)
        self.space = ParameterSpace.of(problem.model)
        self.model = copy.deepcopy(problem.model).to(self.device, dtype).eval()
        self.norms, self.lean = Normalization(self.model), InPlaceActivations(self.model)
        self._polynomials = [m for m in self.model.modules() if isinstance(m, PolynomialActivation)]
        self.channels_last = False
        self.calibration: Samples | None = None
        self._calibrated: Tensor | None = None
        self.weights = self.space.pack(self.model).clone()
        self.gradient = torch.zeros_like(self.weights)
        named = dict(self.model.named_parameters())
        views = self.space.unpack(self.weights), self.space.unpack(self.gradient)
        for name in self.space.names:
            named[name].data, named[name].grad = views[0][name], views[1][name]

    def load(self, w: Tensor) -> None:
        """Go to the point ``w``: one copy of W numbers."""
        self.space.check(w)
        self.weights.copy_(w)

    def settle(self, w: Tensor) -> None:
        """Go to ``w`` and have the statistics that the policy wants there."""
        self.load(w)
        if self.norms and self.policy == "recalibrate":
            self._recalibrate()

    @torch.no_grad()
    def _recalibrate(self) -> None:
        if self._calibrated is not None and torch.equal(self._calibrated, self.weights):
            return
        with self.lean.pass_():
            self.norms.store(self.norms.estimate(lambda: self.each_calibration(lambda _: None)))
        self._calibrated = self.weights.clone()

    def each_calibration(self, after: Callable[[int], None]) -> None:
        """Run the model on every calibration batch, calling ``after(batch size)`` behind each."""
        assert self.calibration is not None
        for start, stop in chunks(len(self.calibration), CALIBRATION_BATCH):
            self.forward(self.calibration.slice(start, stop))
            after(stop - start)

    def forward(self, batch: object) -> tuple[Tensor, Tensor | None, object]:
        """Evaluate a batch: losses, outputs, and the batch as it was moved."""
        moved = self.moved(batch)
        losses, outputs = self.problem.forward(self.model, moved)
        return losses, outputs, moved

    def moved(self, batch: object) -> object:
        """Give a batch as the model takes it: device, dtype and layout."""
        moved = to(batch, self.device, self.dtype)
        return channels_last(moved) if self.channels_last else moved

    @torch.no_grad()
    def choose_layout(self, samples: Samples) -> None:
        """
        Lay images out channels last where convolutions gain, a fifth to a third, and the model can.

        A model that takes views of what a convolution gave, ``x.view(len(x), -1)``, cannot.
        """
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        if not convolves or self.device.type != "cpu" or self.dtype != torch.float32:
            return
        self.channels_last = True
        try:
            self.forward(samples.slice(0, min(2, len(samples))))
        except RuntimeError:
            self.channels_last = False

    @property
    def watched(self) -> bool:
        """Whether activations record how far pre-activations leave their intervals."""
        return bool(self._polynomials)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let polynomial activations record how far pre-activations leave their intervals."""
        for module in self._polynomials:
            module.train()
        try:
            yield
        finally:
            for module in self._polynomials:
                module.eval()

    def buffers(self) -> dict[str, Tensor]:
        """Copy the copy's buffers by name."""
        return {name: tensor.detach().clone() for name, tensor in self.model.named_buffers()}

    def fixed(self) -> dict[str, Tensor]:
        """Copy all of the state that the flat vector leaves out: frozen weights and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self._fixed().items()}

    def set_fixed(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite frozen weights and buffers by name; those not named stay."""
        own = self._fixed()
        for name in own.keys() & tensors.keys():
            own[name].data.copy_(tensors[name])
        self.norms.restore_buffers()
        self._calibrated = None

    def _fixed(self) -> dict[str, Tensor]:
        frozen = {
            name: tensor
            for name, tensor in self.model.named_parameters()
            if name not in self.space.names
        }
        return dict(sorted((frozen | dict(self.model.named_buffers())).items()))


def _device_of(model: nn.Module) -> torch.device:
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1:
        raise InvalidProblem(
            f"the model's parameters lie on several devices ({sorted(map(str, devices))}); expected"
            " one: write model.to(device), or give EmpiricalRisk(..., device=...)."
        )
    return devices.pop() if devices else torch.device("cpu")
