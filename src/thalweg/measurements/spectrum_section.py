"""The spectrum of the Hessian: its ends, its density, what lies near zero, its trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from thalweg.measurements.figures import density_still
from thalweg.measurements.formatting import count, number, percent
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.measurements.spectrum import RESULTS
from thalweg.measurements.spectrum_comparison import compared_facts, compared_parts, spectra_of
from thalweg.plots.density import single_bump
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr


def section(run: Run) -> Section | None:
    """Give the spectra that the run holds; None if it holds none."""
    eigenvalues, density, trace = (run.result(r) if run.has_result(r) else None for r in RESULTS)
    known = [data for data in (density, eigenvalues, trace) if data is not None]
    if not known:
        return None
    facts, parts = _facts(eigenvalues, density, trace), _parts(eigenvalues, density)
    if "checkpoint" in known[0].dims:
        spectra = spectra_of(eigenvalues, density, trace)
        facts, parts = compared_facts(spectra), compared_parts(spectra)
    return Section(
        name="spectrum",
        title=f"The spectrum of the {known[0].attrs.get('operator', 'Hessian')}",
        lead=_lead(known[0]),
        facts=list(facts),
        parts=list(parts),
    )


def _parts(eigenvalues: xr.Dataset | None, density: xr.Dataset | None) -> Iterator[Part]:
    if density is not None:
        yield _picture(density, eigenvalues)
    if eigenvalues is not None:
        yield _table(eigenvalues)


def _lead(data: xr.Dataset) -> str:
    about = data.attrs
    return (
        f"Eigenvalues of the {about.get('operator', 'Hessian')} of the risk on"
        f" {count(int(about.get('samples', 0)), 'sample')} in {about['size']:,} weights;"
        f" {about.get('batchnorm', 'no batch norm')}. They depend on the parametrization:"
        " rescaling layers changes them and not the function."
    )


def _facts(
    eigenvalues: xr.Dataset | None, density: xr.Dataset | None, trace: xr.Dataset | None
) -> Iterator[Fact]:
    if eigenvalues is not None:
        value, error = (float(eigenvalues[name].values[0]) for name in ("value", "error"))
        yield Fact("largest eigenvalue found", f"{value:.5g}", f"± {error:.1g}")
    if density is not None and "near_zero_count" in density.attrs:
        near = density.attrs
        share, low, high = (
            near[f"near_zero_{name}"] / near["size"] for name in ("count", "low", "high")
        )
        part = "" if "near_zero_least" in near else ", over the random vectors alone"
        note = f"95% interval {percent(low)} to {percent(high)}{part}"
        within = f"eigenvalues within {number(near['near_zero_threshold'])} of zero"
        yield Fact(within, percent(share), note)
    if trace is not None:
        note = f"± {float(trace['stderr']):.2g} (standard error)"
        yield Fact("trace", f"{float(trace['value']):.5g}", note)


def _picture(density: xr.Dataset, eigenvalues: xr.Dataset | None) -> Picture:
    about = density.attrs
    marks = " Strokes: the eigenvalues of the table." if eigenvalues is not None else ""
    caption = (
        f"The density of eigenvalues on a logarithmic scale, by stochastic Lanczos quadrature with"
        f" {count(int(about['probes']), 'probe')} of {count(int(about['steps']), 'step')}, smoothed"
        f" by a Gaussian of standard deviation {number(about['width'])}. The band is one standard"
        f" error over the probes. Dotted: the bump of one eigenvalue among {about['size']:,},"
        f" {number(single_bump(density))}; what is far below it is cut off.{marks}"
    )
    return Picture("density", "Density", caption, density_still(density, eigenvalues))


def _table(eigenvalues: xr.Dataset) -> Table:
    columns = (eigenvalues[name].values for name in ("value", "residual", "error"))
    rows: list[tuple[str, ...]] = [
        (str(rank), f"{value:.7g}", f"{residual:.2g}", f"{error:.2g}")
        for rank, (value, residual, error) in enumerate(zip(*columns, strict=True), start=1)
    ]
    about = eigenvalues.attrs
    title = f"Eigenvalues ({about['status']}, {about['products']:,} products)"
    return Table(title, ("", "value", "residual", "estimated error"), rows)
