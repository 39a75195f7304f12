"""Directions of weight space in which no output changes: tangents of symmetries, dead weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.chain import Chain, Link

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

KINDS = ("dead units", "dead inputs", "rescaling", "batch norm")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = nn.modules.batchnorm._BatchNorm
_FLAT = (nn.ReLU, nn.ReLU6)
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity)
# Layers that commute with a positive factor on a channel, and keep channels in their order.
_PASSED = (
    nn.Flatten,
    nn.modules.dropout._DropoutNd,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)
_BATCH = 256
# Eigenvalues of the Gram matrix of inputs below this share of the largest count as zero.
_UNREAD = 1e-13


@dataclass(frozen=True)
class Direction:
    """
    A sparse vector of weight space.

    Attributes
    ----------
    entries : ndarray
        Places in the flat vector, int64, shape (k,).
    values : ndarray
        float64, shape (k,).
    """

    entries: Indices
    values: Array


@dataclass
class _Unit:
    """One hidden channel: what is read into it, and what reads it."""

    incoming: Indices
    outgoing: Indices


@dataclass
class _Stage:
    """An affine layer and what follows it up to the next."""

    link: Link
    after: list[nn.Module] = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        return self.link.module

    @property
    def degree(self) -> float | None:
        """Factor t on its outputs gives t**degree behind its activation; None where it does not."""
        total = 1.0
        for module in self.after:
            degree = homogeneity(module)
            if degree is None:
                return None
            total *= degree
        return total


def homogeneity(module: nn.Module) -> float | None:
    """
    Give d where ``f(t z) = t**d f(z)`` for all t > 0, else None.

    Examples
    --------
    >>> homogeneity(nn.ReLU()), homogeneity(nn.Tanh())
    (1.0, None)
    >>> homogeneity(PolynomialActivation.from_coefficients([0, 0, 0, 2.0]))
    3.0
    """
    if isinstance(module, (*_HOMOGENEOUS, *_PASSED)):
        return 1.0
    if isinstance(module, PolynomialActivation) and module.basis == "power":
        powers = torch.nonzero(module.coefficients).flatten().tolist()
        return float(powers[0]) if len(powers) == 1 and powers[0] > 0 else None
    return None


@dataclass(frozen=True)
class _Seen:
    """Largest output of each channel of a layer, and variance of each it reads in one batch."""

    highest: Array
    variance: Array


class Invariances:
    """
    The directions in which a chain of layers keeps its outputs on its samples, by kind.

    They are tangents at ``w``: of rescaling a channel's incoming against its outgoing weights, of
    mixing the channels of a linear layer, of a scale or shift that batch norm takes away; weights
    of ReLU units that are off on all samples, and of inputs that no sample has.

    Parameters
    ----------
    chain : Chain
        The network.
    w : Tensor
        Shape (W,), float64.
    batch_statistics : bool
        Whether batch norm uses the statistics of the whole set, functions of the weights.
    """

    def __init__(self, chain: Chain, w: Tensor, *, batch_statistics: bool) -> None:
        self.chain, self.w, self.batch = chain, w, batch_statistics
        self.places = {p.name: p for p in chain.space.parameters}
        self.stages = list(self._stages())

    def directions(self) -> dict[str, list[Direction]]:
        """List the directions of each of `KINDS`."""
        return {
            "dead units": list(self._dead_units()),
            "dead inputs": list(self._dead_inputs()),
            "rescaling": list(self._rescalings()),
            "batch norm": list(self._normalized()),
        }

    def _stages(self) -> Iterator[_Stage]:
        stage: _Stage | None = None
        for link in self.chain.links:
            if isinstance(link.module, (nn.Linear, *_CONVOLUTIONS, _NORMS)):
                if stage is not None:
                    yield stage
                stage = _Stage(link)
            elif stage is not None:
                stage.after.append(link.module)
        if stage is not None:
            yield stage

    def _entries(self, link: Link, name: str) -> Indices | None:
        """Places of a layer's tensor, in its shape; None where it is not trained."""
        if name not in link.trained:
            return None
        place = self.places[link.trained[name]]
        return np.arange(place.start, place.start + place.size).reshape(place.shape)

    def _rows(self, link: Link) -> list[Indices]:
        """Places of what is read into each channel: its kernel and its bias."""
        tensors = [self._entries(link, name) for name in ("weight", "bias")]
        channels = next((len(t) for t in tensors if t is not None), 0)
        parts = [t.reshape(channels, -1) for t in tensors if t is not None]
        return list(np.concatenate(parts, axis=1)) if parts else []

    def _columns(self, link: Link, channels: int) -> list[Indices] | None:
        """Places of the weights that read each channel; None where they are not known."""
        weight = self._entries(link, "weight")
        if weight is None or isinstance(link.module, _NORMS):
            return None
        if getattr(link.module, "groups", 1) != 1 or weight.shape[1] % channels:
            return None
        # Behind Flatten a channel is a block of neighbouring features.
        split = weight.reshape(len(weight), channels, -1)
        return [split[:, channel].reshape(-1) for channel in range(channels)]

    def _complete(self, link: Link) -> bool:
        """Whether all that a channel's outputs are made of is trained."""
        named = {name for name, _ in link.module.named_parameters(recurse=False)}
        return bool(named) and named == set(link.trained)

    def _units(self) -> Iterator[tuple[_Stage, _Stage, list[_Unit]]]:
        for stage, following in itertools.pairwise(self.stages):
            rows = self._rows(stage.link)
            columns = self._columns(following.link, len(rows)) if rows else None
            if columns is not None:
                yield (
                    stage,
                    following,
                    [_Unit(*pair) for pair in zip(rows, columns, strict=True)],
                )

    def _rescalings(self) -> Iterator[Direction]:
        weights = self.w.numpy()
        for stage, following, units in self._units():
            degree = stage.degree
            if degree is None or not self._complete(stage.link):
                continue
            if _linear(stage) and isinstance(stage.module, nn.Linear):
                yield from self._mixings(stage, following)
                continue
            for unit in units:
                values = [weights[unit.incoming], -degree * weights[unit.outgoing]]
                yield Direction(
                    np.concatenate([unit.incoming, unit.outgoing]), np.concatenate(values)
                )

    def _mixings(self, stage: _Stage, following: _Stage) -> Iterator[Direction]:
        """Tangents of ``A -> G A + s, B -> B G^-1`` for two linear layers in a row."""
        weights, rows = self.w.numpy(), self._rows(stage.link)
        columns = self._columns(following.link, len(rows))
        assert columns is not None
        for into, source in itertools.product(range(len(rows)), repeat=2):
            yield Direction(
                np.concatenate([rows[into], columns[source]]),
                np.concatenate([weights[rows[source]], -weights[columns[into]]]),
            )
        shift, bias = self._entries(stage.link, "bias"), self._entries(following.link, "bias")
        if shift is None or bias is None or not isinstance(following.module, nn.Linear):
            return
        for channel, entry in enumerate(shift):
            if len(columns[channel]) == len(bias):
                yield Direction(np.append(bias, entry), np.append(-weights[columns[channel]], 1.0))

    def _normalized(self) -> Iterator[Direction]:
        """
        Tangents of scales and shifts that batch norm takes away.

        A filter times t changes its channel's normalized values by the factor
        t (v + eps)^1/2 / (t^2 v + eps)^1/2, v its variance, and batch norm's own scale makes up
        for it: to first order by eps / (v + eps).
        """
        if not self.batch:
            return
        weights = self.w.numpy()
        for stage, following in itertools.pairwise(self.stages):
            if not isinstance(following.module, _NORMS) or stage.degree is None:
                continue
            eps, scale = following.module.eps, self._entries(following.link, "weight")
            variances = self._seen[following.link.name].variance
            for channel, row in enumerate(self._rows(stage.link)):
                if not self._complete(stage.link):
                    break
                made_up = -stage.degree * eps / (variances[channel] + eps)
                entries, values = [row], [weights[row]]
                if scale is not None:
                    entries.append(scale[channel : channel + 1])
                    values.append(made_up * weights[entries[-1]])
                yield Direction(np.concatenate(entries), np.concatenate(values))
            bias = self._entries(stage.link, "bias")
            if bias is not None and not stage.after:  # a shift, which the mean takes away
                for entry in bias:
                    yield Direction(np.array([entry]), np.ones(1))

    def _dead_units(self) -> Iterator[Direction]:
        for index, stage in enumerate(self.stages):
            if not (stage.after and isinstance(stage.after[0], _FLAT)):
                continue
            highest, rows = self._seen[stage.link.name].highest, self._rows(stage.link)
            last = index + 1 == len(self.stages)
            following = None if last else self.stages[index + 1].link
            columns = self._columns(following, len(highest)) if following else None
            for channel in np.flatnonzero(highest < 0):
                parts = [rows[channel]] if rows else []
                parts += [columns[channel]] if columns is not None else []
                for entry in np.concatenate(parts) if parts else ():
                    yield Direction(np.array([entry]), np.ones(1))

    @cached_property
    def _seen(self) -> dict[str, _Seen]:
        """What each stage reads and gives, over all samples."""
        count = len(self.chain.samples)
        size = count if self.batch else _BATCH
        seen: dict[str, _Seen] = {}
        for start in range(0, count, size):
            for name, found in self._pass(self.chain.inputs(start, min(start + size, count))):
                before = seen.get(name, found)
                highest = np.maximum(before.highest, found.highest)
                seen[name] = _Seen(highest, found.variance)
        return seen

    @torch.no_grad()
    def _pass(self, x: Tensor) -> Iterator[tuple[str, _Seen]]:
        names = {stage.link.name for stage in self.stages}
        for link in self.chain.links:
            variance = _by_channel(x).var(1, correction=0).numpy()
            x = self._apply(link, x)
            if link.name in names:
                yield link.name, _Seen(_by_channel(x).amax(1).numpy(), variance)

    def _apply(self, link: Link, x: Tensor) -> Tensor:
        if self.batch and isinstance(link.module, _NORMS):
            named = self.chain.tensors(link, self.w)
            weight, bias = named.get("weight"), named.get("bias")
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, link.module.eps)
        return self.chain.apply(link, self.w, x)

    @torch.no_grad()
    def _dead_inputs(self) -> Iterator[Direction]:
        if not self.stages:
            return
        link = self.stages[0].link
        weight, bias = self._entries(link, "weight"), self._entries(link, "bias")
        reads = self._reads(link)
        if weight is None or reads is None:
            return
        unread = _null_space(reads.numpy(), bias is not None)
        for channel, direction in itertools.product(range(len(weight)), unread):
            entries = weight[channel].reshape(-1)
            if bias is not None:
                entries = np.append(entries, bias[channel])
            kept = direction != 0
            yield Direction(entries[kept], direction[kept])

    def _reads(self, link: Link) -> Tensor | None:
        """Give all that the first layer's kernels are multiplied by: shape (reads, fan-in)."""
        before = itertools.takewhile(lambda other: other is not link, self.chain.links)
        x = self.chain.inputs(0, len(self.chain.samples))
        for other in before:
            x = self.chain.apply(other, self.w, x)
        module = link.module
        if isinstance(module, nn.Linear):
            return x.reshape(-1, x.shape[-1])
        if not isinstance(module, nn.Conv2d) or module.groups != 1:
            return None
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return None
        size, stride = module.kernel_size, module.stride
        found = F.unfold(x, size, dilation=module.dilation, padding=module.padding, stride=stride)
        return found.transpose(1, 2).reshape(-1, found.shape[1])


def _by_channel(x: Tensor) -> Tensor:
    return x.movedim(1, 0).flatten(1)


def _linear(stage: _Stage) -> bool:
    return all(isinstance(module, (nn.Identity, nn.Flatten)) for module in stage.after)


def _null_space(reads: Array, bias: bool) -> Array:
    """
    Rows: combinations of inputs (and the bias, as last) that vanish on all samples.

    With fewer reads than inputs any data leave some: these are the work of W > M, and only inputs
    that are the same in all samples count then.
    """
    constant = (reads == reads[:1]).all(axis=0)
    kept = np.ones(reads.shape[1], dtype=bool)
    if len(reads) <= reads.shape[1]:
        kept, reads = constant, reads[:1]
    columns = reads[:, kept]
    if bias:
        columns = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
        kept = np.append(kept, True)
    values, vectors = np.linalg.eigh(columns.T @ columns)
    unread = vectors[:, values <= _UNREAD * values.max(initial=0.0)]
    found = np.zeros((unread.shape[1], len(kept)))
    found[:, kept] = unread.T
    return found
