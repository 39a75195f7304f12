"""What a checkpoint may name besides tensors: plain values, for which inert ones stand in."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from thalweg.errors import InvalidArgument

# Names by which a pickle may call for something, with what it gets. No code of a class is run:
# values beside the weights are not used, so that something inert may stand in for them.
Global = Callable[..., Any] | tuple[Callable[..., Any], str]
Globals = list[Global]

# torch keeps what may be named in one set for all threads.
_ONE_AT_A_TIME = threading.RLock()


class Inert:
    """Stands in for a value that is not used: takes any arguments and state, and keeps none."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class InertDict(Inert):
    """Stands in for a kind of dict: torch's reader fills nothing but dicts themselves."""

    def __new__(cls, *_: object, **__: object) -> Any:
        """Give an empty dict."""
        return {}


class _InertList(Inert):
    def __new__(cls, *_: object, **__: object) -> Any:
        return []


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_VALUES = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "uuid.UUID",
    "decimal.Decimal",
    "fractions.Fraction",
    "torch.torch_version.TorchVersion",
)
_DICTS = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_TYPES = ("bool", "dict", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")


def harmless_globals() -> Globals:
    """List what may be named in any checkpoint: NumPy's scalars and arrays, and plain values."""
    # NumPy's own readers, under the names they have in its versions 1 and 2.
    readers: dict[str, Any] = {
        "scalar": np.float64(0).__reduce__()[0],
        "_reconstruct": np.empty(0).__reduce__()[0],
    }
    arrays = [
        (reader, f"numpy.{core}.multiarray.{name}")
        for name, reader in readers.items()
        for core in ("core", "_core")
    ]
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    numbers = [
        kind for kind in set(np.sctypeDict.values()) if issubclass(kind, np.number | np.bool)
    ]
    return [
        *arrays,
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *((kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds),
        *((kind, f"numpy.{kind.__name__}") for kind in numbers),
        *((getattr(builtins, name), f"builtins.{name}") for name in _TYPES),
        *((Inert, name) for name in _VALUES),
        *((InertDict, name) for name in _DICTS),
        (_InertList, "collections.deque"),
    ]


def allowed_globals(allow: Iterable[str | type], stand_in: type) -> Globals:
    """
    Let something inert stand in for what the user allows.

    Parameters
    ----------
    allow : iterable of str or type
        Classes, or their names ``"package.module.Class"``. They are not imported.
    stand_in : type
        `Inert` or `InertDict`.

    Raises
    ------
    InvalidArgument
        If an entry is neither.
    """
    return [(stand_in, _full_name(allowed)) for allowed in allow]


@contextmanager
def named_alone(globals_: Globals) -> Iterator[None]:
    """
    Let torch's reader know these by their names, inside the block, whatever else is registered.

    Other libraries register the true classes of some names (PyTorch Geometric ``defaultdict``), and
    which of two of a name torch takes is chance.
    """
    with _ONE_AT_A_TIME:
        before: Globals = torch.serialization.get_safe_globals()
        names = {_registered_name(each) for each in globals_}
        others = [each for each in before if _registered_name(each) not in names]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*others, *globals_])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _registered_name(registered: Global) -> str:
    if isinstance(registered, tuple):
        return registered[1]
    return f"{registered.__module__}.{registered.__qualname__}"


def _full_name(allowed: str | type) -> str:
    if isinstance(allowed, str) and "." in allowed:
        return allowed
    if isinstance(allowed, type):
        return f"{allowed.__module__}.{allowed.__qualname__}"
    raise InvalidArgument(
        f"allow has {allowed!r}; expected classes, or their names with the module's:"
        " allow=['package.module.Class']."
    )
