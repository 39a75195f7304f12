"""Points of a landscape: the whole state of a model, read without running code from any file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.landscape.protocols import Stateful, provenance_of
from thalweg.landscape.space import ParameterSpace
from thalweg.problems.fitting import Fit, fit
from thalweg.problems.problem import Problem
from thalweg.problems.state_names import (
    COUNTS,
    ModelState,
    batch_norm_statistics,
    last,
    match_names,
    unwrapped,
)
from thalweg.problems.weight_files import Contents, few, flattened, read_weights
from thalweg.run.progress import Progress, silent

log = logging.getLogger("thalweg")


@dataclass(frozen=True, eq=False)
class Point:
    """
    The whole state of a model: trained weights, frozen weights and buffers.

    Attributes
    ----------
    state : dict of str to Tensor
        On the CPU, each tensor once, under the names that the model's parameters and buffers have;
        in the file's precision or the model's, whichever is more.
    name : str
        Where it comes from.
    notes : tuple of str
        What the file lacks or holds besides, with names and counts, and how it was read.
    values : dict
        Plain numbers and texts beside the weights, such as ``epoch``.
    lacking : tuple of str
        Names of the ``state_dict`` that the file does not have: they are the problem's.

    Examples
    --------
    >>> import thalweg as tw
    >>> problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[3])
    >>> point = tw.open_point(problem, problem.model.state_dict())
    >>> risk = tw.EmpiricalRisk(problem)
    >>> w = point.load_into(risk)
    >>> w.shape == (risk.space.size,), point.fixed(risk.space)
    (True, {})
    """

    state: dict[str, Tensor]
    name: str = "the state"
    notes: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    def weights(self, space: ParameterSpace) -> Tensor:
        """
        Give the trained weights as one flat vector.

        Parameters
        ----------
        space : ParameterSpace
            ``risk.space``.

        Returns
        -------
        Tensor
            Shape (W,).

        Raises
        ------
        InvalidWeights
            If the space is another model's.
        """
        trained = self._trained(space)
        return space.pack({name: self.state[own] for name, own in trained.items()})

    def _trained(self, space: ParameterSpace) -> dict[str, str]:
        """Find the names of a space among this point's."""
        matches = match_names(space.names, self.state)
        return {name: own for name, own in matches.items() if own is not None}

    def fixed(self, space: ParameterSpace) -> dict[str, Tensor]:
        """
        Give all that the flat vector leaves out: frozen weights and buffers, by name.

        Parameters
        ----------
        space : ParameterSpace
            ``risk.space``.
        """
        trained = set(self._trained(space).values())
        return {name: tensor for name, tensor in self.state.items() if name not in trained}

    def load_into(self, risk: Stateful) -> Tensor:
        """
        Give a risk this point's frozen weights and buffers, and return its weights.

        Parameters
        ----------
        risk : EmpiricalRisk
            Of the same problem. Batch-norm statistics stay a matter of its policy: where it is
            ``"held"``, they stay those that are held, and ``risk.held(w)`` holds those at w.

        Returns
        -------
        Tensor
            Shape (W,): where the risk is to be measured.
        """
        risk.set_fixed(self.fixed_of(risk))
        return self.weights(risk.space)

    def fixed_of(self, risk: Stateful) -> dict[str, Tensor]:
        """
        Give frozen weights and buffers under the names of a risk.

        Batch-norm statistics that the risk holds at one w are its own: these are left out.

        Raises
        ------
        CheckpointMismatch
            If the risk has not all of them.
        """
        own, recorded = risk.fixed(), self.fixed(risk.space)
        names = match_names((name for name in recorded if last(name) not in COUNTS), own)
        strange = [name for name, theirs in names.items() if theirs is None]
        if strange:
            raise CheckpointMismatch(
                f"{self.name} has {few(strange)}, which the risk has not; open the point with the"
                " problem of the risk: tw.open_point(risk.problem, path)."
            )
        held_statistics = _held_statistics(risk)
        return {
            theirs: recorded[name]
            for name, theirs in names.items()
            if theirs is not None and unwrapped(name) not in held_statistics
        }

    @property
    def sha256(self) -> str:
        """Digest of the whole state: names, dtypes, shapes and bytes."""
        total = hashlib.sha256()
        for name in sorted(self.state):
            tensor = self.state[name].contiguous()
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def open_point(
    problem: Problem,
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    entry: str | None = None,
    partial: bool = False,
    allow: Iterable[str | type] = (),
) -> Point:
    """
    Open the whole state of a problem's model: the one way to go to a checkpoint.

    Nothing in a file is run. The state is the one entry of the file that has the model's names and
    shapes, however it is nested and whatever wrappers have put before the names. What it lacks or
    holds besides is logged, and kept in the point's notes.

    Parameters
    ----------
    problem : Problem
        Whose model it is. It is not changed.
    source : path or mapping
        A file of ``torch.save``, safetensors, an index of shards, a NumPy archive (``.npz``), a
        folder of a model hub; or a ``state_dict``, or a mapping that holds one.
    entry : str, optional
        Which entry of the file, where several fit, such as a model and its moving average.
    partial : bool
        Take what fits, and the rest from the problem's model: for adapters, or another head.
    allow : iterable of str or type
        Classes that may stand beside the weights, ``"package.module.Class"``: their values are
        passed over.

    Returns
    -------
    Point
        With all tensors of the model.

    Raises
    ------
    CheckpointRefused
        If reading the file would run code, or it is no file of weights that can be read.
    CheckpointMismatch
        If no entry fits, or several do.
    InvalidWeights
        If weights are NaN or infinite.

    Examples
    --------
    >>> import thalweg as tw
    >>> problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[3])
    >>> state = {f"module.{name}": t for name, t in problem.model.state_dict().items()}
    >>> point = tw.open_point(problem, {"model": state, "epoch": 3})
    >>> point.values["epoch"], len(point.state)
    (3, 4)
    """
    return open_points(problem, [source], entry=entry, partial=partial, allow=allow)[0]


def open_points(
    problem: Problem,
    sources: Iterable[str | PathLike[str] | Mapping[str, Any]],
    *,
    entry: str | None = None,
    partial: bool = False,
    allow: Iterable[str | type] = (),
    tell: bool = True,
    progress: Progress = silent,
) -> list[Point]:
    """
    Open several points, as `open_point` does each; what is said of several is logged once.

    ``progress`` is told of every file; without ``tell`` nothing is logged.
    """
    if not isinstance(problem, Problem):
        raise InvalidArgument(
            f"open_point got a {type(problem).__name__} as the problem; write"
            " tw.open_point(problem, path), or of a risk tw.open_point(risk.problem, path)."
        )
    listed, classes = list(sources), tuple(allow) if not isinstance(allow, str) else (allow,)
    points, notes_given = [], set[str]()
    with progress(len(listed), "checkpoints") as bar:
        for source in listed:
            contents, name = _contents(source, classes)
            state = ModelState(problem.model)
            fitted = fit(state, contents.tensors, entry=entry, partial=partial, what=name)
            if tell:
                _log_notes(fitted, name, notes_given)
            whole, notes = _whole(state, fitted), fitted.notes + fitted.usual
            values = contents.about or contents.values
            points.append(Point(whole, name, notes, values, fitted.lacking))
            bar.update(1)
    return points


def _contents(source: Any, allow: tuple[str | type, ...]) -> tuple[Contents, str]:
    if isinstance(source, Mapping):
        return flattened(source), "the mapping"
    if isinstance(source, str | PathLike):
        return read_weights(Path(source), allow=allow, resume=False), str(source)
    raise InvalidArgument(
        f"open_point got a {type(source).__name__}; give a path or a mapping, such as"
        " model.state_dict()."
    )


def _whole(state: ModelState, fitted: Fit) -> dict[str, Tensor]:
    """Give every parameter and buffer of a model: the file's, or else its own."""
    tensors = state.saved | state.unsaved
    by_tensor = {id(tensors[name]): name for name in fitted.tensors}
    by_name = match_names(state.live, fitted.tensors)
    places = {name: by_tensor.get(id(t), by_name[name]) for name, t in state.live.items()}
    placed = {id(tensors[name]) for name in places.values() if name is not None}
    unplaced = [name for name in fitted.tensors if id(tensors[name]) not in placed]
    if unplaced:
        raise CheckpointMismatch(
            f"{state.called} saves {few(unplaced)}, which are none of its parameters and buffers,"
            " so the point cannot be told from the file. Load it in the entry that makes the"
            " problem: model.load_state_dict(torch.load(path))."
        )
    return {
        name: own.detach().cpu().clone() if place is None else fitted.tensors[place]
        for (name, own), place in zip(state.live.items(), places.values(), strict=True)
    }


def _log_notes(fitted: Fit, name: str, notes_given: set[str]) -> None:
    """Log notes; those that were said of another file are not said again."""
    for notes, tell in ((fitted.notes, log.warning), (fitted.usual, log.info)):
        new = [note for note in notes if note not in notes_given]
        if new:
            tell("%s: %s.", name, "; ".join(new))
        notes_given.update(new)


def _held_statistics(risk: Stateful) -> set[str]:
    if provenance_of(risk).batchnorm != "held":
        return set()
    model = getattr(getattr(risk, "problem", None), "model", nn.Module())
    return set(map(unwrapped, batch_norm_statistics(model)))


def load_weights(
    path: str | Path, *, allow: Iterable[str | type] = ()
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Read the tensors of a checkpoint, on the CPU.

    Parameters
    ----------
    path : str or Path
        Any file that `open_point` takes.
    allow : iterable of str or type
        As for `open_point`.

    Returns
    -------
    tensors : dict of str to Tensor
        By their names in the file; those of nested entries behind the entry's name and "/".
    about : dict
        What Thalweg wrote about the checkpoint; empty for others.

    Raises
    ------
    CheckpointRefused
        If reading would run code, or the file is truncated or no checkpoint.
    """
    contents = read_weights(path, allow=allow)
    return contents.tensors, contents.about


def fit_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], *, entry: str | None = None
) -> dict[str, Tensor]:
    """
    Bring a checkpoint's tensors into the form of the model's ``state_dict``.

    The one entry with the model's names and shapes is taken, wrappers' names are stripped, numbers
    converted to the model's dtype, both names of tied weights given, and what only Thalweg's resume
    needs left out.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    tensors : mapping of str to Tensor
        As `load_weights` gives them, or nested mappings of them.
    entry : str, optional
        Which entry, where several fit.

    Returns
    -------
    dict of str to Tensor
        Ready for ``model.load_state_dict``.

    Raises
    ------
    CheckpointMismatch
        If weights are missing, unexpected, of another shape or of another kind of numbers.
    InvalidWeights
        If weights are NaN or infinite.
    """
    state = ModelState(model)
    fitted = fit(state, flattened(tensors).tensors, entry=entry)
    _log_notes(fitted, "the checkpoint", set())
    return {
        name: fitted.tensors.get(name, target.detach()).to(target.dtype)
        for name, target in state.saved.items()
    }
