"""The parameter space: one flat vector of weights, and the names of everything in it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.errors import InvalidProblem, InvalidWeights

Kind = Literal["weight", "bias", "norm"]
log = logging.getLogger("thalweg")

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Parameter:
    """
    One named tensor of weights and its place in the flat vector.

    Attributes
    ----------
    name : str
        Its name in the model's ``state_dict``.
    shape : tuple of int
        Its shape.
    start : int
        Index of its first entry in the flat vector.
    kind : {"weight", "bias", "norm"}
        A kernel, a bias, or a scale or shift of a normalization layer.
    filter_dim : int
        The dimension that counts filters (output channels, rows).
    complex : bool
        Whether its numbers are complex: each takes two places, its real and its imaginary part.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    kind: Kind = "weight"
    filter_dim: int = 0
    complex: bool = False

    @property
    def count(self) -> int:
        """Number of entries, as the model counts them: a complex one is one."""
        return int(torch.Size(self.shape).numel())

    @property
    def size(self) -> int:
        """Number of real entries."""
        return self.count * (2 if self.complex else 1)

    def shaped(self, entries: Tensor) -> Tensor:
        """Shape its entries, (size,) and real, as the tensor they are: a view of a whole vector."""
        if self.complex:
            # A column of a matrix has gaps, which pairs of reals may not have: it is copied.
            return torch.view_as_complex(entries.contiguous().view(*self.shape, 2))
        return entries.view(self.shape)

    @property
    def slice(self) -> slice:
        """Its entries in the flat vector."""
        return slice(self.start, self.start + self.size)

    @property
    def layer(self) -> str:
        """Name of the module it belongs to; its own name where it has none."""
        return self.name.rpartition(".")[0] or self.name


@dataclass(frozen=True)
class ParameterSpace:
    """
    The space R^W of all trainable weights of a network, as one flat vector.

    Tied weights count once, frozen ones (``requires_grad=False``) and buffers not at all. Complex
    weights are pairs of real numbers. Names are those of the module inside of ``torch.compile``.

    Attributes
    ----------
    parameters : tuple of Parameter
        The named tensors in the order of ``model.named_parameters()``.

    Examples
    --------
    >>> space = ParameterSpace.of(nn.Linear(3, 2))
    >>> space.size, space.names
    (8, ('weight', 'bias'))
    """

    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParameterSpace:
        """
        Take the space of a model's trainable weights.

        Raises
        ------
        InvalidProblem
            If it is no module, or has no trainable parameters.
        """
        if not isinstance(model, nn.Module):
            raise InvalidProblem(
                f"got a {type(model).__name__}, expected a torch.nn.Module; give the network"
                " itself, problem.model, or write risk.space, which a risk has already."
            )
        modules = dict(model.named_modules())
        rows: list[Parameter] = []
        start = 0
        for name, tensor in model.named_parameters():
            if not tensor.requires_grad:
                continue
            module = modules[name.rpartition(".")[0]]
            shape = tuple(tensor.shape)
            filter_dim = 1 if isinstance(module, _TRANSPOSED) and len(shape) > 1 else 0
            kind, complex_ = _kind(module, name, shape), tensor.is_complex()
            rows.append(Parameter(plain_name(name), shape, start, kind, filter_dim, complex_))
            start += rows[-1].size
        if not rows:
            raise InvalidProblem(
                f"{type(model).__name__} has no trainable parameters: a landscape needs at least"
                " one. Set requires_grad=True on the weights whose landscape is wanted."
            )
        return cls(tuple(rows))

    @classmethod
    def euclidean(cls, size: int, *, name: str = "w") -> ParameterSpace:
        """Make the plain space R^size with one tensor, for synthetic landscapes."""
        return cls((Parameter(name, (size,), 0),))

    @cached_property
    def size(self) -> int:
        """Number of weights W."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in their order."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def layers(self) -> dict[str, slice]:
        """Entries of each layer (module) in the flat vector, in their order."""
        slices: dict[str, slice] = {}
        for parameter in self.parameters:
            start = slices[parameter.layer].start if parameter.layer in slices else parameter.start
            slices[parameter.layer] = slice(start, parameter.slice.stop)
        return slices

    def pack(self, source: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """
        Copy the weights of a model, or named tensors, into one flat vector.

        Parameters
        ----------
        source : nn.Module or mapping of str to Tensor
            Must hold every name of the space in its shape. Frozen weights and buffers that a
            mapping holds besides are left out, which is logged: `thalweg.open_point` takes them.

        Returns
        -------
        Tensor
            Shape (W,), real, in the precision and on the device of the source.

        Raises
        ------
        InvalidWeights
            If a name is missing or a shape differs.
        """
        named = dict(source.named_parameters()) if isinstance(source, nn.Module) else source
        tensors = {plain_name(name): tensor for name, tensor in named.items()}
        parts = [self._part(parameter, tensors) for parameter in self.parameters]
        if not isinstance(source, nn.Module):
            self._say_left_out(tensors)
        return torch.cat(parts)

    def _say_left_out(self, tensors: Mapping[str, Tensor]) -> None:
        """Warn of frozen weights and buffers, which the risk would take from its own model."""
        trained = {tensors[name].data_ptr() for name in self.names}  # also under a tied name
        others = [
            name
            for name, value in tensors.items()
            if isinstance(value, Tensor) and value.numel() and value.data_ptr() not in trained
        ]
        if others:
            log.warning(
                "pack took %d of %d tensors: %s are no trained weights, and the risk goes on using"
                " its own frozen weights and buffers. To measure the point itself write point ="
                " thalweg.open_point(problem, state) and w = point.load_into(risk), or"
                " risk.set_fixed(state).",
                *(len(self.names), len(self.names) + len(others), _few(others)),
            )

    def _part(self, parameter: Parameter, tensors: Mapping[str, Tensor]) -> Tensor:
        tensor = tensors.get(parameter.name)
        if tensor is None:
            raise InvalidWeights(
                f"weights have no tensor {parameter.name!r}; the space has {_few(self.names)}."
            )
        if tuple(tensor.shape) != parameter.shape:
            raise InvalidWeights(
                f"{parameter.name!r} has shape {tuple(tensor.shape)}, expected {parameter.shape}."
            )
        if tensor.is_complex() != parameter.complex:
            kinds = "real", "complex"
            raise InvalidWeights(
                f"{parameter.name!r} holds {kinds[tensor.is_complex()]} numbers, expected"
                f" {kinds[parameter.complex]} ones."
            )
        tensor = tensor.detach()
        return (torch.view_as_real(tensor.resolve_conj()) if parameter.complex else tensor).reshape(
            -1
        )

    def unpack(self, w: Tensor) -> dict[str, Tensor]:
        """
        Name the parts of a flat vector.

        Parameters
        ----------
        w : Tensor
            Shape (W,).

        Returns
        -------
        dict of str to Tensor
            Views into ``w``, shaped as the model's tensors.
        """
        self.check(w)
        return {p.name: p.shaped(w[p.slice]) for p in self.parameters}

    def check(self, w: Tensor) -> Tensor:
        """
        Return ``w`` if it is a point of this space.

        Raises
        ------
        InvalidWeights
            If its shape is not (W,) or its entries are not floating-point numbers.
        """
        if w.shape != (self.size,) or not w.is_floating_point():
            pairs = sum(parameter.count for parameter in self.parameters if parameter.complex)
            twice = f" ({pairs} complex weights take two places each)" if pairs else ""
            raise InvalidWeights(
                f"got a tensor of shape {tuple(w.shape)} and dtype {w.dtype}, expected a floating-"
                f"point vector of shape ({self.size},){twice}: write w = risk.space.pack(model)."
            )
        return w

    def not_finite(self, w: Tensor) -> str:
        """
        Say which weights are NaN or infinite, in the model's own names and numbers.

        Parameters
        ----------
        w : Tensor
            Shape (W,).

        Returns
        -------
        str
            Empty if all are finite.

        Examples
        --------
        >>> space = ParameterSpace.of(nn.Linear(3, 2))
        >>> space.not_finite(torch.tensor([1.0, torch.nan, 0, 0, 0, torch.inf, 0, 0]))
        "2 of 8 weights are NaN or infinite: 2 of 6 in 'weight'"
        """
        self.check(w)
        if bool(torch.isfinite(w).all()):
            return ""
        bad = {
            parameter: int((~torch.isfinite(tensor)).sum())
            for parameter, tensor in zip(self.parameters, self.unpack(w).values(), strict=True)
        }
        where = [f"{n} of {p.count} in {p.name!r}" for p, n in bad.items() if n]
        more = f" and {len(where) - 5} more tensors" if len(where) > 5 else ""
        total = sum(parameter.count for parameter in self.parameters)
        return (
            f"{sum(bad.values())} of {total} weights are NaN or infinite:"
            f" {', '.join(where[:5])}{more}"
        )

    def layer_scales(self, w: Tensor) -> dict[str, float]:
        """
        Measure the weight scale of each layer.

        Returns
        -------
        dict of str to float
            Root mean square of the layer's weights: its kernel, or the scales of a normalization
            layer; of all its entries where it has only biases.
        """
        return {
            layer: float(torch.cat(parts).double().square().mean().sqrt())
            for layer, parts in self._scaled_parts(w).items()
        }

    def _scaled_parts(self, w: Tensor) -> dict[str, list[Tensor]]:
        self.check(w)
        everything: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        kernels: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for parameter in self.parameters:
            part = w[parameter.slice].detach()
            everything[parameter.layer].append(part)
            if parameter.kind != "bias" and not parameter.name.endswith("bias"):
                kernels[parameter.layer].append(part)
        return {layer: kernels[layer] or everything[layer] for layer in everything}

    def filter_norms(self, w: Tensor) -> dict[str, Tensor]:
        """
        Measure the Euclidean norm of each filter of each kernel.

        Returns
        -------
        dict of str to Tensor
            For each tensor of kind ``"weight"`` with two or more dimensions, shape (filters,).
        """
        return {
            p.name: tensor.transpose(0, p.filter_dim).flatten(1).norm(dim=1)
            for p, tensor in zip(self.parameters, self.unpack(w).values(), strict=True)
            if p.kind == "weight" and len(p.shape) > 1
        }

    def mask(self, *kinds: Kind) -> Tensor:
        """Mark the entries of the given kinds: a boolean tensor of shape (W,)."""
        marks = [torch.full((p.size,), p.kind in kinds) for p in self.parameters]
        return torch.cat(marks)

    def slices(self, layers: Iterable[str]) -> list[slice]:
        """
        Look up the entries of layers by name.

        Raises
        ------
        InvalidWeights
            If a layer is unknown.
        """
        wanted = list(layers)
        unknown = [layer for layer in wanted if layer not in self.layers]
        if unknown:
            raise InvalidWeights(f"no layer {unknown[0]!r}; the layers are {_few(self.layers)}.")
        return [self.layers[layer] for layer in wanted]


def plain_name(name: str) -> str:
    """
    Give a tensor's name in the module that was compiled.

    Examples
    --------
    >>> plain_name("_orig_mod.encoder.weight")
    'encoder.weight'
    """
    return name.replace("_orig_mod.", "")


def _kind(module: nn.Module, name: str, shape: tuple[int, ...]) -> Kind:
    if isinstance(module, _NORMS):
        return "norm"
    # A vector is a bias whatever its name: attention has in_proj_bias, some layers "b".
    return "bias" if name.endswith("bias") or len(shape) < 2 else "weight"


def _few(names: Iterable[str], most: int = 8) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
