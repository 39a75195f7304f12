"""Spectra of several checkpoints as one data set, and each of them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

# Attributes of one checkpoint's spectrum that are its own; the others are those of all.
_OWN = ("status", "products", "width", "bias", "rounding")
_OWN_PREFIX = "near_zero_"
# Each checkpoint's density has a grid of its own, of as many places.
_PLACE, _EIGENVALUE = "place", "eigenvalue"


def stack_checkpoints(spectra: Sequence[xr.Dataset], files: Sequence[str]) -> xr.Dataset:
    """
    Put eigenvalues, densities or traces of several checkpoints into one data set.

    Parameters
    ----------
    spectra : sequence of xarray.Dataset
        One a checkpoint, all of one kind and of as many numbers.
    files : sequence of str
        Names of the checkpoints.

    Returns
    -------
    xarray.Dataset
        Of one checkpoint as it was; of several with the dimension ``checkpoint``, what was an
        attribute of each as a variable, and the grids of densities as ``eigenvalue (checkpoint,
        place)``.
    """
    import xarray as xr

    if len(spectra) == 1:
        return spectra[0]
    rows = [_with_own_as_variables(spectrum) for spectrum in spectra]
    grids = [name for name in (_EIGENVALUE,) if name in rows[0].coords]
    stacked = xr.concat(
        rows, dim="checkpoint", data_vars="all", coords=grids, compat="equals", join="exact"
    )
    return stacked.assign_coords(checkpoint=list(files))


def each_checkpoint(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """
    Part a data set of `stack_checkpoints` into those of single checkpoints, with their names.

    The name of one that was not stacked is empty.
    """
    if "checkpoint" not in data.dims:
        return [("", data)]
    files = [str(file) for file in data["checkpoint"].values]
    return [(file, _single(data.isel(checkpoint=i, drop=True))) for i, file in enumerate(files)]


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith(_OWN_PREFIX)


def _with_own_as_variables(spectrum: xr.Dataset) -> xr.Dataset:
    own = {name: value for name, value in spectrum.attrs.items() if _is_own(str(name))}
    shared = {name: value for name, value in spectrum.attrs.items() if name not in own}
    if _EIGENVALUE in spectrum.dims:
        spectrum = spectrum.reset_index(_EIGENVALUE).rename_dims({_EIGENVALUE: _PLACE})
    return spectrum.assign(own).drop_attrs(deep=False).assign_attrs(shared)


def _single(stacked: xr.Dataset) -> xr.Dataset:
    own = {str(name): stacked[name].item() for name in stacked.data_vars if _is_own(str(name))}
    spectrum = stacked.drop_vars(list(own)).assign_attrs(own)
    return spectrum.swap_dims({_PLACE: _EIGENVALUE}) if _PLACE in spectrum.dims else spectrum
