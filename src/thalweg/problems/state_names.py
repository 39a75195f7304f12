"""Names of a model's state: what wrappers add to them, and what the model itself expects."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

# What wrappers call the model they hold: data parallel and averaged models, torch.compile, fully
# sharded data parallel, activation checkpointing.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Counts of batches and of averaged models: no function of the inputs depends on them.
COUNTS = ("num_batches_tracked", "n_averaged")
EXTRA = "_extra_state"
_ADAPTER = re.compile(r"(\.lora_[A-Za-z_]+\.)default\.")


def pieces(name: str) -> list[str]:
    """
    Cut a name behind every dot, and behind every slash, which parts entries of files.

    Examples
    --------
    >>> pieces("net/module.0.weight")
    ['net/', 'module.', '0.', 'weight']
    """
    return re.findall(r"[^./]*[./]|[^./]+", name)


def last(name: str) -> str:
    """Give the last piece of a name."""
    return re.split(r"[./]", name)[-1]


def is_wrapper(piece: str) -> bool:
    """Say whether a piece is what a wrapper adds."""
    return piece.endswith(".") and piece[:-1] in WRAPPERS


def unwrapped(name: str) -> str:
    """
    Leave out of a name what wrappers add, and the name that an adapter has in its layer.

    Examples
    --------
    >>> unwrapped("module.net._orig_mod.0.weight"), unwrapped("0.lora_A.default.weight")
    ('net.0.weight', '0.lora_A.weight')
    """
    plain = "".join(piece for piece in pieces(name) if not is_wrapper(piece))
    return _ADAPTER.sub(r"\1", plain)  # files of adapters do without it


def by_unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Find names by what they are without wrappers, or as they are where two would be one."""
    listed = list(names)
    short = {unwrapped(name): name for name in listed}
    return short if len(short) == len(listed) else {name: name for name in listed}


def match_names(sought: Iterable[str], names: Collection[str]) -> dict[str, str | None]:
    """
    Find names among others, as they are or without wrappers; None where one is not there.

    Examples
    --------
    >>> match_names(["0.weight", "1.bias"], ["_orig_mod.0.weight", "0.bias"])
    {'0.weight': '_orig_mod.0.weight', '1.bias': None}
    """
    short = by_unwrapped(names)
    return {name: name if name in names else short.get(unwrapped(name)) for name in sought}


def batch_norm_statistics(model: nn.Module) -> Iterator[str]:
    """Name the running statistics of a model's batch norms, and their counts of batches."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, _ in module.named_buffers():
                yield f"{prefix}.{name}" if prefix else name


@dataclass(frozen=True, eq=False)
class ModelState:
    """
    What a model's ``state_dict`` expects, and the buffers that it leaves out.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    prefix : str
        What is left out before its names, ``"net."`` of a model that holds another.
    """

    model: nn.Module
    prefix: str = ""

    @cached_property
    def saved(self) -> dict[str, Tensor]:
        """The tensors of the ``state_dict`` themselves, by name."""
        everything = self.model.state_dict(keep_vars=True).items()
        return {n: t for n, t in everything if isinstance(t, Tensor) and last(n) != EXTRA}

    @cached_property
    def extra(self) -> list[str]:
        """Names of what modules save besides tensors."""
        return [name for name in self.model.state_dict(keep_vars=True) if last(name) == EXTRA]

    @cached_property
    def live(self) -> dict[str, Tensor]:
        """Parameters and buffers, each once, under the names that modules give them."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    @cached_property
    def unsaved(self) -> dict[str, Tensor]:
        """Those that the ``state_dict`` leaves out (``persistent=False``)."""
        saved = {id(tensor) for tensor in self.saved.values()}
        names = set(map(unwrapped, self.saved))
        return {
            name: tensor
            for name, tensor in self.live.items()
            if id(tensor) not in saved and unwrapped(name) not in names
        }

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of all these by what they are without wrappers, in the model's order."""
        whole = by_unwrapped([*self.saved, *self.unsaved])
        return {short.removeprefix(self.prefix): name for short, name in whole.items()}

    @property
    def inner(self) -> ModelState | None:
        """The same without the first piece that all names share; None where they share none."""
        firsts = {pieces(short)[0] for short in self.names if last(short) not in COUNTS}
        if len(firsts) != 1 or not (first := firsts.pop()).endswith("."):
            return None
        return ModelState(self.model, self.prefix + first)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All these tensors, by names without wrappers."""
        tensors = self.saved | self.unsaved
        return {short: tensors[name] for short, name in self.names.items()}

    @cached_property
    def ties(self) -> list[list[str]]:
        """Groups of names, without wrappers, of one and the same tensor."""
        groups: dict[int, list[str]] = {}
        for short, tensor in self.tensors.items():
            groups.setdefault(id(tensor), []).append(short)
        return [names for names in groups.values() if len(names) > 1]

    @property
    def called(self) -> str:
        """What the model's class is called."""
        return type(self.model).__name__
