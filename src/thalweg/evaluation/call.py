"""The circumstances of a call: the same kernels whether a value or a derivative is wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from thalweg.problems.precision import full_precision


def one_function() -> AbstractContextManager[None]:
    """
    Have torch evaluate one and the same function for values and for derivatives of every order.

    Inside the block attention is computed by its formula, for the fused kernels have no second
    derivative and the inference path of ``nn.TransformerEncoder`` passes over what padded tokens
    give; functions of TorchScript refuse to be differentiated forward, where torch gives zeros;
    activation checkpoints keep their activations, for what they evaluate anew may meanwhile
    be at other weights, and has no right second derivative where they are reentrant; compiled
    functions run as they were written; float32 is multiplied in float32, not in the shorter
    formats that GPUs use by default in convolutions (TF32) and others by
    ``torch.set_float32_matmul_precision``, and by kernels that give the same bits each time.
    """
    # Entered once a pass or for many steps, not once a batch: it costs 70 microseconds.
    return nullcontext() if _Inside.depth else _entered()


@contextmanager
def _entered() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_Inside())
        stack.callback(
            torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
        )
        torch.backends.mha.set_fastpath_enabled(False)
        for name, replacement in _UNCHECKPOINTED.items():
            stack.callback(setattr, checkpointing, name, getattr(checkpointing, name))
            setattr(checkpointing, name, replacement)
        scripted = torch.jit.ScriptFunction
        stack.callback(setattr, scripted, "__call__", scripted.__call__)
        scripted.__call__ = _outside_of_transforms(scripted.__call__)  # type: ignore[method-assign]
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(_uncompiled())
        stack.enter_context(full_precision())
        yield


def unwrap_compiled(model: nn.Module) -> nn.Module:
    """Put the modules inside of ``torch.compile``'s wrappers in their places; not the user's."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if (inner := _compiled(child)) is not None:
                setattr(module, name, inner)
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None
    return _compiled(model) or model


def _compiled(module: nn.Module) -> nn.Module | None:
    inner = dict(module.named_children()).get("_orig_mod")
    return unwrap_compiled(inner) if inner is not None else None


def _uncompiled() -> Any:
    # Nothing has been compiled where the compiler has not been loaded, which takes a second.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


class _Inside:
    """Counts the blocks of `one_function` that are open: what they set belongs to the process."""

    depth = 0

    def __enter__(self) -> None:
        _Inside.depth += 1

    def __exit__(self, *_: object) -> None:
        _Inside.depth -= 1


def _outside_of_transforms(call: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse calls of a TorchScript function within transforms, which leave its derivatives out."""

    def guarded(function: Any, *args: Any, **kwargs: Any) -> Any:
        if torch._C._functorch.maybe_current_level() is not None:
            raise RuntimeError("a TorchScript function has no derivative forward")
        return call(function, *args, **kwargs)

    return guarded


class _Whole:
    """Stand in for torch's reentrant checkpoint: call the function, keep what it computes."""

    @staticmethod
    def apply(function: Callable[..., Any], _: bool, *args: Any) -> Any:
        return function(*args)


def _nothing_around(*_: Any, **__: Any) -> Iterator[None]:
    """Stand in for what torch's other checkpoint does before and after the function."""
    yield


_UNCHECKPOINTED = {
    "CheckpointFunction": _Whole,
    "_checkpoint_without_reentrant_generator": _nothing_around,
}
