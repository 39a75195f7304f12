"""The entries of a file of weights, and the one that fits a model by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from thalweg.errors import CheckpointMismatch
from thalweg.problems.state_names import (
    COUNTS,
    EXTRA,
    ModelState,
    by_unwrapped,
    last,
    pieces,
)
from thalweg.problems.weight_files import NEST, few
from thalweg.run.checkpoints import RESUME_PREFIX


@dataclass(frozen=True, eq=False)
class Entry:
    """
    All tensors of a file whose names begin with one prefix, as weights of a model.

    Attributes
    ----------
    state : ModelState
        What the model expects.
    file : File
        Where it is read.
    prefix : str
        Of its names, without wrappers.
    under : dict of str to str
        What follows the prefix, without wrappers, to the whole name.
    """

    state: ModelState
    file: File
    prefix: str
    under: dict[str, str]

    @property
    def label(self) -> str:
        """What the user calls it."""
        return self.prefix.rstrip("./") or "."

    def tensor(self, short: str) -> Tensor:
        """Give a tensor by what follows the prefix."""
        return self.file.tensors[self.under[short]]

    @cached_property
    def present(self) -> list[str]:
        """The model's names that it has, in the model's order."""
        return [short for short in self.state.tensors if short in self.under]

    @cached_property
    def matched(self) -> list[str]:
        """Those of the model's shape; a lazy layer has none yet."""
        expected = self.state.tensors
        return [
            short
            for short in self.present
            if nn.parameter.is_lazy(expected[short])
            or expected[short].shape == self.tensor(short).shape
        ]

    @cached_property
    def reshaped(self) -> list[str]:
        """Those of another shape."""
        return [short for short in self.present if short not in set(self.matched)]

    @cached_property
    def missing(self) -> list[str]:
        """The model's names that it lacks, but for second names of tied tensors and for counts."""
        present = set(self.present)
        present |= {short for names in self.state.ties if present & {*names} for short in names}
        return [
            short
            for short, name in self.state.names.items()
            if short not in present and name in self.state.saved and last(short) not in COUNTS
        ]

    @cached_property
    def unexpected(self) -> list[str]:
        """Its names that the model has not; what lies in entries below it belongs to these."""
        return [
            short
            for short in self.under
            if short not in self.state.tensors
            and NEST not in short
            and last(short) not in (*COUNTS, EXTRA)
        ]

    @property
    def complete(self) -> bool:
        """Whether it has everything, in the model's shapes."""
        return not self.missing and not self.reshaped

    @property
    def is_numbered_part(self) -> bool:
        """Whether it is one of several numbered layers: a part of another network, it seems."""
        nest, slash, _ = self.prefix.rpartition(NEST)
        place = nest + slash
        beside = (
            short
            for short in self.file.names
            if short.startswith(place) and not short.startswith(self.prefix)
        )
        return last(self.label).isdigit() and any(
            NEST not in short.removeprefix(place) for short in beside
        )

    def equals(self, other: Entry) -> bool:
        """Whether another entry gives the model the same weights."""
        return self.matched == other.matched and all(
            torch.equal(self.tensor(short), other.tensor(short)) for short in self.matched
        )

    def misfit(self) -> str:
        """Say what keeps it from fitting."""
        what, model = self.file.what, self.state.called
        if self.complete and not self.unexpected:
            return (
                f"{what} has weights of {model} only as {self.label!r}, one layer of several of"
                f" another network, it seems. If they are meant: entry={self.label!r}"
                f" (--entry {self.label})."
            )
        shapes = (
            f"{short} (got {tuple(self.tensor(short).shape)}, expected"
            f" {tuple(self.state.tensors[short].shape)})"
            for short in self.reshaped
        )
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": list(shapes),
        }
        parts = [f"{len(names)} {kind}: {few(names)}" for kind, names in kinds.items() if names]
        place = f" by its entry {self.label!r}, which comes nearest" if self.prefix else ""
        return f"{what} does not fit {model}{place}: {'; '.join(parts)}. {self._advice}"

    @property
    def _advice(self) -> str:
        if any(last(short).endswith("flat_param") for short in self.under):
            return (
                "Sharded weights must be gathered before they are saved"
                " (StateDictType.FULL_STATE_DICT)."
            )
        return (
            "Build the model with the settings it was trained with (widths, batch norm,"
            " activation), or take what fits and the rest from the problem: partial=True"
            " (--partial)."
        )


class File:
    """
    Named tensors of a file.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        As `read_weights` gives them.
    what : str
        What the file is called in messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self.tensors, self.what = tensors, what
        # Without wrappers' names, entry by entry: what only Thalweg's resume needs is left out.
        nests: dict[str, list[str]] = {}
        for name in tensors:
            if not name.startswith(RESUME_PREFIX):
                nests.setdefault(name.rpartition(NEST)[0], []).append(name)
        self.names = {
            short: name for names in nests.values() for short, name in by_unwrapped(names).items()
        }

    def entries(self, state: ModelState) -> list[Entry]:
        """List the entries that hold names of a model, those with most of them first."""
        counts: dict[str, int] = {}
        for short in self.names:
            parts = pieces(short)
            for i in range(len(parts)):
                if "".join(parts[i:]) in state.tensors:
                    prefix = "".join(parts[:i])
                    counts[prefix] = counts.get(prefix, 0) + 1
        ordered = sorted(counts, key=lambda prefix: -counts[prefix])  # else as in the file
        return [self._entry(state, prefix) for prefix in ordered or [""]]

    def _entry(self, state: ModelState, prefix: str) -> Entry:
        under = {
            short.removeprefix(prefix): name
            for short, name in self.names.items()
            if short.startswith(prefix)
        }
        return Entry(state, self, prefix, under)


def choose_entry(file: File, state: ModelState, *, entry: str | None, partial: bool) -> Entry:
    """
    Take the entry that is named, or else the one that fits.

    Parameters
    ----------
    file : File
        Where it is looked for.
    state : ModelState
        What the model expects.
    entry : str, optional
        Its name, or the part of it that tells it from others.
    partial : bool
        Take the one that fits best.

    Raises
    ------
    CheckpointMismatch
        If none fits, or several do, with different weights.
    """
    entries = file.entries(state)
    if entry is not None:
        entries = _named(entries, entry)
    fitting = _fitting(entries, partial)
    if not fitting and (inner := _inner_that_fits(file, state, partial)):
        return choose_entry(file, inner, entry=entry, partial=partial)
    if not fitting:
        raise CheckpointMismatch(_nothing(file, state) if partial else entries[0].misfit())
    distinct: list[Entry] = []
    for candidate in fitting:
        if not any(candidate.equals(earlier) for earlier in distinct):
            distinct.append(candidate)
    if len(distinct) > 1:
        raise CheckpointMismatch(_ambiguous(distinct))
    (chosen,) = distinct
    a_part = chosen.is_numbered_part and entry is None
    if not partial and (chosen.unexpected or a_part):
        raise CheckpointMismatch(chosen.misfit())
    return chosen


def _inner_that_fits(file: File, state: ModelState, partial: bool) -> ModelState | None:
    """Leave out what the model's names have in common until the file fits, if it then does."""
    inner = state.inner
    while inner is not None and not _fitting(file.entries(inner), partial):
        inner = inner.inner
    return inner


def _fitting(entries: Sequence[Entry], partial: bool) -> list[Entry]:
    if partial:
        return _best(entries)
    return [entry for entry in entries if entry.complete] or _renamed(entries[0])


def _best(entries: Sequence[Entry]) -> list[Entry]:
    most = max(len(entry.matched) for entry in entries)
    return [entry for entry in entries if len(entry.matched) == most > 0]


def _named(entries: Sequence[Entry], label: str) -> list[Entry]:
    exact = [entry for entry in entries if entry.label == label]
    within = [entry for entry in entries if _contains(entry.label, label)]
    if exact or within:
        return exact or within
    labels = [entry.label for entry in entries]
    raise CheckpointMismatch(
        f"{entries[0].file.what} has no entry {label!r} with weights of {entries[0].state.called},"
        f" but {few(map(repr, labels))}; write entry={labels[0]!r} (--entry {labels[0]})."
    )


def _contains(label: str, label_part: str) -> bool:
    """Say whether a label has the components of ``part`` in a row."""
    whole, sought = re.split(r"[./]", label), re.split(r"[./]", label_part)
    return any(whole[i : i + len(sought)] == sought for i in range(len(whole)))


def _renamed(entry: Entry) -> list[Entry]:
    """Let the model's own hooks for older files rename the tensors of an entry, if they do."""
    tensors = {short: entry.file.tensors[name] for short, name in entry.under.items()}
    before = set(tensors)
    for prefix, module in entry.state.model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            try:
                hook(tensors, f"{prefix}." if prefix else "", {}, True, [], [], [])
            except Exception:  # a hook of anybody's, that does not expect these names
                return []
    if before == set(tensors):
        return []
    file = File(tensors, entry.file.what)
    return [renamed for renamed in file.entries(entry.state) if renamed.complete]


def _nothing(file: File, state: ModelState) -> str:
    return (
        f"no tensor of {file.what} has a name and shape of {state.called}: it holds"
        f" {few(file.names)}, and the model {few(state.names)}."
    )


def _ambiguous(entries: Iterable[Entry]) -> str:
    listed = list(entries)
    labels = [entry.label for entry in listed]
    return (
        f"{listed[0].file.what} holds {len(labels)} entries that fit {listed[0].state.called}, with"
        f" different weights: {few(map(repr, labels))}. Say which: entry={labels[0]!r}"
        f" (--entry {labels[0]})."
    )
