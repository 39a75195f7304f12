"""What a recording keeps of a model and its optimizers, and how it gives it back."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from thalweg.dynamics.optimizer_state import PREFIX, flatten_state, restore_state, rng_tensors
from thalweg.dynamics.optimizer_steps import distinct, inner_optimizers
from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.run.checkpoints import RESUME_PREFIX, why_not_storable

logger = logging.getLogger("thalweg")

EXTRA_PREFIX = RESUME_PREFIX + "extra/"
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Kept:
    """
    Named state on its way into a checkpoint.

    Attributes
    ----------
    tensors : dict of str to Tensor
        What a file holds.
    extra : dict
        By name, the structure of state that is no tensor (``get_extra_state``).
    left_out : dict of str to str
        Names of what cannot be kept, with the reason.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        """Keep one entry of a ``state_dict``, or note why it cannot be kept."""
        if isinstance(value, Tensor):
            if (reason := why_not_storable(value)) is None:
                self.tensors[name] = value
            else:
                self.left_out[name] = reason
            return
        try:
            tensors, self.extra[name] = flatten_state(value, prefix=f"{EXTRA_PREFIX}{name}/")
        except InvalidArgument:
            self.left_out[name] = f"it is a {type(value).__name__} of a kind no checkpoint holds"
        else:
            self.tensors |= tensors

    def renamed(self, rename: Callable[[str], str]) -> Kept:
        """Rename the entries."""
        return Kept(
            {_rename_tensor(name, rename): tensor for name, tensor in self.tensors.items()},
            {rename(name): structure for name, structure in self.extra.items()},
            {rename(name): reason for name, reason in self.left_out.items()},
        )


def _rename_tensor(name: str, rename: Callable[[str], str]) -> str:
    if not name.startswith(EXTRA_PREFIX):
        return rename(name)
    owner, _, place = name.removeprefix(EXTRA_PREFIX).rpartition("/")
    return f"{EXTRA_PREFIX}{rename(owner)}/{place}"


@dataclass
class Moment:
    """
    A training at the end of a step, to be written before the next one changes the weights.

    What may change in between is fixed now: buffers and the like, which the next forward pass
    moves, by copies; which weights there are, which of them are trained and in how many groups, for
    layers are added, removed and unfrozen at the beginning of a step. Weights themselves and the
    states of optimizers are read when they are written: clipping, a scheduler's step and the like
    still belong to the step behind them.
    """

    weights: list[tuple[str, nn.Parameter]]
    trained: list[str]
    passing: Kept
    groups: list[int]

    @classmethod
    def now(cls, model: nn.Module, optimizers: Sequence[Any]) -> Moment:
        """Take the present moment."""
        weights = list(model.named_parameters(remove_duplicate=False))
        passing = Kept({name: tensor.clone() for name, tensor in rng_tensors().items()})
        for name, value in _passing(model, {name for name, _ in weights}):
            if isinstance(value, Tensor) and not is_lazy(value):
                passing.tensors[name] = value.detach().clone()
            else:
                passing.add(name, value if is_lazy(value) else copy.deepcopy(value))
        trained: dict[int, str] = {}
        for name, parameter in weights:
            if parameter.requires_grad:
                trained.setdefault(id(parameter), name)
        groups = [len(_groups(optimizer)) for optimizer in with_inner(optimizers)]
        return cls(weights, list(trained.values()), passing, groups)

    def state(self) -> Kept:
        """Give all of it that is not the optimizers', as far as a file can hold it."""
        recorded = Kept(extra=self.passing.extra, left_out=dict(self.passing.left_out))
        for name, tensor in (*self.weights, *self.passing.tensors.items()):
            recorded.add(name, tensor)
        return recorded


def _passing(model: nn.Module, weights: Set[str]) -> Iterator[tuple[str, Any]]:
    """Go through what is not weights in the ``state_dict``, at a tenth of its price if possible."""
    if any(map(_has_its_own_way, model.modules())):
        yield from ((n, value) for n, value in model.state_dict().items() if n not in weights)
        return
    for owner, module in model.named_modules(remove_duplicate=False):
        prefix = f"{owner}." if owner else ""
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield prefix + name, buffer
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield f"{prefix}_extra_state", module.get_extra_state()


def _has_its_own_way(module: nn.Module) -> bool:
    kind = type(module)
    return bool(
        kind.state_dict is not nn.Module.state_dict
        or kind._save_to_state_dict is not nn.Module._save_to_state_dict
        or "state_dict" in vars(module)
        or module._state_dict_hooks
        or module._state_dict_pre_hooks
    )


def plain_names(model: nn.Module) -> Callable[[str], str]:
    """
    Give the function that takes wrappers' parts out of the names of a model's tensors.

    Those of ``torch.compile``, `DataParallel`, `DistributedDataParallel` and `AveragedModel`: a
    checkpoint of a wrapped model then fits the plain one.

    Examples
    --------
    >>> wrapped = nn.DataParallel(nn.Sequential(nn.Linear(2, 1)))
    >>> plain_names(wrapped)("module.0.weight")
    '0.weight'
    """
    plain = {"": ""}
    for name, module in model.named_modules(remove_duplicate=False):
        for child in module._modules:
            below = f"{name}.{child}" if name else child
            hidden = child == "_orig_mod" or (child == "module" and isinstance(module, _WRAPPERS))
            parent = plain[name]
            plain[below] = parent if hidden else f"{parent}.{child}" if parent else child

    def rename(name: str) -> str:
        owner, _, own = name.rpartition(".")
        owner = plain.get(owner, owner)
        return f"{owner}.{own}" if owner else own

    return rename


def fingerprint(model: nn.Module) -> tuple[int, ...] | None:
    """Reduce the bits of every weight to a number each; None where some are not made yet."""
    parameters = list(model.parameters())
    if any(is_lazy(parameter) for parameter in parameters):
        return None
    return tuple(_sum_of_bits(parameter.detach()) for parameter in parameters)


def _sum_of_bits(tensor: Tensor) -> int:
    if why_not_storable(tensor) is not None:
        return tensor._version
    if tensor.layout != torch.strided:
        tensor = tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    # Sums of the numbers themselves would not do: steps on a softmax layer leave them as they are.
    return int(real.view(_INTEGERS[real.element_size()]).sum(dtype=torch.int64))


def versions(model: nn.Module) -> tuple[int, ...]:
    """Note how often each weight was written to, as torch counts it."""
    return tuple(parameter._version for parameter in model.parameters())


def with_inner(optimizers: Sequence[Any]) -> list[Any]:
    """List the optimizers and those they hold, each once."""
    return distinct(
        optimizer for outer in optimizers for optimizer in (outer, *inner_optimizers(outer))
    )


def optimizers_state(
    optimizers: Sequence[Any], groups: Sequence[int], model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Take the states of all optimizers and of those they hold.

    Parameters
    ----------
    optimizers : sequence
        Those given.
    groups : sequence of int
        For each of `with_inner`, how many of its parameter groups to take: the first.
    model : nn.Module
        Names the weights in the groups.

    Returns
    -------
    tensors : dict of str to Tensor
        Not copied.
    about : dict
        ``optimizers``: the structure of their states; ``groups``: for each optimizer and each of
        its parameter groups, the names of the weights in it.

    Raises
    ------
    InvalidArgument
        If a state holds what no checkpoint can hold.
    """
    rename = plain_names(model)
    names = {id(parameter): rename(name) for name, parameter in model.named_parameters()}
    states, named = {}, []
    for number, (optimizer, count) in enumerate(zip(with_inner(optimizers), groups, strict=True)):
        state = optimizer.state_dict()
        if "param_groups" in state:
            state = {**state, "param_groups": state["param_groups"][:count]}
        states[f"{type(optimizer).__name__}{number or ''}"] = state
        weights = [group["params"] for group in _groups(optimizer)[:count]]
        named.append([[names.get(id(weight)) for weight in group] for group in weights])
    tensors, structure = flatten_state(states)
    return tensors, {"optimizers": structure, "groups": named}


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """
    Load a recorded state into a model, in place, and which of its weights are trained.

    Raises
    ------
    CheckpointMismatch
        If it is not of the model's kind, or the checkpoint lacks weights.
    """
    rename = plain_names(model)
    plain = {name: t for name, t in tensors.items() if not name.startswith(RESUME_PREFIX)}
    _fit_buffers(model, plain, rename)
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    restored = {name: _recorded(name, rename(name), plain, tensors, about, state) for name in state}
    apart = {n: p for n, p in model.named_parameters(remove_duplicate=False) if n not in state}
    own = {rename(name) for name in (*state, *apart)}
    restored |= {name: tensor for name, tensor in plain.items() if name not in own}
    model.load_state_dict(
        {name: value for name, value in restored.items() if value is not _MISSING}
    )
    with torch.no_grad():
        for name, parameter in apart.items():
            parameter.copy_(plain[rename(name)])
    trained = set(about["parameters"])
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(rename(name) in trained)


_MISSING = object()


def _recorded(
    name: str,
    plain_name: str,
    plain: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    state: Mapping[str, Any],
) -> Any:
    """Find what was recorded of one entry; where nothing could be, the entry as it is."""
    if plain_name in about.get("extra", {}):
        prefix = f"{EXTRA_PREFIX}{plain_name}/"
        return restore_state(tensors, about["extra"][plain_name], prefix=prefix)
    reason = about.get("left_out", {}).get(plain_name)
    if reason is None:
        return plain.get(plain_name, _MISSING)
    if isinstance(state[name], nn.Parameter):
        raise CheckpointMismatch(f"weights {plain_name!r} were not kept ({reason}); record anew.")
    logger.warning("%r was not kept (%s) and stays as it is in the model.", plain_name, reason)
    return state[name]


def _fit_buffers(
    model: nn.Module, plain: Mapping[str, Tensor], rename: Callable[[str], str]
) -> None:
    """Make room for buffers whose shape changed in training, or that were empty before it."""
    for owner, module in model.named_modules():
        for name, buffer in module._buffers.items():
            recorded = plain.get(rename(f"{owner}.{name}" if owner else name))
            if recorded is None or is_lazy(buffer):
                continue
            if buffer is None or buffer.shape != recorded.shape or recorded.layout != torch.strided:
                device = _device(model) if buffer is None else buffer.device
                module._buffers[name] = recorded.to(device, copy=True)


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def recorded_states(
    optimizers: Sequence[Any], tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> list[Any]:
    """
    Read the recorded states of optimizers, before anything is changed.

    Raises
    ------
    CheckpointMismatch
        If there are more or fewer optimizers than were recorded, or their states were not kept.
    """
    if about["optimizers"] is None:
        raise CheckpointMismatch(
            "the state of the optimizers was not kept (the recording said so), so the training"
            " cannot go on as it was. Open the weights alone: tw.open_point(problem, path)"
        )
    # Where a tensor lies in a file's memory moves the roundings of sums over it: torch's own place.
    own = {name: tensor.clone() for name, tensor in tensors.items() if name.startswith(PREFIX)}
    everyone, states = with_inner(optimizers), restore_state(own, about["optimizers"])
    kinds = [type(optimizer).__name__ for optimizer in everyone]
    if len(everyone) != len(states):
        raise CheckpointMismatch(
            f"it holds the states of {_few(states)}, and got {_few(kinds)}; give those that were"
            " given when it was recorded, in the same order"
        )
    return list(states.values())


def restore_optimizers(
    optimizers: Sequence[Any], model: nn.Module, states: Sequence[Any], about: Mapping[str, Any]
) -> None:
    """Load recorded states into optimizers, with parameter groups that were added on the way."""
    everyone = with_inner(optimizers)
    rename = plain_names(model)
    weights = {rename(name): parameter for name, parameter in model.named_parameters()}
    share_groups = _shared_groups(everyone)
    for optimizer, state, groups in zip(everyone, states, about["groups"], strict=True):
        _add_groups(optimizer, groups, weights)
        optimizer.load_state_dict(state)
    share_groups()


def _few(names: Iterable[str], most: int = 5) -> str:
    listed = list(names) or ["no optimizer"]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if listed[most:] else "")


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """List its parameter groups; schedulers and gradient scalers have none."""
    groups: list[dict[str, Any]] = getattr(optimizer, "param_groups", [])
    return groups


def _add_groups(
    optimizer: Any, groups: Sequence[Sequence[str | None]], weights: Mapping[str, Tensor]
) -> None:
    for names in groups[len(_groups(optimizer)) :]:
        if all(name in weights for name in names):
            optimizer.add_param_group({"params": [weights[name] for name in names if name]})


def _shared_groups(optimizers: Sequence[Any]) -> Callable[[], None]:
    """
    Note the parameter groups that inner optimizers have in common with those that hold them.

    Returns
    -------
    callable
        Makes them common again: ``load_state_dict`` gives each optimizer groups of its own, and a
        rate set in one would not reach the other.
    """
    pairs = [(outer, inner) for outer in optimizers for inner in inner_optimizers(outer)]
    lists = [(outer, inner) for outer, inner in pairs if _groups(outer) is inner.param_groups]
    groups = [
        (outer, i, inner, j)
        for outer, inner in pairs
        for i, group in enumerate(_groups(outer))
        for j, own in enumerate(inner.param_groups)
        if group is own
    ]

    def share() -> None:
        for outer, inner in lists:
            inner.param_groups = outer.param_groups
        for outer, i, inner, j in groups:
            inner.param_groups[j] = outer.param_groups[i]

    return share
