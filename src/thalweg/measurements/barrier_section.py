"""The line between two checkpoints in the report: its picture, and what was compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from thalweg.connectivity import one_basin
from thalweg.measurements.barrier import COMPARED, RESULT
from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_line
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr


def section(run: Run) -> Section | None:
    """Give the line, or the lines of a path, that the run holds; None if it holds none."""
    if not run.has_result(RESULT):
        return None
    data = run.result(RESULT)
    several = "pair" in data.dims
    counted = "error" in data["quantity"].values
    verdict = [] if several or not counted else [_verdict(data)]
    parts: list[Part] = [_table_of_pairs(data) if several else _table(data)]
    if not several:
        parts.insert(0, Picture("line", "Along the line", _caption(data), line_still(data)))
    lead = "Loss and error on the straight line in weight space" + (
        " from each checkpoint to the next." if several else " between both checkpoints."
    )
    aligned = data.attrs.get("aligned", "")
    lead += f" {aligned[:1].upper()}{aligned[1:]}." if aligned else ""
    return Section("barrier", "The line between checkpoints", lead, verdict, parts)


def line_still(data: xr.Dataset) -> Figure:
    """Draw loss and error along the line."""
    shown = [name for name in ("loss", "error") if name in data]
    figure = Figure(figsize=(5 * len(shown), 4), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, variable in zip(axes, shown, strict=True):
        plot_line(data, variable=variable, ax=ax)
    return figure


def _verdict(data: xr.Dataset) -> Fact:
    judged = one_basin(data)
    return Fact("training error barrier", f"{judged.barrier:.3g}", str(judged))


def _caption(data: xr.Dataset) -> str:
    between = data.attrs.get("between") or ""
    note = f" {between[:1].upper()}{between[1:]}." if between else ""
    return f"{data.attrs['batchnorm'][:1].upper()}{data.attrs['batchnorm'][1:]}; " + (
        f"{data.attrs['stderr']}.{note}"
    )


def _table(data: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for name in map(str, data["quantity"].values):
        here = data.sel(quantity=name)
        for key, head in COMPARED.items():
            ends = (float(here[f"{key}{end}"]) for end in ("", "_stderr", "_low", "_high"))
            rows.append((name.replace("_", " "), head, *map(number, ends)))
    titles = ("quantity", "what", "value", "standard error", "95% from", "to")
    return Table("Compared with the ends, sample by sample", titles, rows, words=2)


def _table_of_pairs(data: xr.Dataset) -> Table:
    rows: list[tuple[str, ...]] = []
    for i in range(data.sizes["pair"]):
        for name in map(str, data["quantity"].values):
            here = data.isel(pair=i).sel(quantity=name)
            ends = (float(here[f"barrier{end}"]) for end in ("", "_stderr", "_low", "_high"))
            rows.append((f"{i} to {i + 1}", name.replace("_", " "), *map(number, ends)))
    head = ("checkpoints", "quantity", "barrier", "standard error", "95% from", "to")
    return Table("Barriers along the path", head, rows, words=2)
