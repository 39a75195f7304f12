"""What a module is when it is called: torch's own layer, or something that acts besides."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

# What a class may define without changing what its instances compute.
_SILENT = frozenset(
    {
        "__annotations__",
        "__constants__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__init__",
        "__module__",
        "__parameters__",
        "__qualname__",
        "__repr__",
        "__static_attributes__",
        "__weakref__",
        "extra_repr",
        "reset_parameters",
    }
)

# In evaluation mode these give what they read.
DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def layer_type(module: nn.Module) -> type[nn.Module]:
    """
    Give the class that decides what a module computes.

    A subclass that only constructs is the class it is derived from; one that defines anything
    that may act in a call is itself.

    Examples
    --------
    >>> class Narrow(nn.Linear):
    ...     def __init__(self):
    ...         super().__init__(2, 2)
    >>> class Shifted(nn.Linear):
    ...     def forward(self, x):
    ...         return super().forward(x) + 1
    >>> layer_type(Narrow()).__name__, layer_type(Shifted(2, 2)).__name__
    ('Linear', 'Shifted')
    """
    kind = type(module)
    while set(vars(kind)) <= _SILENT and len(kind.__bases__) == 1:
        (base,) = kind.__bases__
        if base is nn.Module:
            break
        kind = base
    return kind


def is_torchs(module: nn.Module) -> bool:
    """Say whether a module computes what a layer of torch does."""
    return layer_type(module).__module__.startswith("torch.nn.modules.")


def found_around(model: nn.Module) -> dict[str, str]:
    """
    Find what acts on calls of modules from outside their classes.

    Returns
    -------
    dict of str to str
        Words for each module by its name: hooks, a forward of one instance, weights that are
        computed from others.
    """
    notes = {
        name or type(module).__name__: words
        for name, module in model.named_modules()
        if (words := _around(module))
    }
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        notes["every module"] = "has a forward hook (torch.nn.modules.module.register_module_...)"
    return notes


def _around(module: nn.Module) -> str | None:
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    if "forward" in vars(module):
        return "has a forward of its own, set on the instance"
    if parametrize.is_parametrized(module):
        names = ", ".join(sorted(module.parametrizations))  # type: ignore[arg-type]
        return f"has parametrized tensors ({names})"
    if type(module).__call__ is not nn.Module.__call__:
        return f"has a __call__ of its own ({type(module).__name__})"
    return None
