"""The loss surface: a line, a plane or a space through parameter space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from thalweg.measurements.figures import contour_still, height_still, profile_still, slices_still
from thalweg.measurements.formatting import count, number, percent
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import surface_figure
from thalweg.plots.grids import heights, outside
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

SURFACE, POINTS = RESULTS = ("surface/surface", "surface/points")
_NAMES = ("loss", "error", "test_loss", "test_error")


def section(run: Run) -> Section | None:
    """Give the surface that the run holds; None if it holds none."""
    if not run.has_result(SURFACE):
        return None
    surface = run.result(SURFACE)
    points = run.result(POINTS) if run.has_result(POINTS) else None
    parts: list[Part] = []
    if np.isfinite(surface["loss"].values).any():
        parts += _pictures(surface, points)
    parts.append(_table(surface))
    return Section(
        name="surface",
        title="The loss surface",
        lead=_lead(surface),
        facts=list(_facts(surface, points)),
        parts=parts,
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _lead(surface: xr.Dataset) -> str:
    shape = ("a line", "a plane", "a space")[surface["loss"].ndim - 1]
    return (
        f"The risk on {shape} through the weights {surface.attrs.get('centre', '')}, which lie at "
        "the origin. A picture shows one, two or three of the "
        f"{_weights(surface)} dimensions; what lies off it is not seen."
    )


def _weights(surface: xr.Dataset) -> str:
    return f"{surface.attrs['weights']:,}" if "weights" in surface.attrs else "many"


def _facts(surface: xr.Dataset, points: xr.Dataset | None) -> Iterator[Fact]:
    zero = dict.fromkeys(surface["loss"].dims, 0.0)
    if all(0.0 in surface[dim].values for dim in zero):
        centre = surface.sel(zero)
        note = f"error {percent(float(centre['error']))}" if "error" in centre else ""
        yield Fact("loss at the centre", number(float(centre["loss"])), note)
    yield Fact("cells", f"{surface['loss'].size:,}", _accuracy(surface))
    if points is not None and "variance_share" in points.attrs:
        share = percent(points.attrs["variance_share"])
        yield Fact("shown of the trajectory's variance", share)


def _pictures(surface: xr.Dataset, points: xr.Dataset | None) -> Iterator[Picture]:
    dims = surface["loss"].ndim
    how, marks, gaps = _how(surface), _marks(surface, points), _gaps(surface)
    log = heights(surface).log
    note = "" if log is None else log.note
    if dims == 1:
        what = "The risk along a line; bands are 95% intervals."
        still = profile_still(surface, points)
        yield Picture("surface", "Along a line", _caption(what, how, marks, gaps), still)
    elif dims == 2:
        what = "The risk over a plane, each cell in the colour of its own value; lines of equal"
        what += " value are interpolated."
        still = contour_still(surface, points)
        yield Picture("surface", "From above", _caption(what, how, marks, gaps, note), still)
        what = "The training loss as height" if _is_train(surface) else "The test loss as height"
        what += "." if log is None else " on a logarithmic scale."
        own = "Points hang at their own loss, above or below the surface where they lie off its"
        own = f"{own} plane." if points is not None else ""
        still, moving = height_still(surface, points), surface_figure(surface, points=points)
        sure = "On screen, bars are 95% intervals." if _sampled(surface) else ""
        caption = _caption(what, own, sure, gaps, note)
        yield Picture("surface_height", "From the side", caption, still, moving)
    else:
        what = "The risk in a space. Printed: three planes of it. On screen: shells of equal loss."
        still, moving = slices_still(surface), surface_figure(surface, points=points)
        yield Picture("surface", "In a space", _caption(what, how, marks, gaps), still, moving)


def _caption(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _sampled(surface: xr.Dataset) -> bool:
    """Whether any cell is an estimate."""
    return float(np.nanmax(surface["loss_stderr"].values, initial=0.0)) > 0


def _is_train(surface: xr.Dataset) -> bool:
    return bool(surface.attrs.get("split", "train") == "train")


def _how(surface: xr.Dataset) -> str:
    """State the extent, the directions, their lengths and the batch-norm policy."""
    spans = [
        f"{dim} from {float(surface[dim][0]):.3g} to {float(surface[dim][-1]):.3g}"
        f" ({surface.sizes[dim]} points)"
        for dim in map(str, surface["loss"].dims)
    ]
    norms = np.atleast_1d(surface.attrs.get("direction_norms", []))
    lengths = ", ".join(f"{float(norm):.3g}" for norm in norms)
    between = surface.attrs.get("between", "")
    return (
        f"Directions: {surface.attrs.get('directions', 'given')}; their lengths in weight space:"
        f" {lengths}. Extent in these lengths: {', '.join(spans)}."
        f" {surface.attrs.get('batchnorm', 'no batch norm')[:1].upper()}"
        f"{surface.attrs.get('batchnorm', 'no batch norm')[1:]}."
        f" {_accuracy(surface)[:1].upper()}{_accuracy(surface)[1:]}."
        + (f" {between[:1].upper()}{between[1:]}." if between else "")
    )


def _accuracy(surface: xr.Dataset) -> str:
    most = float(np.nanmax(surface["loss_stderr"].values, initial=0.0))
    samples = surface["samples"].values
    if most == 0:
        return f"all {count(int(samples.max()), 'sample')} in every cell: no sampling error"
    typical = float(np.nanmedian(surface["loss_stderr"].values))
    return (
        f"{samples.mean():,.0f} samples a cell on average; standard error of the loss at most"
        f" {number(most)}, half of the cells under {number(typical)}"
    )


def _marks(surface: xr.Dataset, points: xr.Dataset | None) -> str:
    if points is None:
        return ""
    on_path = points["trajectory"].values != ""
    text = ""
    if on_path.any():
        name = str(points["trajectory"].values[on_path][0])
        far = float(points["distance"].values[on_path].max())
        beyond = int(outside(surface, points["position"].values[on_path]).sum())
        text = (
            f"The {count(int(on_path.sum()), 'checkpoint')} of {name} are projected onto it, from"
            f" ring to square; they lie up to {number(far)} weight units off it, so that the colour"
            " below one is not its loss."
        )
        if "variance_share" in points.attrs:
            text += f" It shows {percent(points.attrs['variance_share'])} of their variance."
        if beyond:
            lie = "lies" if beyond == 1 else "lie"
            text += f" {count(beyond, 'checkpoint')} {lie} outside: the line leaves the picture."
    hidden = int(outside(surface, points["position"].values[~on_path]).sum())
    if hidden:
        text += (
            f" {count(hidden, 'given point')} outside {'is' if hidden == 1 else 'are'} not drawn."
        )
    return text.strip()


def _gaps(surface: xr.Dataset) -> str:
    missing = int((~surface["finite"].values).sum())
    if not missing:
        return ""
    were = "cell has a loss that is" if missing == 1 else "cells have losses that are"
    return f"{missing} {were} infinite or not a number: left out of the picture, marked grey."


def _table(surface: xr.Dataset) -> Table:
    rows = []
    for name in (one for one in _NAMES if one in surface):
        values = surface[name].values
        finite = values[np.isfinite(values)]
        ends = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
        stderr = float(np.nanmax(surface[f"{name}_stderr"].values, initial=0.0))
        rows.append((name.replace("_", " "), *map(number, map(float, ends)), number(stderr)))
    return Table("Range of the surface", ("", "lowest", "highest", "largest standard error"), rows)
