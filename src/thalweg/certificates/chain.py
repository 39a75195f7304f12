"""A network as a chain of affine layers and activations: what certificates can reason about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.certificates.convolution import convolution_norm
from thalweg.certificates.nonlinearity import Activation
from thalweg.certificates.products import spectral_bound
from thalweg.errors import ThalwegError

Array = NDArray[np.float64]
_KNOWN = (
    "chains of nn.Linear, nn.Conv2d (plain, zero padding), nn.Flatten and activations (polynomial,"
    " ReLU, leaky ReLU, tanh, sigmoid, softplus, SiLU, GELU) in nn.Sequential"
)


class NotAChain(ThalwegError, TypeError):
    """A network is built otherwise than certificates can follow."""


@dataclass(frozen=True)
class Layer:
    """
    One affine layer and the activation behind it.

    Attributes
    ----------
    name : str
        Of the module.
    weight : ndarray
        Shape (out, in): a kernel is flattened.
    bias : ndarray
        Shape (out,), zeros where there is none.
    trained : tuple of bool
        Whether weight and bias vary.
    activation : Activation
        Behind it; of the last layer the identity.
    geometry : dict or None
        Of a convolution: ``shape`` (C, H, W) of its input, ``kernel``, ``stride``, ``padding``,
        ``dilation``.
    """

    name: str
    weight: Array
    bias: Array
    trained: tuple[bool, bool]
    activation: Activation
    geometry: dict[str, list[int]] | None = None

    @cached_property
    def places(self) -> NDArray[np.int64] | None:
        """Where each patch of a convolution is read, shape (T, in); the input's size: a zero."""
        if self.geometry is None:
            return None
        g = self.geometry
        size = int(np.prod(g["shape"]))
        # Numbered from one, so that the padding's zeros can be told apart.
        numbered = torch.arange(1.0, size + 1, dtype=torch.float64).view(1, *g["shape"])
        patches = F.unfold(numbered, *_sizes(g))
        found = patches[0].T.numpy().astype(np.int64) - 1
        return np.where(found < 0, size, found)

    @property
    def inputs(self) -> int:
        """Number of values that go in."""
        if self.geometry is None:
            return int(self.weight.shape[1])
        return int(np.prod(self.geometry["shape"]))

    @property
    def positions(self) -> int:
        """T: at how many places of a sample it acts."""
        return 1 if self.places is None else len(self.places)

    @cached_property
    def overlap(self) -> float:
        """Bound of the norm of cutting into patches: the root of how often a value is read."""
        if self.places is None:
            return 1.0
        counts = np.bincount(self.places.ravel(), minlength=self.inputs + 1)[: self.inputs]
        return float(np.sqrt(counts.max()))

    @cached_property
    def gain(self) -> float:
        """Bound of the norm of the map from inputs to outputs, without its bias."""
        spectral = float(spectral_bound(self.weight))
        if self.geometry is None:
            return spectral
        return min(spectral * self.overlap, convolution_norm(self.weight, self.geometry))

    def spread(self, slopes: Array) -> Array:
        """Apply the transpose of cutting into patches: (..., T, in) to (..., inputs)."""
        if self.places is None:
            return slopes[..., 0, :]
        g = self.geometry or {}
        flat = torch.from_numpy(slopes.reshape(-1, *slopes.shape[-2:])).transpose(1, 2)
        folded = F.fold(flat, (g["shape"][1], g["shape"][2]), *_sizes(g))
        return folded.reshape(*slopes.shape[:-2], self.inputs).numpy()


@dataclass(frozen=True)
class Chain:
    """
    A network ``A_L phi_L-1 ... phi_1 A_1`` at a point w.

    Attributes
    ----------
    layers : tuple of Layer
        The first first.
    weights : int
        W: the number of trained weights, each counted once.
    """

    layers: tuple[Layer, ...]
    weights: int

    @classmethod
    def of(cls, model: nn.Module, tensors: dict[str, Tensor], sample: Tensor) -> Chain:
        """
        Read a model's structure.

        Parameters
        ----------
        model : nn.Module
            Its weights are not used.
        tensors : dict of str to Tensor
            The trained weights by name.
        sample : Tensor
            One input, without the batch dimension.

        Raises
        ------
        NotAChain
            If the model is built otherwise.
        """
        names = {id(p): name for name, p in model.named_parameters()}
        layers: list[Layer] = []
        shape, used = tuple(sample.shape), []
        for name, module in _modules(model, ""):
            if isinstance(module, nn.Flatten):
                shape = _flattened(module, shape)
            elif isinstance(module, nn.Linear | nn.Conv2d):
                _check_plain(name, module, shape)
                found = [_value(p, names, tensors) for p in (module.weight, module.bias)]
                used += [id(p) for p in (module.weight, module.bias) if p is not None]
                layers.append(_layer(name, module, found, shape))
                shape = _after(module, shape)
            elif not isinstance(module, nn.Dropout):
                layers = _with_activation(layers, name, module)
        if not layers or layers[-1].activation != Activation("identity"):
            raise NotAChain(f"the network does not end in an affine layer; known are {_KNOWN}.")
        trained = {id(p) for p in model.parameters() if names.get(id(p)) in tensors}
        if not trained <= set(used):
            raise NotAChain(f"some weights belong to no known layer; known are {_KNOWN}.")
        if len(set(used)) < len(used):
            raise NotAChain("some weights are used in several layers; expected each its own.")
        return cls(tuple(layers), sum(tensor.numel() for tensor in tensors.values()))

    def to_dict(self) -> dict[str, Any]:
        """Give all but the numbers as JSON values."""
        rows = [
            {
                "name": layer.name,
                "trained": list(layer.trained),
                "activation": layer.activation.to_dict(),
                "geometry": layer.geometry,
            }
            for layer in self.layers
        ]
        return {"layers": rows, "weights": self.weights}

    @classmethod
    def from_dict(cls, given: dict[str, Any], arrays: dict[str, Array]) -> Chain:
        """Make it from `to_dict` and the numbers that `arrays` gave."""
        layers = tuple(
            Layer(
                row["name"],
                arrays[f"{i}.weight"],
                arrays[f"{i}.bias"],
                (row["trained"][0], row["trained"][1]),
                Activation.from_dict(row["activation"]),
                row["geometry"],
            )
            for i, row in enumerate(given["layers"])
        )
        return cls(layers, given["weights"])

    def arrays(self) -> dict[str, Array]:
        """Give the numbers of all layers by name."""
        return {
            f"{i}.{kind}": getattr(layer, kind)
            for i, layer in enumerate(self.layers)
            for kind in ("weight", "bias")
        }


def _sizes(geometry: dict[str, list[int]]) -> tuple[tuple[int, int], ...]:
    names = ("kernel", "dilation", "padding", "stride")
    return tuple((geometry[name][0], geometry[name][1]) for name in names)


def _modules(model: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        # Not named_children(): that passes over a module's second place.
        for name, child in model._modules.items():
            assert child is not None
            yield from _modules(child, f"{prefix}{name}.")
    else:
        yield prefix.rstrip("."), model


def _value(
    parameter: Tensor | None, names: dict[int, str], tensors: dict[str, Tensor]
) -> tuple[Tensor | None, bool]:
    """Give a parameter's value at w, and whether it is trained."""
    if parameter is None:
        return None, False
    name = names[id(parameter)]
    return tensors.get(name, parameter.detach()), name in tensors


def _layer(
    name: str, module: nn.Linear | nn.Conv2d, found: list[Any], shape: tuple[int, ...]
) -> Layer:
    (weight, trained), (bias, shifted) = found
    rows = weight.double().flatten(1).numpy()
    shift = np.zeros(len(rows)) if bias is None else bias.double().numpy()
    geometry = None
    if isinstance(module, nn.Conv2d):
        geometry = {
            "shape": list(shape),
            "kernel": list(module.kernel_size),
            "stride": list(module.stride),
            "padding": [int(p) for p in module.padding],
            "dilation": list(module.dilation),
        }
    return Layer(name, rows, shift, (trained, shifted), Activation("identity"), geometry)


def _with_activation(layers: list[Layer], name: str, module: nn.Module) -> list[Layer]:
    activation = Activation.of(module)
    if activation is None:
        raise NotAChain(f"{name} is {_described(module)}; known are {_KNOWN}.")
    if activation.kind == "identity":
        return layers
    if not layers or layers[-1].activation.kind != "identity":
        raise NotAChain(f"{name} follows no affine layer; known are {_KNOWN}.")
    last = layers[-1]
    return [
        *layers[:-1],
        Layer(last.name, last.weight, last.bias, last.trained, activation, last.geometry),
    ]


def _described(module: nn.Module) -> str:
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return f"a normalization ({type(module).__name__})"
    return f"a {type(module).__name__}"


def _check_plain(name: str, module: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> None:
    plain = type(module).forward in (nn.Linear.forward, nn.Conv2d.forward)
    if isinstance(module, nn.Conv2d):
        padded = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        plain &= padded and module.groups == 1 and len(shape) == 3
    else:
        plain &= len(shape) == 1
    if not plain or not isinstance(module._parameters.get("weight"), nn.Parameter):
        raise NotAChain(
            f"{name} ({module}) acts on a sample of shape {shape} in a way that is not known; known"
            f" are {_KNOWN}."
        )


def _flattened(module: nn.Flatten, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(nn.Flatten(module.start_dim, module.end_dim)(torch.empty(1, *shape)).shape[1:])


def _after(module: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(module, nn.Linear):
        return (module.out_features,)
    one = torch.empty(1, *shape, device="meta")
    kernel = torch.empty(module.weight.shape, device="meta")
    options = module.stride, cast("tuple[int, int]", module.padding), module.dilation
    return tuple(F.conv2d(one, kernel, None, *options).shape[1:])
