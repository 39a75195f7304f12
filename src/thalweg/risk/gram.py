"""The Gram matrix of a network's outputs: J J^T, assembled layer by layer, J never formed."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thalweg.curvature.jacobian_factors import (
    Call,
    Factor,
    Recorder,
    Term,
    assemble,
    join,
    patches,
    places,
)
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.evaluation.model_copy import to

if TYPE_CHECKING:
    from thalweg.risk.risk import EmpiricalRisk

# Samples differentiated at once: for layers, and where each row takes a backward pass of its own.
_BATCH, _ROW_BATCH = 128, 8
# Numbers of gradients held at once where they are not outer products (512 MB).
_HELD = 1 << 26
_AGREEMENT = 1e-8
_BATCH_NORM = (
    "batchnorm={policy!r} makes each output depend on all samples, so a row of the Jacobian is no"
    " sample's own; write EmpiricalRisk(problem, batchnorm='frozen') or 'held'."
)
_GIVEN = (
    "a Gram matrix has a row for each output of each sample, and these data are batches as given,"
    " each of which counts as one; give samples that can be joined: tensors of one shape, or a"
    " Dataset."
)


def gram(
    risk: EmpiricalRisk, w: Tensor, /, *, outputs: Sequence[int] | Tensor | None = None
) -> Tensor:
    """
    Assemble the Gram matrix K = J J^T of the outputs' Jacobian at ``w``.

    Under the squared loss J is the residuals' Jacobian, and K the tangent kernel. Linear layers
    and plain convolutions contribute outer products of cotangents and inputs; whatever else has
    weights contributes their gradients as they are. The sum is checked against one product with
    the Jacobian itself.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of any dtype; K is computed in float64 on the CPU. Where the network has batch norm,
        ``batchnorm="frozen"`` or ``"held"``.
    w : Tensor
        Shape (W,).
    outputs : sequence of int or Tensor, optional
        Only these outputs; or a matrix P, shape (k, C), of combinations of them.

    Returns
    -------
    Tensor
        Shape (N k, N k), float64; row ``i * k + p`` belongs to output p of sample i, as in
        `EmpiricalRisk.jacobian`. Memory is that of K and of a few layers' cotangents.

    Raises
    ------
    NotDefined
        If samples depend on one another (``batchnorm="batch"`` and ``"recalibrate"``), or the loss
        shows no outputs.

    References
    ----------
    A. Jacot, F. Gabriel and C. Hongler, Neural Tangent Kernel (2018), section 4.

    Examples
    --------
    >>> from thalweg import EmpiricalRisk, Problem
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    >>> problem = Problem(nn.Linear(2, 1), nn.MSELoss(), (x, torch.ones(2, 1)))
    >>> gram(EmpiricalRisk(problem), torch.zeros(3)).tolist()  # x x' + 1
    [[6.0, 4.0], [4.0, 10.0]]
    """
    pass_ = _Pass(risk, w, outputs)
    matrix = torch.from_numpy(assemble(pass_.factors(), pass_.rows))
    if not pass_.agrees(matrix):
        # A weight is used outside the layer that owns it: no layer's product is then complete.
        matrix = torch.from_numpy(assemble([_Plain(pass_, list(risk.space.names))], pass_.rows))
    return matrix


def pull_back(
    risk: EmpiricalRisk, w: Tensor, y: Tensor, /, *, outputs: Sequence[int] | Tensor | None = None
) -> Tensor:
    """
    Multiply the transposed Jacobian at ``w`` by a vector, in float64.

    Parameters
    ----------
    risk, w, outputs
        As for `gram`.
    y : Tensor
        Shape (N k,), float64.

    Returns
    -------
    Tensor
        Shape (W,), float64.
    """
    return _Pass(risk, w, outputs).pull_back(y)


class _Pass:
    """Forward and backward passes over all samples on a private float64 copy of the model."""

    def __init__(
        self, risk: EmpiricalRisk, w: Tensor, outputs: Sequence[int] | Tensor | None
    ) -> None:
        measured = risk._measured
        if measured.norms and not measured.keeps_statistics:
            raise NotDefined(_BATCH_NORM.format(policy=measured.policy))
        if not risk.data.joined:
            raise NotDefined(_GIVEN)
        risk._settle(w)
        self.problem, self.samples = risk.problem, risk._samples
        self.model = _copy(risk, w)
        self.parameters = {
            name: p for name, p in self.model.named_parameters() if name in risk.space.names
        }
        with torch.no_grad():
            count = self._outputs(0, 1).shape[1]
        self.projection = _projection(outputs, count)
        self.rows = len(self.samples) * len(self.projection)

    def _outputs(self, start: int, stop: int) -> Tensor:
        batch = to(self.samples.slice(start, stop), torch.device("cpu"), torch.float64)
        outputs: Tensor | None = self.problem.evaluate(self.model, batch).outputs
        if outputs is None:
            raise NotDefined(
                "a Gram matrix needs the network's outputs; this loss(model, batch) shows none."
                " Write Problem(model, criterion, train) with a criterion (outputs, targets)."
            )
        return outputs.reshape(stop - start, -1)

    def bounds(self, size: int) -> Iterator[tuple[int, int]]:
        """Cut the samples into batches."""
        for start in range(0, len(self.samples), size):
            yield start, min(start + size, len(self.samples))

    def projected(self, start: int, stop: int) -> Tensor:
        """Evaluate the chosen combinations of outputs: shape (n k,)."""
        return (self._outputs(start, stop) @ self.projection.T).reshape(-1)

    def factors(self) -> list[Factor]:
        """Take the layers' factors, and one for the weights that are in none."""
        uses = [self._calls(start, stop) for start, stop in self.bounds(_BATCH)]
        found = _group(uses, {id(p): name for name, p in self.parameters.items()})
        covered = {name for _, names in found for name in names}
        rest = [name for name in self.parameters if name not in covered]
        return [factor for factor, _ in found] + ([_Plain(self, rest)] if rest else [])

    def _calls(self, start: int, stop: int) -> list[tuple[nn.Module, Tensor, Tensor]]:
        """Give each use of a layer in a batch: inputs (n, T, in) and cotangents (n, k, T, out)."""
        with Recorder(self.model) as recorder:
            outputs = self._outputs(start, stop)
        calls = [c for c in recorder.calls if c.outputs.requires_grad and _by_sample(c, outputs)]
        if not calls:
            return []
        given = [call.outputs for call in calls]
        seeds = [(outputs @ row).sum() for row in self.projection]
        slopes = [
            torch.autograd.grad(seed, given, retain_graph=True, materialize_grads=True)
            for seed in seeds
        ]
        return [
            (
                c.module,
                patches(c.module, c.inputs),
                torch.stack([places(c.module, s) for s in g], 1),
            )
            for c, g in zip(calls, zip(*slopes, strict=True), strict=True)
        ]

    def pull_back(self, y: Tensor) -> Tensor:
        """Multiply the transposed Jacobian by y, shape (N k,): a flat vector, shape (W,)."""
        given, count = list(self.parameters.values()), len(self.projection)
        total = torch.zeros(sum(p.numel() for p in given), dtype=torch.float64)
        for start, stop in self.bounds(_BATCH):
            entry = self.projected(start, stop) @ y[start * count : stop * count]
            slopes = torch.autograd.grad(entry, given, materialize_grads=True)
            total += torch.cat([slope.reshape(-1) for slope in slopes])
        return total

    def agrees(self, matrix: Tensor) -> bool:
        """Compare ``|J^T y|^2`` with ``y^T K y`` for a random y: equal only if K is right."""
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(self.rows, dtype=torch.float64, generator=generator)
        expected = float(self.pull_back(y).square().sum())
        return abs(float(y @ (matrix @ y)) - expected) <= _AGREEMENT * abs(expected)


class _Plain:
    """The factor of weights of unknown use: their gradients, row after row of the Jacobian."""

    def __init__(self, pass_: _Pass, names: list[str]) -> None:
        self._pass, self._names = pass_, names

    def terms(self) -> Iterator[Term]:
        """Give a term for each tensor, or part of a large one."""
        for name in self._names:
            parameter = self._pass.parameters[name]
            step = max(1, _HELD // self._pass.rows)
            for first in range(0, parameter.numel(), step):
                yield Term(self._rows(parameter, slice(first, first + step)).numpy())

    def _rows(self, parameter: Tensor, entries: slice) -> Tensor:
        found = []
        for start, stop in self._pass.bounds(_ROW_BATCH):
            for entry in self._pass.projected(start, stop):
                (slope,) = torch.autograd.grad(
                    entry, parameter, retain_graph=True, materialize_grads=True
                )
                found.append(slope.reshape(-1)[entries])
        return torch.stack(found)


def _copy(risk: EmpiricalRisk, w: Tensor) -> nn.Module:
    model = copy.deepcopy(risk._measured.model).to("cpu", torch.float64)
    named = dict(model.named_parameters())
    for name, tensor in risk.space.unpack(w.detach().to("cpu", torch.float64)).items():
        named[name].data, named[name].grad = tensor.clone(), None
    return model


def _projection(outputs: Sequence[int] | Tensor | None, count: int) -> Tensor:
    unit = torch.eye(count, dtype=torch.float64)
    if outputs is None:
        return unit
    if isinstance(outputs, Tensor) and outputs.dim() == 2:
        if outputs.shape[1] != count or not len(outputs):
            raise InvalidArgument(
                f"outputs has shape {tuple(outputs.shape)}, expected (k, {count}): the network has"
                f" {count} outputs."
            )
        return outputs.detach().to("cpu", torch.float64)
    chosen = [int(index) for index in outputs]
    if not chosen or not all(0 <= index < count for index in chosen):
        raise InvalidArgument(f"outputs={chosen}; name some of 0 to {count - 1}.")
    return unit[chosen]


def _by_sample(call: Call, outputs: Tensor) -> bool:
    return len(call.inputs) == len(outputs) == len(call.outputs)


Use = tuple[nn.Module, Tensor, Tensor]


def _group(uses: list[list[Use]], names: dict[int, str]) -> list[tuple[Factor, list[str]]]:
    """Join batches and uses by the layer they belong to; say which tensors are covered."""
    if len({len(batch) for batch in uses}) > 1:
        return []
    places_of: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, (module, *_) in enumerate(uses[0]):
        places_of[id(module.weight), id(module.bias)].append(place)
    count = Counter(tensor for key in places_of for tensor in key)
    answer = []
    for key, at in places_of.items():
        # A tensor that layers share without sharing all has no factor of its own.
        weight, bias = (tensor in names and count[tensor] == 1 for tensor in key)
        if weight or bias:
            a = [torch.cat([batch[place][1] for batch in uses]) for place in at]
            delta = [torch.cat([batch[place][2] for batch in uses]) for place in at]
            covered = [names[t] for t, w in zip(key, (weight, bias), strict=True) if w]
            answer.append((join(a, delta, weight, bias), covered))
    return answer
