"""
Random numbers of a model or loss, held fixed: the same for each sample at every w.

A variational autoencoder, a layer of noise or a dropout that is meant draws anew at every call, so
that its loss is no function of the weights. Given one draw for each sample, it is. While
`FixedDraws` is entered, torch's random functions give numbers that are a function of a stream, of
the sample, of which call it is, and of the place within the sample, and of nothing else: no batch
size, no order and no derivative changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from thalweg.errors import DependsOnBatches, InvalidProblem
from thalweg.problems.given import Given
from thalweg.run.seeds import derive_seed

# Constants of SplitMix64 (Steele, Lea and Flood, 2014, figure 16), as signed numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


class Drawn(NamedTuple):
    """
    A batch with what its random numbers are made from.

    Attributes
    ----------
    batch : object
        As it is without.
    keys : Tensor
        One of each sample, shape (n,), int64; of a batch as given, one, shape (1,).
    """

    batch: Any
    keys: Tensor


class Layout(NamedTuple):
    """
    Where the samples lie in a random tensor.

    Attributes
    ----------
    dim : int
        The dimension along which they lie.
    per_sample : int
        Entries of each sample along it.
    apart : bool
        Whether those of a sample lie apart, with those of all others in between.
    """

    dim: int
    per_sample: int
    apart: bool = False


def taken_apart(batch: Any) -> tuple[Any, Tensor | None]:
    """Give a batch as it is without draws, and their keys, if it has any."""
    return batch if isinstance(batch, Drawn) else (batch, None)


def sample_keys(stream: str, indices: Tensor) -> Tensor:
    """Give the keys of samples by their indices, shape (n,), int64."""
    return _mixed(indices * _GOLDEN + derive_seed(0, "draws", stream))


def _mixed(numbers: Tensor) -> Tensor:
    """Scramble 64-bit numbers, each to another: the output function of SplitMix64."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shift to the right, zeros coming in."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


class FixedDraws(TorchFunctionMode):
    """
    Have torch's random functions give fixed numbers inside the block.

    Parameters
    ----------
    keys : Tensor
        Shape (n,): of the samples of the batch that is evaluated.
    layouts : sequence of Layout or None, optional
        Of each call: where the samples lie; None where the same numbers serve all. Without it,
        no call's numbers belong to samples.
    """

    def __init__(self, keys: Tensor, layouts: Sequence[Layout | None] | None = None) -> None:
        super().__init__()
        self.keys, self.layouts = keys, layouts
        self.shapes: list[torch.Size] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        rule = _RULES.get(func)
        if rule is not None:
            options.pop("generator", None)
            return rule(self, *args, **options)
        if func in _REFUSED:
            raise InvalidProblem(
                f"the model draws random numbers (noise) by {_name_of(func)}, which cannot be held"
                " fixed; draw uniform or normal ones (torch.rand_like, torch.randn_like) and make"
                " what is wanted of them, or switch the noise off."
            )
        return func(*args, **options)

    def uniform(self, shape: Iterable[int]) -> Tensor:
        """Give numbers in (0, 1) of this shape, float64."""
        return (_shifted(self._bits(shape), 11).double() + 0.5) * 2.0**-53

    def normal(self, shape: Iterable[int]) -> Tensor:
        """Give standard normal numbers of this shape, float64 (Box and Muller, 1958)."""
        bits = self._bits(shape)
        radius, angle = (
            (half.double() + 0.5) * 2.0**-32
            for half in (_shifted(bits, 32), bits & ((1 << 32) - 1))
        )
        return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()

    def _bits(self, shape: Iterable[int]) -> Tensor:
        """Give 64 random bits for each entry of a tensor of this shape: a call of its own."""
        shape = torch.Size(shape)
        call = len(self.shapes)
        self.shapes.append(shape)
        layout = self._layout(call, shape)
        if layout is None:
            shared = self.keys[:1] if self.layouts is None else torch.zeros_like(self.keys[:1])
            return _bits_of(shared, call, shape.numel()).reshape(shape)
        rest = [*shape[: layout.dim], *shape[layout.dim + 1 :]]
        bits = _bits_of(self.keys, call, shape.numel() // max(1, len(self.keys)))
        bits = bits.reshape(len(self.keys), layout.per_sample, *rest)
        if layout.apart:
            bits = bits.transpose(0, 1)
        return bits.reshape(-1, *rest).movedim(0, layout.dim)

    def _layout(self, call: int, shape: torch.Size) -> Layout | None:
        if self.layouts is None:
            return None
        if call >= len(self.layouts):
            raise DependsOnBatches(
                f"the model draws random numbers {call + 1} times for this batch, and"
                f" {len(self.layouts)} times for another; expected as many for any: draw the"
                " numbers of all samples at once."
            )
        layout = self.layouts[call]
        if layout is not None and shape[layout.dim] != layout.per_sample * len(self.keys):
            raise DependsOnBatches(
                f"the model draws a random tensor of shape {tuple(shape)} for {len(self.keys)}"
                " samples, so that it is not known which number belongs to which sample; draw"
                " tensors whose first dimension counts samples."
            )
        return layout


class DrawingFunctions(TorchFunctionMode):
    """
    Note which functions draw from torch's generator and are none of those that can be held.

    Attributes
    ----------
    names : list of str
        Of these functions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = torch.get_rng_state()
        answer = func(*args, **(kwargs or {}))
        if func not in _RULES and not torch.equal(before, torch.get_rng_state()):
            self.names.append(_name_of(func))
        return answer


def _name_of(func: Any) -> str:
    return resolve_name(func) or str(getattr(func, "__name__", func))


def _bits_of(keys: Tensor, call: int, count: int) -> Tensor:
    """Give 64 random bits for each of ``count`` places of each key: shape (n, count), int64."""
    places = torch.arange(count, device=keys.device, dtype=torch.int64)
    streams = _mixed(keys ^ derive_seed(0, "call", call))
    return _mixed(streams.unsqueeze(1) + places * _GOLDEN)


def find_layouts(
    smaller: Sequence[torch.Size], larger: Sequence[torch.Size], sizes: tuple[int, int]
) -> list[Layout | None]:
    """
    Find out where the samples lie in random tensors, from two batches.

    Parameters
    ----------
    smaller, larger : sequence of torch.Size
        Shapes that were drawn for each.
    sizes : tuple of int
        Numbers of samples, which differ.

    Raises
    ------
    DependsOnBatches
        If numbers cannot be told to belong to samples.
    """
    if len(smaller) != len(larger):
        raise DependsOnBatches(
            f"the model draws random numbers {len(smaller)} times for {sizes[0]} samples and"
            f" {len(larger)} times for {sizes[1]}; expected as many times for any: draw the numbers"
            " of all samples at once."
        )
    return [_layout_of(*pair, sizes) for pair in zip(smaller, larger, strict=True)]


def _layout_of(small: torch.Size, large: torch.Size, sizes: tuple[int, int]) -> Layout | None:
    if small == large:
        return None
    moves = [i for i, pair in enumerate(zip(small, large, strict=False)) if pair[0] != pair[1]]
    if len(small) == len(large) and len(moves) == 1:
        dim = moves[0]
        per_sample = small[dim] // sizes[0]
        if (small[dim], large[dim]) == (per_sample * sizes[0], per_sample * sizes[1]):
            return Layout(dim, per_sample)
    raise DependsOnBatches(
        f"the model draws random tensors of shape {tuple(small)} for {sizes[0]} samples and"
        f" {tuple(large)} for {sizes[1]}, so that it is not known which number belongs to which"
        " sample; draw tensors whose first dimension counts samples."
    )


class Draws:
    """
    How a problem's random numbers are held: those of its model, and those of its criterion.

    Attributes
    ----------
    layouts : dict
        Of each of the two, where samples lie in the tensors of its calls; empty before it is known.
    """

    def __init__(self) -> None:
        self.layouts: dict[str, list[Layout | None]] = {}
        self._last: dict[str, FixedDraws] = {}
        self.said = False

    def held(self, part: str, keys: Tensor | None, *, given: bool) -> AbstractContextManager[Any]:
        """
        Hold the numbers inside the block.

        Parameters
        ----------
        part : {"model", "criterion"}
            What draws them.
        keys : Tensor or None
            Of the samples, or of a batch as given; None holds nothing.
        given : bool
            Whether it is a batch as given.
        """
        if keys is None:
            return nullcontext()
        layouts = self.layouts.get(part, []) if self.layouts and not given else None
        self._last[part] = FixedDraws(keys, layouts)
        return self._last[part]

    def shapes(self) -> dict[str, list[torch.Size]]:
        """Give the shapes of what was drawn in the last evaluation."""
        return {part: draws.shapes for part, draws in self._last.items()}

    def find(self, smaller: Any, larger: Any, sizes: tuple[int, int]) -> None:
        """Find out the layouts from the `shapes` of two batches of unlike sizes."""
        self.layouts = {
            part: find_layouts(smaller[part], larger.get(part, []), sizes) for part in smaller
        }

    def set_apart(self) -> bool:
        """Take the entries of a sample to lie apart, where it has several; say whether any has."""
        several = False
        for layouts in self.layouts.values():
            for i, layout in enumerate(layouts):
                if layout is not None and layout.per_sample > 1:
                    layouts[i], several = layout._replace(apart=True), True
        return several


class DrawnSamples:
    """
    Samples, each with a key to its random numbers.

    Parameters
    ----------
    samples : Samples
        Without keys.
    stream : str
        Name of the stream of the keys: the split.
    """

    def __init__(self, samples: Any, stream: str) -> None:
        self._samples, self._stream = samples, stream
        self.joined: bool = samples.joined
        self.targets: Tensor | None = samples.targets

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._samples)

    @property
    def described(self) -> str:
        """How the data are taken."""
        return str(self._samples.described)

    @property
    def fingerprint(self) -> str:
        """Digest of the content."""
        return f"{self._samples.fingerprint}-{self._stream}"

    @property
    def draws(self) -> str:
        """How random numbers are held, in words."""
        return f"fixed for each {'sample' if self.joined else 'batch'}"

    def slice(self, start: int, stop: int) -> Any:
        """Give a contiguous batch."""
        return self._keyed(self._samples.slice(start, stop), torch.arange(start, stop))

    def take(self, indices: Tensor) -> Any:
        """Give a batch of chosen samples."""
        return self._keyed(self._samples.take(indices), indices.cpu())

    def _keyed(self, batch: Any, indices: Tensor) -> Any:
        keys = sample_keys(self._stream, indices)
        if isinstance(batch, Given):
            return Given(tuple(map(Drawn, batch.batches, keys.split(1))))
        return Drawn(batch, keys)


# What each random function of torch makes of uniform or normal numbers.


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


def _rand(draws: FixedDraws, *size: Any, **options: Any) -> Tensor:
    return _as(draws.uniform(_shape(size, options)), **_only(options))


def _randn(draws: FixedDraws, *size: Any, **options: Any) -> Tensor:
    return _as(draws.normal(_shape(size, options)), **_only(options))


def _only(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options.get(name) for name in ("dtype", "device")}


def _rand_like(draws: FixedDraws, input: Tensor, **options: Any) -> Tensor:
    return _as(draws.uniform(input.shape), input, **_only(options))


def _randn_like(draws: FixedDraws, input: Tensor, **options: Any) -> Tensor:
    return _as(draws.normal(input.shape), input, **_only(options))


def _whole_numbers(numbers: Tensor, low: int, high: int) -> Tensor:
    return (low + numbers * (high - low)).floor().long()


def _randint(draws: FixedDraws, *bounds: Any, **options: Any) -> Tensor:
    *limits, size = bounds if "size" not in options else (*bounds, options["size"])
    low, high = (0, *limits)[-2:]
    low, high = options.get("low", low), options.get("high", high)
    numbers = _whole_numbers(draws.uniform(size), low, high)
    return _as(numbers, **{**_only(options), "dtype": options.get("dtype") or torch.int64})


def _randint_like(draws: FixedDraws, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    low, high = (0, *bounds)[-2:]
    low, high = options.get("low", low), options.get("high", high)
    return _as(_whole_numbers(draws.uniform(input.shape), low, high), input, **_only(options))


def _randperm(draws: FixedDraws, n: int, **options: Any) -> Tensor:
    order = draws.uniform((n,)).argsort()
    return _as(order, **{**_only(options), "dtype": options.get("dtype") or torch.int64})


def _normal(
    draws: FixedDraws, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **options: Any
) -> Tensor:
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors)) if tensors else torch.Size(size)
    like = tensors[0] if tensors else None
    answer: Tensor = _as(draws.normal(shape), like, **_only(options)) * std + mean
    return answer


def _bernoulli(draws: FixedDraws, input: Tensor, p: float | None = None, **_: Any) -> Tensor:
    return _as(draws.uniform(input.shape) < (input if p is None else p), input)


def _multinomial(
    draws: FixedDraws, input: Tensor, num_samples: int, replacement: bool = False, **_: Any
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
    def rule(draws: FixedDraws, input: Tensor, *args: Any, **options: Any) -> Tensor:
        return input.copy_(make(draws, input, *args, **options))

    return rule


def _normal_(draws: FixedDraws, input: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return draws.normal(input.shape) * std + mean


def _uniform_(draws: FixedDraws, input: Tensor, a: float = 0.0, b: float = 1.0, **o: Any) -> Tensor:
    low: float = o.get("from", a)
    high: float = o.get("to", b)
    return low + draws.uniform(input.shape) * (high - low)


def _bernoulli_(draws: FixedDraws, input: Tensor, p: Any = 0.5) -> Tensor:
    smaller: Tensor = draws.uniform(input.shape) < p
    return smaller


def _exponential_(draws: FixedDraws, input: Tensor, lambd: float = 1.0) -> Tensor:
    return -draws.uniform(input.shape).log() / lambd


def _log_normal_(draws: FixedDraws, input: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    return (draws.normal(input.shape) * std + mean).exp()


def _dropped(draws: FixedDraws, input: Tensor, p: float, shape: Iterable[int]) -> Tensor:
    if p == 1:
        return torch.zeros_like(input)
    kept = draws.uniform(shape) >= p
    return input * _as(kept, input) / (1 - p)


def _dropout(
    draws: FixedDraws,
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
    draws: FixedDraws, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return input
    dropped = _dropped(draws, input, p, (*input.shape[:2], *[1] * (input.dim() - 2)))
    return input.copy_(dropped) if inplace else dropped


def _attention(
    draws: FixedDraws,
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
        key, value = (part.repeat_interleave(groups, -3) for part in (key, value))
    scores = query @ key.transpose(-2, -1) * scale
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _dropped(draws, scores.softmax(-1), dropout_p, scores.shape) @ value


def _gumbel_softmax(
    draws: FixedDraws,
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


def _empty(draws: FixedDraws, *size: Any, **options: Any) -> Tensor:
    # Where several models are evaluated as one batch, numbers differ from model to model, and may
    # only be written to what does so, too: torch.distributions fills what is empty.
    return torch.empty(*size, **options) + (draws.keys[:1] * 0).sum().to(torch.int8)


_RULES: dict[Any, Callable[..., Tensor]] = {
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
_REFUSED = {
    torch.poisson,
    torch.binomial,
    torch._standard_gamma,
    torch._sample_dirichlet,
    Tensor.cauchy_,
    Tensor.geometric_,
    Tensor.random_,
}
