"""What operations do with tensors of weights, and the gradient of each sample that follows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge

# Of cotangents of one sample that are rounding, as a share of the largest.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Layout:
    """
    Where samples lie in a tensor.

    Attributes
    ----------
    dim : int
        The dimension along which they are told apart.
    order : {"outer", "inner"} or Tensor
        Along it, the places of a sample are neighbours, or come again after each round through the
        samples; or the number of each place's sample, int64, -1 where it belongs to none.
    """

    dim: int
    order: str | Tensor

    def by_sample(self, tensor: Tensor, samples: int) -> Tensor:
        """Bring a tensor to the shape (samples, places, ...), zeros where a sample has fewer."""
        moved = tensor.movedim(self.dim, 0)
        further_sizes = moved.shape[1:]
        if isinstance(self.order, Tensor):
            return _gathered(moved, self.order, samples)
        if self.order == "outer":
            return moved.reshape(samples, -1, *further_sizes)
        return moved.reshape(-1, samples, *further_sizes).transpose(0, 1)


def _gathered(tensor: Tensor, whose: Tensor, samples: int) -> Tensor:
    rows = [torch.nonzero(whose == sample).flatten() for sample in range(samples)]
    most = max(len(row) for row in rows)
    padded = torch.stack([F.pad(row, (0, most - len(row)), value=len(tensor)) for row in rows])
    return torch.cat([tensor, torch.zeros_like(tensor[:1])])[padded]


def find_layout(
    plain: Tensor, numbered: Tensor, dims: tuple[int, ...], samples: int
) -> Layout | None:
    """
    Find out which part of a cotangent belongs to which sample.

    Parameters
    ----------
    plain, numbered : Tensor
        Cotangents of a function of each sample, summed; and summed after that of sample i was
        multiplied by i + 1. What belongs to sample i is in the second i + 1 times the first.
    dims : tuple of int
        Dimensions along which samples may be told apart.
    samples : int
        Their number.

    Returns
    -------
    Layout or None
        None where something belongs to several samples.
    """
    room = _ROUNDING * float(numbered.abs().max()) if numbered.numel() else 0.0
    rows = {dim: (plain.movedim(dim, 0), numbered.movedim(dim, 0)) for dim in dims}

    def fits(dim: int, whose: Tensor) -> bool:
        first, second = rows[dim]
        factor = (whose + 1).to(first.dtype).view(-1, *[1] * (first.dim() - 1))
        return bool(((second - factor * first).abs() <= room).all())

    for order in ("outer", "inner"):
        for dim in dims:
            size = plain.shape[dim]
            if size and size % samples == 0:
                place = torch.arange(size)
                whose = place // (size // samples) if order == "outer" else place % samples
                if fits(dim, whose):
                    return Layout(dim, order)
    for dim in dims:
        whose = _ratios(*(t.flatten(1) for t in rows[dim]))
        if int(whose.max()) < samples and fits(dim, whose.clamp_min(0)):
            return Layout(dim, whose)
    return None


def _ratios(first: Tensor, second: Tensor) -> Tensor:
    """Tell the sample of each row by how much larger it is in the second: -1 for rows of zeros."""
    size = first.square().sum(1)
    seen = size > _ROUNDING**2 * size.max()
    ratio = (first * second).sum(1) / torch.where(seen, size, 1.0)
    return torch.where(seen, ratio.round().long() - 1, -1)


def as_it_is(cotangent: Tensor) -> Tensor:
    """Give it back."""
    return cotangent


@dataclass(frozen=True, eq=False)
class Use(ABC):
    """
    One operation that takes a tensor of weights, or a part of one.

    Attributes
    ----------
    name : str
        Of the tensor.
    entries : Tensor
        Which of its entries, int64, in the shape in which the operation takes them.
    edge : GradientEdge
        What the operation gives: cotangents are taken there.
    arrange : callable
        Brings a cotangent to the form of which the other attributes speak.
    """

    name: str
    entries: Tensor
    edge: GradientEdge
    arrange: Callable[[Tensor], Tensor] = field(default=as_it_is, kw_only=True)

    @property
    @abstractmethod
    def dims(self) -> tuple[int, ...]:
        """Dimensions of a cotangent that may tell samples apart."""

    @property
    @abstractmethod
    def units(self) -> int:
        """Parts that it can be cut into, see `narrow`."""

    @abstractmethod
    def narrow(self, first: int, last: int) -> Use:
        """Give the use of the units ``first`` to ``last`` alone."""

    def work(self, cotangents: int) -> int:
        """Count the multiplications behind so many numbers that the operation gives."""
        return cotangents

    @abstractmethod
    def gradients(self, cotangent: Tensor, layout: Layout, samples: int) -> Tensor:
        """
        Give the gradient of each sample.

        Parameters
        ----------
        cotangent : Tensor
            Arranged.
        layout : Layout
            Of it.
        samples : int
            n.

        Returns
        -------
        Tensor
            Shape (n, entries), in the order of ``entries.reshape(-1)``.
        """


def _narrowing(
    arrange: Callable[[Tensor], Tensor], dim: int, first: int, last: int
) -> Callable[[Tensor], Tensor]:
    return lambda cotangent: arrange(cotangent).narrow(dim, first, last - first)


@dataclass(frozen=True, eq=False)
class Product(Use):
    """
    Rows times a matrix: linear layers, projections of attention, steps of recurrent layers.

    Attributes
    ----------
    inputs : Tensor
        The rows, shape (R, in); entries have the shape (in, out), cotangents (R, out).
    """

    inputs: Tensor

    @property
    def dims(self) -> tuple[int, ...]:
        """Rows."""
        return (0,)

    @property
    def units(self) -> int:
        """Columns of the matrix."""
        return self.entries.shape[1]

    def narrow(self, first: int, last: int) -> Product:
        """Give the use of some columns."""
        arrange = _narrowing(self.arrange, 1, first, last)
        return replace(self, entries=self.entries[:, first:last], arrange=arrange)

    def work(self, cotangents: int) -> int:
        """Count a product for each input of each result."""
        return cotangents * len(self.entries)

    def parts(self, cotangent: Tensor, layout: Layout, samples: int) -> tuple[Tensor, Tensor]:
        """Give what is multiplied and its cotangent: (n, T, in) and (n, T, out)."""
        return layout.by_sample(self.inputs, samples), layout.by_sample(cotangent, samples)

    def gradients(self, cotangent: Tensor, layout: Layout, samples: int) -> Tensor:
        """Sum outer products over a sample's rows."""
        inputs, cotangents = self.parts(cotangent, layout, samples)
        return (inputs.transpose(1, 2) @ cotangents).flatten(1)


@dataclass(frozen=True, eq=False)
class Convolution(Use):
    """
    A convolution of any kind.

    Attributes
    ----------
    inputs : Tensor
        Shape (n, channels, ...).
    weight : Tensor
        The kernels.
    geometry : dict
        Of ``torch.ops.aten.convolution``: stride, padding, dilation, transposed, output_padding,
        groups.
    """

    inputs: Tensor
    weight: Tensor
    geometry: dict[str, Any]
    _kept: dict[str, Tensor] = field(default_factory=dict, kw_only=True)

    @property
    def dims(self) -> tuple[int, ...]:
        """Images."""
        return (0,)

    @property
    def _plain(self) -> bool:
        return not self.geometry["transposed"] and self.geometry["groups"] == 1

    @property
    def units(self) -> int:
        """Kernels, where each gives one channel."""
        return len(self.entries) if self._plain else 1

    def narrow(self, first: int, last: int) -> Convolution:
        """Give the use of some kernels."""
        arrange = _narrowing(self.arrange, 1, first, last)
        entries, weight = self.entries[first:last], self.weight[first:last]
        return replace(self, entries=entries, weight=weight, arrange=arrange)

    def work(self, cotangents: int) -> int:
        """Count a product for each number in a patch."""
        return cotangents * self.entries[0].numel()

    def gradients(self, cotangent: Tensor, layout: Layout, samples: int) -> Tensor:
        """Multiply patches and cotangents, where it is plain; else differentiate each image."""
        by_patches = self._plain and self.inputs.dim() in (3, 4)
        by_image = self._by_patches(cotangent) if by_patches else self._by_torch(cotangent)
        by_sample = layout.by_sample(by_image.flatten(1), samples)
        return by_sample[:, 0] if by_sample.shape[1] == 1 else by_sample.sum(1)

    def _by_patches(self, cotangent: Tensor) -> Tensor:
        inputs, size = self.inputs, tuple(self.weight.shape[2:])
        names = ("dilation", "padding", "stride")
        options: dict[str, Any] = {name: tuple(self.geometry[name]) for name in names}
        if inputs.dim() == 3:  # a line is an image of one row
            inputs, size = inputs.unsqueeze(2), (1, *size)
            fill = {"dilation": 1, "padding": 0, "stride": 1}
            options = {name: (fill[name], *values) for name, values in options.items()}
        if "patches" not in self._kept:  # of all outputs, and of all units
            self._kept["patches"] = F.unfold(inputs, size, **options).transpose(1, 2)
        return cotangent.flatten(2) @ self._kept["patches"]

    def _by_torch(self, cotangent: Tensor) -> Tensor:
        g = self.geometry
        options = (None, g["stride"], g["padding"], g["dilation"], g["transposed"])

        def of_one(image: Tensor, slope: Tensor) -> Tensor:
            gradient: Tensor = torch.ops.aten.convolution_backward(
                *(slope[None], image[None], self.weight, *options),
                *(g["output_padding"], g["groups"], [False, True, False]),
            )[1]
            return gradient

        return torch.func.vmap(of_one)(self.inputs, cotangent)


@dataclass(frozen=True, eq=False)
class Lookup(Use):
    """
    Rows of a table by their numbers: embeddings of tokens.

    Attributes
    ----------
    indices : Tensor
        int64; entries have the shape (V, d), cotangents the shape of the indices and d.
    skipped : int
        A row whose gradient torch leaves out; -1 for none.
    """

    indices: Tensor
    skipped: int = -1

    @property
    def dims(self) -> tuple[int, ...]:
        """Those of the indices."""
        return tuple(range(self.indices.dim()))

    @property
    def units(self) -> int:
        """Columns of the table."""
        return self.entries.shape[1]

    def narrow(self, first: int, last: int) -> Lookup:
        """Give the use of some columns."""
        arrange = _narrowing(self.arrange, -1, first, last)
        return replace(self, entries=self.entries[:, first:last], arrange=arrange)

    def parts(self, cotangent: Tensor, layout: Layout, samples: int) -> tuple[Tensor, Tensor]:
        """Give the rows that are read and their cotangents: (n, T) and (n, T, d)."""
        counted = (self.indices != self.skipped).unsqueeze(-1)
        cotangents = layout.by_sample(cotangent * counted, samples)
        indices = layout.by_sample(self.indices, samples).flatten(1)
        return indices, cotangents.reshape(samples, -1, cotangent.shape[-1])

    def gradients(self, cotangent: Tensor, layout: Layout, samples: int) -> Tensor:
        """Add the cotangents up where they were read."""
        indices, cotangents = self.parts(cotangent, layout, samples)
        gradients = cotangent.new_zeros(samples, *self.entries.shape)
        places = torch.arange(samples)[:, None].expand_as(indices)
        return gradients.index_put_((places, indices), cotangents, accumulate=True).flatten(1)


@dataclass(frozen=True, eq=False)
class Scale(Use):
    """
    A factor, or an addend, on every element: biases, scales and shifts of norms, positions.

    Attributes
    ----------
    factor : Tensor or None
        What the weights are multiplied by, broadcast to the cotangent; None for one.
        Entries have as many dimensions as cotangents, of size 1 where they are broadcast.
    """

    factor: Tensor | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Those along which the weights are the same."""
        return tuple(dim for dim, size in enumerate(self.entries.shape) if size == 1)

    @property
    def units(self) -> int:
        """One: it is not cut."""
        return 1

    def narrow(self, first: int, last: int) -> Scale:
        """Give all of it, which is one unit."""
        return self

    def gradients(self, cotangent: Tensor, layout: Layout, samples: int) -> Tensor:
        """Sum over a sample's elements."""
        product = cotangent if self.factor is None else cotangent * self.factor
        by_sample = layout.by_sample(product, samples)
        sizes = [size for dim, size in enumerate(self.entries.shape) if dim != layout.dim]
        summed = [1, *(dim + 2 for dim, size in enumerate(sizes) if size == 1)]
        return by_sample.sum(summed).reshape(samples, math.prod(sizes))
