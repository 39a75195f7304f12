"""A network as a chain of affine layers and activations: what certificates can reason about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.certificates.convolution import convolution_norm
from thalweg.certificates.nonlinearity import Activation
from thalweg.certificates.products import spectral_bound
from thalweg.errors import NotDefined
from thalweg.tracing import chain as links
from thalweg.tracing.functions import Reshape
from thalweg.tracing.layers import DROPOUTS, layer_type

Array = NDArray[np.float64]
_KNOWN = (
    "chains of nn.Linear, nn.Conv2d (plain, zero padding), nn.Flatten and activations (polynomial,"
    " ReLU, leaky ReLU, tanh, sigmoid, softplus, SiLU, GELU)"
)
_PASSED = (nn.Flatten, Reshape, nn.Identity, *DROPOUTS)


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
        indices = patches[0].T.numpy().astype(np.int64) - 1
        return np.where(indices < 0, size, indices)

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
    def of(cls, read: links.Chain, w: Tensor) -> Chain:
        """
        Take a network's affine layers and activations.

        Parameters
        ----------
        read : tracing.chain.Chain
            Its layers. The model's own weights are not used.
        w : Tensor
            Shape (W,), float64.

        Raises
        ------
        NotDefined
            If the network is built otherwise.
        """
        layers: list[Layer] = []
        used: list[str] = []
        x = read.inputs(0, 1)
        for link in read.links:
            module, kind, shape = link.module, layer_type(link.module), tuple(x.shape[1:])
            if kind in (nn.Linear, nn.Conv2d):
                _check_own(list(link.trained.values()), used)
                _check_plain(link.name, module, shape)
                layers.append(_layer(link, read.tensors(link, w), shape))
                used += link.trained.values()
            elif kind not in _PASSED:
                layers = _with_activation(layers, link.name, module)
            x = read.apply(link, w, x)
        _check_whole(layers, used, set(read.space.names))
        return cls(tuple(layers), read.space.size)

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
    def from_dict(cls, description: dict[str, Any], arrays: dict[str, Array]) -> Chain:
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
            for i, row in enumerate(description["layers"])
        )
        return cls(layers, description["weights"])

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


def _layer(link: links.Link, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> Layer:
    module = link.module
    parameters = dict(module.named_parameters()) | tensors
    rows = parameters["weight"].detach().flatten(1).numpy()
    shift = parameters["bias"].detach().numpy() if "bias" in parameters else np.zeros(len(rows))
    trained = ("weight" in tensors, "bias" in tensors)
    geometry = None
    if isinstance(module, nn.Conv2d):
        geometry = {
            "shape": list(shape),
            "kernel": list(module.kernel_size),
            "stride": list(module.stride),
            "padding": [int(p) for p in module.padding],
            "dilation": list(module.dilation),
        }
    return Layer(link.name, rows, shift, trained, Activation("identity"), geometry)


def _with_activation(layers: list[Layer], name: str, module: nn.Module) -> list[Layer]:
    activation = Activation.of(module)
    if activation is None:
        raise NotDefined(f"{name} is {_described(module)}; known are {_KNOWN}.")
    if not layers or layers[-1].activation.kind != "identity":
        raise NotDefined(f"{name} follows no affine layer; known are {_KNOWN}.")
    return [*layers[:-1], replace(layers[-1], activation=activation)]


def _described(module: nn.Module) -> str:
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return f"a normalization ({type(module).__name__})"
    return f"a {type(module).__name__}"


def _check_plain(name: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    if isinstance(module, nn.Conv2d):
        padded = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        plain = padded and module.groups == 1 and len(shape) == 3
    else:
        plain = len(shape) == 1
    plain = plain and all(parameter.numel() for parameter in module.parameters())
    if not plain or not isinstance(module._parameters.get("weight"), nn.Parameter):
        raise NotDefined(
            f"{name} ({module}) acts on a sample of shape {shape} in a way that is not known; known"
            f" are {_KNOWN}."
        )


def _check_whole(layers: list[Layer], used: list[str], trained: set[str]) -> None:
    if not layers or layers[-1].activation.kind != "identity":
        raise NotDefined(f"the network does not end in an affine layer; known are {_KNOWN}.")
    if set(used) != trained:
        raise NotDefined(f"some weights belong to no known layer; known are {_KNOWN}.")


def _check_own(names: list[str], used: list[str]) -> None:
    if set(names) & set(used):
        raise NotDefined("some weights are used in several layers; expected each its own.")
