"""How torch.fx runs a model's code on symbols: which modules it passes over, with which inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.layers import is_torchs


class LayerTracer(fx.Tracer):
    """
    Trace a model down to torch's layers.

    Parameters
    ----------
    args, kwargs
        What the model is applied to: tensors in it become symbols, the rest stays as it is.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self._leaves, self._form = tree_flatten((args, kwargs))

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Make a symbol for each tensor among the inputs, wherever it stands in them."""
        symbols = [
            self.create_proxy("placeholder", "input", (), {}) if isinstance(leaf, Tensor) else leaf
            for leaf in self._leaves
        ]
        args, kwargs = tree_unflatten(symbols, self._form)
        formula = _formula(self.root, args, kwargs)
        return formula or (lambda root: root_fn(root, *args, **kwargs)), [self.root]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Pass over a layer of torch, and look into what is made of layers."""
        if type(m) is PolynomialActivation:
            return True
        return is_torchs(m) and (isinstance(m, nn.MultiheadAttention) or not list(m.children()))

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Write out torch's transformer layers, which ask of their inputs what symbols lack."""
        formula = _formula(m, args, kwargs)
        return super().call_module(m, forward, args, kwargs) if formula is None else formula(m)


def _formula(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[[Any], Any] | None:
    """Give a function that applies a transformer layer without masks as it is defined."""
    formula = _FORMULAS.get(type(module))
    if formula is None or any(isinstance(v, fx.Proxy) for v in (*args[1:], *kwargs.values())):
        return None
    return lambda layer: formula(layer, args[0])


def _encoder_layer(layer: nn.TransformerEncoderLayer, x: Any) -> Any:
    def attend(y: Any) -> Any:
        return layer._sa_block(y, None, None)

    if layer.norm_first:
        x = x + attend(layer.norm1(x))
        return x + layer._ff_block(layer.norm2(x))
    x = layer.norm1(x + attend(x))
    return layer.norm2(x + layer._ff_block(x))


def _encoder(encoder: nn.TransformerEncoder, x: Any) -> Any:
    for layer in encoder.layers:
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x)


_FORMULAS: dict[type[nn.Module], Callable[[Any, Any], Any]] = {
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}
