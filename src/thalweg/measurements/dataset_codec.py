"""Labelled data as the result of a task, which holds JSON values and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

_SCHEMA = "schema"


def pack(data: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """
    Take data sets apart into arrays, and JSON values that say what they are.

    Examples
    --------
    >>> import xarray as xr
    >>> data = {"bowl": xr.Dataset({"loss": ("x", [0.0, 1.0])}, {"x": [0, 1]}, {"seed": 3})}
    >>> unpack(pack(data))["bowl"].identical(data["bowl"])
    True
    """
    arrays = {
        f"{key}/{name}": one[name].values for key, one in data.items() for name in one.variables
    }
    return {_SCHEMA: {key: one.to_dict(data=False) for key, one in data.items()}} | arrays


def unpack(result: Mapping[str, Any]) -> dict[str, xr.Dataset]:
    """Put together what `pack` took apart."""
    import xarray as xr

    return {
        key: xr.Dataset(
            {name: _variable(result, key, name, v) for name, v in schema["data_vars"].items()},
            {name: _variable(result, key, name, v) for name, v in schema["coords"].items()},
            schema["attrs"],
        )
        for key, schema in result[_SCHEMA].items()
    }


def _variable(
    result: Mapping[str, Any], key: str, name: str, schema: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    return schema["dims"], result[f"{key}/{name}"], schema["attrs"]
