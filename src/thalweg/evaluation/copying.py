"""Copies of modules as they are found: holding computed tensors, compiled, of any dtype."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from thalweg.evaluation.call import unwrap_compiled
from thalweg.polynomial.activation import PolynomialActivation
from thalweg.problems.module_attributes import tensors_within, to_evaluation_mode

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def copy_module(model: nn.Module) -> nn.Module:
    """
    Copy a module, without the wrappers of ``torch.compile``.

    Tensors that it holds and that were computed from its weights (by the old weight norm, by
    pruning, features kept for a later look) are copied as values: torch's own copy refuses them.

    Raises
    ------
    Exception
        Whatever the module's parts raise where they cannot be copied.
    """
    held = (tensor for module in model.modules() for tensor in tensors_within(vars(module)))
    computed = {id(t): t.detach().clone() for t in held if not t.is_leaf}
    copied = unwrap_compiled(copy.deepcopy(model, computed))
    for parameter in copied.parameters():
        if not parameter.is_leaf:  # TorchScript's copies are computed from the originals
            parameter.detach_().requires_grad_()
    return copied


def dtype_of(model: nn.Module) -> torch.dtype:
    """
    Give the dtype to measure a model in, which is the one it computes in: float64 or float32.

    It is float64 if any of its numbers are that would turn float32 inputs into float64. Numbers of
    no dimension beside others do not, by torch's rules of promotion, nor do the coefficients of a
    `PolynomialActivation`, which computes in the dtype of its input.

    Examples
    --------
    >>> dtype_of(nn.Linear(2, 1)), dtype_of(nn.Linear(2, 1).double())
    (torch.float32, torch.float64)
    """
    numbers = [
        tensor
        for module in model.modules()
        if not isinstance(module, PolynomialActivation)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    kinds = {tensor.dtype for tensor in numbers if tensor.dim()} or {t.dtype for t in numbers}
    return torch.float64 if kinds & {torch.float64, torch.complex128} else torch.float32


def cast(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a module; its real numbers become ``dtype``, its complex ones pairs of them."""
    model._apply(lambda tensor: cast_tensor(tensor, device, dtype))
    if dtype == torch.float64:
        for module in model.modules():
            _cast_attributes(module, device, dtype)
    return model


def cast_tensor(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move a tensor; real numbers become ``dtype``, complex ones pairs of them, integers stay."""
    if tensor.is_complex():
        return tensor.to(device, _COMPLEX[dtype])
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def as_evaluated(model: nn.Module) -> nn.Module:
    """
    Put a copy into evaluation mode, and have all of its derivatives given.

    Embeddings leave the row of ``padding_idx`` out of the gradient although the loss depends on
    it, and give sparse gradients where asked to, which have no second derivative, or divide them by
    how often a row is read; the function of the weights is the same without any of it. A bag of
    embeddings leaves the padding out of its sum: that is another function, and stays.
    """
    for module in to_evaluation_mode(model).modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = module.scale_grad_by_freq = False
    return model


def _cast_attributes(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    # Tensors that were not registered, so that module.to passes over them: exact in float64.
    for name, value in list(vars(module).items()):
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            vars(module)[name] = cast_tensor(value, device, dtype)
