"""What lies between points: the frozen weights and buffers of each, and mixtures of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Function, Stateful, provenance_of, require
from thalweg.problems.checkpoints import Point
from thalweg.problems.state_names import batch_norm_statistics, unwrapped
from thalweg.problems.weight_files import few

# Shares this near to 0 or 1 are a point itself: coordinates are solved for in float64.
_SNAP = 1e-12


@dataclass(frozen=True, eq=False)
class FixedParts:
    """
    Frozen weights and buffers of several points, as far as they differ.

    Attributes
    ----------
    mixed : mapping of str to Tensor
        Floating-point and complex numbers, shape (n, ...): interpolated.
    stepped : mapping of str to Tensor
        Integers and truth values, shape (n, ...): those of the point with the largest share.
    differing : str
        Their numbers and names, in words; empty where nothing differs.
    note : str
        The same, with what is done with them.

    Examples
    --------
    >>> parts = FixedParts({"mean": torch.tensor([[0.0], [4.0]])}, {"mask": torch.tensor([0, 1])})
    >>> parts.at([0.75, 0.25])
    {'mean': tensor([1.]), 'mask': tensor(0)}
    """

    mixed: Mapping[str, Tensor] = field(default_factory=dict)
    stepped: Mapping[str, Tensor] = field(default_factory=dict)
    differing: str = ""
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.mixed or self.stepped)

    def at(self, shares: Sequence[float]) -> dict[str, Tensor]:
        """
        Mix the points.

        Parameters
        ----------
        shares : sequence of float
            Barycentric coordinates, one a point, of sum 1. Where one of them is 1 and the others
            are 0, the answer is that point's to the last bit.
        """
        largest = max(range(len(shares)), key=lambda i: shares[i])
        further = (share for i, share in enumerate(shares) if i != largest)
        stepped = {name: stack[largest] for name, stack in self.stepped.items()}
        if all(abs(share) < _SNAP for share in further):
            return {name: stack[largest] for name, stack in self.mixed.items()} | stepped
        return {name: _mixed(stack, shares) for name, stack in self.mixed.items()} | stepped


def _mixed(stack: Tensor, shares: Sequence[float]) -> Tensor:
    wide = torch.float32 if stack.dtype.itemsize < 4 else stack.dtype
    mixed = stack[0].to(wide) * shares[0]
    for tensor, share in zip(stack[1:], shares[1:], strict=True):
        mixed.add_(tensor.to(wide), alpha=share)
    return mixed.to(stack.dtype)


@dataclass(frozen=True, eq=False)
class States:
    """
    Whole states of one model at several points.

    Attributes
    ----------
    weights : list of Tensor
        Shape (W,) each.
    fixed : list of dict of str to Tensor
        Frozen weights and buffers of each, under the names of the risk.
    parts : FixedParts
        Where these differ.
    told : dict
        What is said of them in the attributes of a result; empty for flat vectors alone.
    """

    weights: list[Tensor]
    fixed: list[dict[str, Tensor]]
    parts: FixedParts
    told: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, risk: Function, points: Iterable[Point | Tensor]) -> States:
        """
        Lay out points under the names of a risk.

        Parameters
        ----------
        risk : EmpiricalRisk
            Of the problem with which the points were opened. It is not changed.
        points : iterable of Point or Tensor
            A flat vector, shape (W,), has the risk's own frozen weights and buffers.

        Raises
        ------
        InvalidArgument
            If a point is given and the landscape has no frozen weights and buffers to set, or what
            is given is no point.
        """
        listed = list(points)
        whole = [point for point in listed if isinstance(point, Point)]
        strange = [point for point in listed if not isinstance(point, Point | Tensor)]
        if strange:
            raise InvalidArgument(
                f"got {strange[0]!r} as a point; give a flat vector, or a whole state:"
                " thalweg.open_point(problem, path)."
            )
        if not whole:
            return cls([w for w in listed if isinstance(w, Tensor)], [], FixedParts())
        user = f"the point {whole[0].name} is a whole state, and"
        risk = require(risk, Stateful, user, "give an EmpiricalRisk, or point.weights(space)")
        own = dict(risk.fixed())
        weights = [p.weights(risk.space) if isinstance(p, Point) else p for p in listed]
        fixed = [own | (p.fixed_of(risk) if isinstance(p, Point) else {}) for p in listed]
        parts = _between(fixed, risk)
        for state in fixed[1:]:  # what is the same is held once
            state |= {n: t for n, t in fixed[0].items() if n not in (*parts.mixed, *parts.stepped)}
        return cls(weights, fixed, parts, {"between": parts.note, "notes": gathered_notes(whole)})

    @contextmanager
    def visited(self, risk: Function) -> Iterator[None]:
        """Give the risk what all points share, and leave it as it was found."""
        if not (self.fixed and isinstance(risk, Stateful)):
            yield
            return
        before = risk.fixed()
        risk.set_fixed(self.fixed[0])
        try:
            yield
        finally:
            risk.set_fixed(before)

    def go(self, risk: Function, shares: Sequence[float]) -> None:
        """Give the risk the frozen weights and buffers at barycentric coordinates."""
        if self.parts and isinstance(risk, Stateful):
            risk.set_fixed(self.parts.at(shares))


def gathered_notes(points: Sequence[Point]) -> list[str]:
    """List the notes of points, each with the files that it is about."""
    files: dict[str, dict[str, None]] = {}
    for point in points:
        for note in point.notes:
            files.setdefault(note, {})[point.name] = None
    return [f"{_listed(list(names))}: {note}" for note, names in files.items()]


def _listed(names: list[str]) -> str:
    if len(names) < 3:
        return " and ".join(names)
    return f"{len(names)} files from {names[0]} to {names[-1]}"


def _between(fixed: Sequence[Mapping[str, Tensor]], risk: Stateful) -> FixedParts:
    """Stack what differs between points, and say what becomes of it."""
    mixed: dict[str, Tensor] = {}
    stepped: dict[str, Tensor] = {}
    for name, first in fixed[0].items():
        dtype = reduce(torch.promote_types, (state[name].dtype for state in fixed))
        stack = torch.stack([state[name].to(first.device, dtype) for state in fixed])
        if not bool((stack == stack[0]).all()):
            kind = mixed if dtype.is_floating_point or dtype.is_complex else stepped
            kind[name] = stack
    return FixedParts(mixed, stepped, *_described(mixed, stepped, risk))


def _described(mixed: Iterable[str], stepped: Iterable[str], risk: Stateful) -> tuple[str, str]:
    """Say what differs, and what is done with it."""
    model = getattr(getattr(risk, "problem", None), "model", nn.Module())
    counted = {unwrapped(name) for name in batch_norm_statistics(model)}
    if provenance_of(risk).batchnorm == "frozen":
        counted = {name for name in counted if name.endswith("num_batches_tracked")}
    weights = {unwrapped(name) for name, _ in model.named_parameters()}
    unread = [name for name in mixed if unwrapped(name) not in counted]
    kinds = {
        ("frozen weight", "interpolated"): [n for n in unread if unwrapped(n) in weights],
        ("buffer", "interpolated"): [n for n in unread if unwrapped(n) not in weights],
        ("integer buffer", "of the nearest point"): [
            n for n in stepped if unwrapped(n) not in counted
        ],
        ("batch-norm statistic", "by the policy"): [
            n for n in (*mixed, *stepped) if unwrapped(n) in counted
        ],
    }
    groups = [
        (f"{len(names)} {noun}{'s' * (len(names) > 1)}", fate, few(names))
        for (noun, fate), names in kinds.items()
        if names
    ]
    differing = "; ".join(f"{number} ({names})" for number, _, names in groups)
    note = "; ".join(f"{number}, {fate} ({names})" for number, fate, names in groups)
    return differing, note and f"what differs besides the trained weights: {note}"
