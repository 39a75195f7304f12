"""Spectra of several checkpoints side by side: pictures, and tables of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thalweg.measurements.checkpoint_rows import short_names
from thalweg.measurements.figures import densities_still, eigenvalues_still
from thalweg.measurements.formatting import count, number, percent
from thalweg.measurements.parts import Fact, Part, Picture, Table
from thalweg.measurements.spectrum_points import each_checkpoint

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Spectrum:
    """What is known of the spectrum at one checkpoint: None of what was not asked for."""

    name: str
    eigenvalues: xr.Dataset | None
    density: xr.Dataset | None
    trace: xr.Dataset | None


def compared_facts(spectra: list[Spectrum]) -> Iterator[Fact]:
    """Give the largest eigenvalue at each checkpoint, or the trace where no eigenvalue is known."""
    for spectrum in spectra:
        if spectrum.eigenvalues is not None:
            value, error = _at_rank(spectrum.eigenvalues, 0)
            label = f"largest eigenvalue found at {spectrum.name}"
            yield Fact(label, f"{value:.5g}", f"± {error:.1g}")
        elif spectrum.trace is not None:
            note = f"± {float(spectrum.trace['stderr']):.2g} (standard error)"
            value = float(spectrum.trace["value"])
            yield Fact(f"trace at {spectrum.name}", f"{value:.5g}", note)


def compared_parts(spectra: list[Spectrum]) -> Iterator[Part]:
    """Give pictures and tables with a panel, a colour, a column or a row for each checkpoint."""
    first = spectra[0]
    if first.density is not None:
        yield _densities(spectra, first.density)
    if first.eigenvalues is not None:
        yield _ranks(spectra)
        yield _eigenvalue_table(spectra)
    if first.density is not None or first.trace is not None:
        yield _table(spectra)


def spectra_of(
    eigenvalues: xr.Dataset | None, density: xr.Dataset | None, trace: xr.Dataset | None
) -> list[Spectrum]:
    """Part the results of several checkpoints by checkpoint."""
    kinds = [
        None if data is None else each_checkpoint(data) for data in (eigenvalues, density, trace)
    ]
    files = next([file for file, _ in kind] for kind in kinds if kind is not None)
    columns = [[None] * len(files) if kind is None else [d for _, d in kind] for kind in kinds]
    return [Spectrum(*row) for row in zip(short_names(files), *columns, strict=True)]


def _at_rank(eigenvalues: xr.Dataset, rank: int) -> tuple[float, float]:
    return float(eigenvalues["value"].values[rank]), float(eigenvalues["error"].values[rank])


def _densities(spectra: list[Spectrum], first: xr.Dataset) -> Picture:
    about = first.attrs
    widths = [number(s.density.attrs["width"]) for s in spectra if s.density is not None]
    marks = "" if spectra[0].eigenvalues is None else " Strokes: the eigenvalues of the table."
    caption = (
        f"The density of eigenvalues at each checkpoint, on one scale, upwards logarithmic, by"
        f" stochastic Lanczos quadrature with {count(int(about['probes']), 'probe')} of"
        f" {count(int(about['steps']), 'step')}, smoothed by Gaussians of standard deviation"
        f" {', '.join(widths)}. The bands are one standard error over the probes. Dotted: the bump"
        f" of one eigenvalue among {about['size']:,}; what is far below it is cut off.{marks}"
    )
    panels = [(s.name, s.density, s.eigenvalues) for s in spectra if s.density is not None]
    return Picture("density", "Densities", caption, densities_still(panels))


def _ranks(spectra: list[Spectrum]) -> Picture:
    caption = (
        "The eigenvalues that were asked for, in their order from the largest down, at each"
        " checkpoint. Bars reach one estimated error to either side; most are shorter than the"
        " marks."
    )
    series = [(s.name, s.eigenvalues) for s in spectra if s.eigenvalues is not None]
    return Picture("eigenvalues", "Eigenvalues by rank", caption, eigenvalues_still(series))


def _eigenvalue_table(spectra: list[Spectrum]) -> Table:
    found = [s.eigenvalues for s in spectra if s.eigenvalues is not None]
    rows: list[tuple[str, ...]] = []
    for rank in range(found[0].sizes["rank"]):
        pairs = (_at_rank(eigenvalues, rank) for eigenvalues in found)
        rows.append((str(rank + 1), *(f"{value:.7g} ± {error:.2g}" for value, error in pairs)))
    states = "; ".join(
        f"{s.name}: {s.eigenvalues.attrs['status']}, {s.eigenvalues.attrs['products']:,} products"
        for s in spectra
        if s.eigenvalues is not None
    )
    head = ("", *(spectrum.name for spectrum in spectra))
    return Table("Eigenvalues, with their estimated errors", head, rows, note=f"{states}.")


def _table(spectra: list[Spectrum]) -> Table:
    near, trace = spectra[0].density is not None, spectra[0].trace is not None
    head = ("checkpoint", *("near zero", "share", "95% interval") * near)
    head += ("trace", "standard error") * trace
    rows = [(s.name, *_near_zero(s.density), *_trace(s.trace)) for s in spectra]
    note = "Near zero: within this distance of it, as a share of each checkpoint's own largest."
    return Table("Near zero, and on the whole", head, rows, note=note if near else "")


def _near_zero(density: xr.Dataset | None) -> tuple[str, ...]:
    if density is None:
        return ()
    near = density.attrs
    share, low, high = (
        percent(near[f"near_zero_{name}"] / near["size"]) for name in ("count", "low", "high")
    )
    return number(near["near_zero_threshold"]), share, f"{low} to {high}"


def _trace(trace: xr.Dataset | None) -> tuple[str, ...]:
    if trace is None:
        return ()
    return f"{float(trace['value']):.5g}", f"{float(trace['stderr']):.2g}"
