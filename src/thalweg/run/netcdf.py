"""Results of a run as netCDF files, one a result, for other programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import InvalidArgument
from thalweg.run.store import Run

if TYPE_CHECKING:
    import xarray as xr


def export_netcdf(run: Run, folder: str | os.PathLike[str]) -> list[Path]:
    """
    Write each result of a run into a netCDF file of its own (version 3, which all programs read).

    Parameters
    ----------
    run : Run
        Only read.
    folder : path
        Where; made where it is missing. A result ``surface/points`` becomes
        ``surface-points.nc``.

    Returns
    -------
    list of Path
        The files. Numbers of 8 bytes that are whole become floats where 4 bytes do not hold them;
        truth values become 0 and 1; attributes that netCDF has no form for become JSON text, and
        one called ``mode``, or as SciPy calls its own, gets an underscore behind its name.

    Raises
    ------
    InvalidArgument
        If the run holds no results.
    """
    names = [node.path.strip("/") for node in run.results.subtree if node.has_data]
    if not names:
        raise InvalidArgument(f"{run.path} holds no results yet; thalweg resume {run.path}")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        path = place / f"{name.replace('/', '-')}.nc"
        writable(run.result(name)).to_netcdf(path, engine="scipy")
        written.append(path)
    return written


# Names that SciPy's file object has for itself, and writes over.
_TAKEN = ("mode", "fp", "filename", "use_mmap", "version_byte", "maskandscale", "dimensions")


def writable(data: xr.Dataset) -> xr.Dataset:
    """Give a data set in the forms that netCDF 3 knows."""
    data = data.reset_index([name for name in data.indexes if data.indexes[name].nlevels > 1])
    fitting = {name: _fitting(data[name]) for name in data.variables}
    plain = data.assign_coords({n: v for n, v in fitting.items() if n in data.coords})
    plain = plain.assign({n: v for n, v in fitting.items() if n not in data.coords})
    plain.attrs = {_free(key): _attribute(value) for key, value in data.attrs.items()}
    return plain


def _fitting(variable: xr.DataArray) -> xr.DataArray:
    attributes = {key: _attribute(value) for key, value in variable.attrs.items()}
    if variable.dtype.kind == "b":
        variable = variable.astype("int8")
    elif variable.dtype.kind in "iu" and variable.dtype.itemsize == 8:
        small = not variable.size or bool((abs(variable) < 2**31).all())
        variable = variable.astype("int32" if small else "float64")
    return variable.assign_attrs(attributes)


def _free(name: Any) -> str:
    return f"{name}_" if name in _TAKEN else str(name)


def _attribute(value: Any) -> Any:
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and value and all(type(v) in (int, float) for v in value):
        return list(value)
    return json.dumps(value, default=str)
