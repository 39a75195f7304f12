"""What every result can do: say briefly what it is, be shown, drawn, explained and written down."""

from __future__ import annotations

import numbers
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# Longer texts and lists are named by their length.
_LONGEST = 60


class Result:
    """
    A dataclass that an instrument returns.

    Its fields are documented under *Attributes*: `explain` reads what they are from there.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        """Give the class the short representation, which `dataclass` then leaves as it is."""
        super().__init_subclass__(**more)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in brief(self).items())})"

    def _repr_html_(self) -> str:
        """Show the fields as a table, in a notebook."""
        answer: str = import_module("thalweg.display").table_of(self)
        return answer

    def plot(self, *, ax: Axes | None = None, **options: Any) -> Axes:
        """
        Draw the result, as `thalweg.plot` does.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw.
        **options
            Given on to the function that draws it.
        """
        axes: Axes = import_module("thalweg.display").plot(self, ax=ax, **options)
        return axes

    def explain(self) -> str:
        """Say in words what each number is, as `thalweg.explain` does."""
        words: str = import_module("thalweg.display").explain(self)
        return words

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, words, lists and dicts, as JSON takes them."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def to_xarray(self) -> xr.Dataset:
        """Give numbers and arrays as a labelled data set, words as its attributes."""
        import numpy as np
        import xarray as xr

        variables: dict[str, Any] = {}
        words: dict[str, Any] = {"result": type(self).__name__}
        for field in fields(self):  # type: ignore[arg-type]
            value = _bare(getattr(self, field.name))
            if isinstance(value, str):
                words[field.name] = value
            elif _all(value, str):
                words[field.name] = "; ".join(value)
            elif hasattr(value, "dtype") or _all(value, numbers.Number):
                array = np.asarray(value)
                dims = [f"{field.name}_{i}" for i in range(array.ndim)]
                variables[field.name] = (dims, array)
        return xr.Dataset(variables, attrs=words)


def brief(result: Any) -> dict[str, str]:
    """Write each field in a few words: numbers to four digits, arrays by their shapes."""
    return {field.name: _brief(getattr(result, field.name)) for field in fields(result)}


def _brief(value: Any) -> str:
    value = _scalar(value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return f"{float(value):.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "...")
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{'x'.join(map(str, shape))} {str(value.dtype).removeprefix('torch.')}>"
    if hasattr(value, "sizes"):
        return f"<{', '.join(f'{size} {dim}' for dim, size in value.sizes.items())}>"
    if isinstance(value, dict | list | tuple | set | frozenset):
        whole = str(value)
        plain = not any(hasattr(part, "__dict__") for part in value)
        return whole if plain and len(whole) <= _LONGEST else f"<{len(value)} entries>"
    whole = repr(value)
    return whole if len(whole) <= _LONGEST else f"<{type(value).__name__}>"


def _all(value: Any, kind: type) -> bool:
    """Whether a value, or all of some, are of a kind."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(part, kind) for part in value)
    return isinstance(value, kind)


def _scalar(value: Any) -> Any:
    """Take a single number out of an array or tensor without dimensions."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _bare(value: Any) -> Any:
    """Give a tensor as an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _plain(value: Any) -> Any:
    value = _bare(_scalar(value))
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
