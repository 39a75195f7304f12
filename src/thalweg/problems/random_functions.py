"""What each random function of torch makes of uniform or normal numbers that are held fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Numbers(Protocol):
    """Random numbers that are a function of the sample, the call and the place alone."""

    keys: Tensor

    def uniform(self, shape: Iterable[int]) -> Tensor:
        """Give numbers in (0, 1) of this shape, float64."""

    def normal(self, shape: Iterable[int]) -> Tensor:
        """Give standard normal numbers of this shape, float64."""


def _as(numbers: Tensor, like: Tensor | None = None, **options: Any) -> Tensor:
    """Give numbers the dtype and place that were asked for."""
    dtype = options.get("dtype") or (torch.get_default_dtype() if like is None else like.dtype)
    default = torch.get_default_device() if like is None else like.device
    device = options.get("device") or default
    return numbers.to(device, dtype)


def _shape(size: tuple[Any, ...], options: dict[str, Any]) -> torch.Size:
    size = options.get("size", size)
    if len(size) == 1 and not isinstance(size[0], int):
        size = size[0]
    return torch.Size(size)


def _rand(draws: Numbers, *size: Any, **options: Any) -> Tensor:
    return _as(draws.uniform(_shape(size, options)), **_form(options))


def _randn(draws: Numbers, *size: Any, **options: Any) -> Tensor:
    return _as(draws.normal(_shape(size, options)), **_form(options))


def _form(options: dict[str, Any]) -> dict[str, Any]:
    """Give the dtype and device that were asked for."""
    return {name: options.get(name) for name in ("dtype", "device")}


def _rand_like(draws: Numbers, input: Tensor, **options: Any) -> Tensor:
    return _as(draws.uniform(input.shape), input, **_form(options))


def _randn_like(draws: Numbers, input: Tensor, **options: Any) -> Tensor:
    return _as(draws.normal(input.shape), input, **_form(options))


def _whole_numbers(numbers: Tensor, low: int, high: int) -> Tensor:
    return (low + numbers * (high - low)).floor().long()


def _randint(draws: Numbers, *bounds: Any, **options: Any) -> Tensor:
    *limits, size = bounds if "size" not in options else (*bounds, options["size"])
    low, high = (0, *limits)[-2:]
    low, high = options.get("low", low), options.get("high", high)
    numbers = _whole_numbers(draws.uniform(size), low, high)
    return _as(numbers, **{**_form(options), "dtype": options.get("dtype") or torch.int64})


def _randint_like(draws: Numbers, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    low, high = (0, *bounds)[-2:]
    low, high = options.get("low", low), options.get("high", high)
    return _as(_whole_numbers(draws.uniform(input.shape), low, high), input, **_form(options))


def _randperm(draws: Numbers, n: int, **options: Any) -> Tensor:
    order = draws.uniform((n,)).argsort()
    return _as(order, **{**_form(options), "dtype": options.get("dtype") or torch.int64})


def _normal(
    draws: Numbers, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **options: Any
) -> Tensor:
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors)) if tensors else torch.Size(size)
    like = tensors[0] if tensors else None
    numbers: Tensor = _as(draws.normal(shape), like, **_form(options)) * std + mean
    return numbers


def _bernoulli(draws: Numbers, input: Tensor, p: float | None = None, **_: Any) -> Tensor:
    return _as(draws.uniform(input.shape) < (input if p is None else p), input)


def _multinomial(
    draws: Numbers, input: Tensor, num_samples: int, replacement: bool = False, **_: Any
) -> Tensor:
    weights = input.detach().double()
    if replacement or num_samples == 1:
        shares = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        numbers = draws.uniform((*input.shape[:-1], num_samples))
        places = torch.searchsorted(shares.contiguous(), numbers)
        return places.clamp_max(input.shape[-1] - 1)
    # The largest of log p + Gumbel noise: a draw without replacement (Vieira, 2014).
    noise = -(-draws.uniform(input.shape).log()).log()
    return (weights.log() + noise).topk(num_samples, -1).indices


def _in_place(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(draws: Numbers, input: Tensor, *args: Any, **options: Any) -> Tensor:
        return input.copy_(make(draws, input, *args, **options))

    return rule


def _normal_(draws: Numbers, input: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return draws.normal(input.shape) * std + mean


def _uniform_(draws: Numbers, input: Tensor, a: float = 0.0, b: float = 1.0, **o: Any) -> Tensor:
    low: float = o.get("from", a)
    high: float = o.get("to", b)
    return low + draws.uniform(input.shape) * (high - low)


def _bernoulli_(draws: Numbers, input: Tensor, p: Any = 0.5) -> Tensor:
    smaller: Tensor = draws.uniform(input.shape) < p
    return smaller


def _exponential_(draws: Numbers, input: Tensor, lambd: float = 1.0) -> Tensor:
    return -draws.uniform(input.shape).log() / lambd


def _log_normal_(draws: Numbers, input: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    return (draws.normal(input.shape) * std + mean).exp()


def _dropped(draws: Numbers, input: Tensor, p: float, shape: Iterable[int]) -> Tensor:
    if p == 1:
        return torch.zeros_like(input)
    survives = draws.uniform(shape) >= p
    return input * _as(survives, input) / (1 - p)


def _dropout(
    draws: Numbers,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    train: bool = True,
) -> Tensor:
    if not (training and train) or p == 0:
        return input
    dropped = _dropped(draws, input, p, input.shape)
    return input.copy_(dropped) if inplace else dropped


def _channel_dropout(
    draws: Numbers, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return input
    dropped = _dropped(draws, input, p, (*input.shape[:2], *[1] * (input.dim() - 2)))
    return input.copy_(dropped) if inplace else dropped


def _attention(
    draws: Numbers,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """Attend by the formula of torch's page, with its dropout held fixed."""
    if dropout_p == 0:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, is_causal=is_causal, **options
        )
    scale = options.get("scale") or 1 / math.sqrt(query.shape[-1])
    if options.get("enable_gqa"):
        groups = query.shape[-3] // key.shape[-3]
        key, value = (heads.repeat_interleave(groups, -3) for heads in (key, value))
    scores = query @ key.transpose(-2, -1) * scale
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _dropped(draws, scores.softmax(-1), dropout_p, scores.shape) @ value


def _gumbel_softmax(
    draws: Numbers,
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
) -> Tensor:
    noise = _as(-(-draws.uniform(logits.shape).log()).log(), logits)
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    largest = torch.zeros_like(soft).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return largest - soft.detach() + soft


def _empty(draws: Numbers, *size: Any, **options: Any) -> Tensor:
    # Where several models are evaluated as one batch, numbers differ from model to model, and may
    # only be written to what does so, too: torch.distributions fills what is empty.
    return torch.empty(*size, **options) + (draws.keys[:1] * 0).sum().to(torch.int8)


RULES: dict[Any, Callable[..., Tensor]] = {
    torch.empty: _empty,
    torch.rand: _rand,
    torch.randn: _randn,
    torch.rand_like: _rand_like,
    torch.randn_like: _randn_like,
    torch.randint: _randint,
    torch.randint_like: _randint_like,
    torch.randperm: _randperm,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    torch.multinomial: _multinomial,
    Tensor.multinomial: _multinomial,
    Tensor.normal_: _in_place(_normal_),
    Tensor.uniform_: _in_place(_uniform_),
    Tensor.bernoulli_: _in_place(_bernoulli_),
    Tensor.exponential_: _in_place(_exponential_),
    Tensor.log_normal_: _in_place(_log_normal_),
    torch.dropout: _dropout,
    F.dropout: _dropout,
    F.dropout1d: _channel_dropout,
    F.dropout2d: _channel_dropout,
    F.dropout3d: _channel_dropout,
    F.gumbel_softmax: _gumbel_softmax,
    F.scaled_dot_product_attention: _attention,
}
REFUSED = {
    torch.poisson,
    torch.binomial,
    torch._standard_gamma,
    torch._sample_dirichlet,
    Tensor.cauchy_,
    Tensor.geometric_,
    Tensor.random_,
}
