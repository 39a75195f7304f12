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
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from thalweg.errors import DependsOnBatches, InvalidProblem
from thalweg.problems.given import Given
from thalweg.problems.random_functions import REFUSED, RULES
from thalweg.problems.splitmix import GOLDEN, random_bits, scrambled, shifted_right
from thalweg.run.seeds import derive_seed


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
    return scrambled(indices * GOLDEN + derive_seed(0, "draws", stream))


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
        rule = RULES.get(func)
        if rule is not None:
            options.pop("generator", None)
            return rule(self, *args, **options)
        if func in REFUSED:
            raise InvalidProblem(
                f"the model draws random numbers (noise) by {_name_of(func)}, which cannot be held"
                " fixed; draw uniform or normal ones (torch.rand_like, torch.randn_like) and make"
                " what is wanted of them, or switch the noise off."
            )
        return func(*args, **options)

    def uniform(self, shape: Iterable[int]) -> Tensor:
        """Give numbers in (0, 1) of this shape, float64."""
        return (shifted_right(self._bits(shape), 11).double() + 0.5) * 2.0**-53

    def normal(self, shape: Iterable[int]) -> Tensor:
        """Give standard normal numbers of this shape, float64 (Box and Muller, 1958)."""
        bits = self._bits(shape)
        radius, angle = (
            (half.double() + 0.5) * 2.0**-32
            for half in (shifted_right(bits, 32), bits & ((1 << 32) - 1))
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
            return random_bits(shared, call, shape.numel()).reshape(shape)
        other_dims = [*shape[: layout.dim], *shape[layout.dim + 1 :]]
        bits = random_bits(self.keys, call, shape.numel() // max(1, len(self.keys)))
        bits = bits.reshape(len(self.keys), layout.per_sample, *other_dims)
        if layout.apart:
            bits = bits.transpose(0, 1)
        return bits.reshape(-1, *other_dims).movedim(0, layout.dim)

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
        value = func(*args, **(kwargs or {}))
        if func not in RULES and not torch.equal(before, torch.get_rng_state()):
            self.names.append(_name_of(func))
        return value


def _name_of(func: Any) -> str:
    return resolve_name(func) or str(getattr(func, "__name__", func))


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
