"""Options of embeddings under which torch's gradient is not that of the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Names of the arguments of F.embedding and F.embedding_bag in their order, and what to say of those
# that matter.
_EMBEDDING = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")
_BAG = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq")
_WORDS = {
    "padding_idx": "leaves row {value} out of the gradient although the loss depends on it; call it"
    " without padding_idx, which changes no value, or use nn.Embedding(padding_idx={value}), whose"
    " gradient is then given whole",
    "max_norm": "shortens rows of the weights at each call and leaves that out of the gradient;"
    " leave out max_norm, or shorten the rows that are read in the forward, by torch's functions",
    "scale_grad_by_freq": "divides the gradient by how often a row is read; leave it out: no value"
    " changes",
}


class EmbeddingOptions(TorchFunctionMode):
    """
    Notice embeddings that are called with options which change the gradient alone.

    Parameters
    ----------
    frozen : sequence of Tensor
        Tables that are not trained: they have no gradient to change.

    Attributes
    ----------
    noticed : list of str
        What each does, and what to write instead, in the user's terms.
    """

    def __init__(self, frozen: Sequence[Tensor]) -> None:
        super().__init__()
        self._frozen = {tensor.untyped_storage().data_ptr() for tensor in frozen}
        self.noticed: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at a call, and let it pass."""
        options = dict(kwargs or {})
        if func is F.embedding:
            self._note_options("F.embedding", dict(zip(_EMBEDDING, args, strict=False)) | options)
        elif func is F.embedding_bag:  # which leaves what is padded out of its sum as well
            named = dict(zip(_BAG, args, strict=False)) | options
            self._note_options("F.embedding_bag", named | {"padding_idx": None})
        return func(*args, **options)

    def _note_options(self, name: str, arguments: Mapping[str, Any]) -> None:
        table = arguments.get("weight")
        if isinstance(table, Tensor) and table.untyped_storage().data_ptr() in self._frozen:
            return
        for option, words in _WORDS.items():
            value = arguments.get(option)
            if value is not None and value is not False:
                call = f"{name}({option}={value})"
                notice = f"{call} {words.format(value=value)}"
                self.noticed += [notice] if notice not in self.noticed else []
