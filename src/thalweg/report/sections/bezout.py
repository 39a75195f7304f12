"""Zero-minimizers as solutions of polynomial equations: counts, dimensions, degeneracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.measurements.formatting import count, number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.report.bezout_figures import critical_still, solutions_still, zero_set_still
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

RESULTS = tuple(
    f"bezout/{name}"
    for name in ("systems", "zeros", "losses", "critical", "cases", "solutions", "surface")
)
_GROUPS = {
    "square": "as many weights as samples",
    "wide": "more weights",
    "rotated": "more weights, N = rank",
    "beyond": "more samples than the rank",
    "planted": "the same, planted targets",
}
_CASES = {
    "cube": "z³, one weight, one sample, at w = 0",
    "line": "z², two inputs, one sample",
    "dead": "z³, two dead inputs",
    "rotation": "two linear units, one decay for all",
    "split": "z³, a unit split in two",
}


def section(run: Run) -> Section | None:
    """Give what the study of polynomial systems found; None if the run holds nothing of it."""
    tables = {name: run.result(name) for name in RESULTS if run.has_result(name)}
    if not tables:
        return None
    return Section(
        name="bezout",
        title="Zero error as polynomial equations",
        lead="With a polynomial activation, zero training error is a system of polynomial "
        "equations in the weights. On small networks its solutions can be counted, found, and "
        "loaded back. In the table: the multihomogeneous bound; the number of complex solutions, "
        "for sets of positive dimension their degree; the same modulo the finite symmetry group; "
        "real solutions modulo symmetry, for sets the points found.",
        facts=list(_facts(tables)),
        parts=list(_parts(tables)),
        missing=[name for name in RESULTS if name not in tables],
    )


def _facts(tables: dict[str, xr.Dataset]) -> Iterator[Fact]:
    if "bezout/systems" in tables:
        square = _rows(tables["bezout/systems"], "group", "square")
        if square.sizes["row"]:
            system = square.isel(row=int(np.nanargmax(square["solutions_complex"].values)))
            yield Fact(
                "most complex solutions of one system",
                _whole(system["solutions_complex"]),
                f"{system['network'].item()}; Bezout's bound {_whole(system['bezout'])}",
            )
        none = int((square["real"].values == 0).sum())
        yield Fact("systems N = W without a real solution", f"{none} of {square.sizes['row']}")
    if "bezout/zeros" in tables:
        zeros = tables["bezout/zeros"]
        yield Fact("real solutions loaded into torch", f"{zeros.sizes['row']:,}")
        yield Fact("their largest training loss", number(float(zeros["loss"].max())))


def _parts(tables: dict[str, xr.Dataset]) -> Iterator[Part]:
    if "bezout/systems" in tables:
        yield _systems(tables["bezout/systems"])
    if "bezout/solutions" in tables:
        yield _solutions(tables["bezout/solutions"])
    if "bezout/surface" in tables:
        yield _surface(tables["bezout/surface"])
    if "bezout/critical" in tables:
        yield _critical(tables["bezout/critical"])
    if "bezout/losses" in tables:
        yield _losses(tables["bezout/losses"])
    if "bezout/cases" in tables:
        yield _cases(tables["bezout/cases"])


def _systems(systems: xr.Dataset) -> Table:
    draws = [systems.isel(row=row) for row in range(systems.sizes["row"])]
    reals: dict[tuple[str, ...], list[float]] = {}
    for draw in draws:
        reals.setdefault(_system(draw), []).append(draw["real"].item())
    heads = ("network", "W", "N", "rank", "Bezout", "multihom.", "complex", "mod. sym.", "dim.")
    return Table(
        "Systems of zero error",
        (*heads, "W−N", "real", "method", "complete"),
        [(*shown[:-2], _among(counts), *shown[-2:]) for shown, counts in reals.items()],
    )


def _system(draw: xr.Dataset) -> tuple[str, ...]:
    """All that draws of the same network have in common, as a rule."""
    planted = ", planted targets" if draw["group"].item() == "planted" else ""
    low, high = draw["dimension_low"].item(), draw["dimension_high"].item()
    dimension = _whole(low) if low == high or np.isnan(low) else f"{low:.0f} to {high:.0f}"
    is_set = np.isnan(draw["solutions_complex"].item()) and np.isfinite(draw["degree"].item())
    bounds = ("weights", "equations", "generic_rank", "bezout", "multihomogeneous")
    return (
        draw["network"].item() + planted,
        *(_whole(draw[name]) for name in bounds),
        f"degree {_whole(draw['degree'])}" if is_set else _whole(draw["solutions_complex"]),
        _whole(draw["solutions_modulo_symmetry"]),
        "empty" if draw["exists"].item() == 0 else dimension,
        _whole(draw["dimension_expected"]),
        _method(draw["method"].item()),
        "yes" if draw["complete"].item() else "–",
    )


def _method(words: str) -> str:
    """Name the programs and methods that a count rests on."""
    names = {"monodromy": "monodromy", "msolve": "msolve", "modulo a prime; bounds": "rank"}
    return ", ".join(name for mark, name in names.items() if mark in words)


def _among(counts: list[float]) -> str:
    low, high = min(counts), max(counts)
    if len(counts) == 1:
        return _whole(low)
    several = _whole(low) if low == high else f"{low:.0f} to {high:.0f}"
    return f"{several} in {len(counts)} draws"


def _solutions(solutions: xr.Dataset) -> Picture:
    real = int(solutions["real"].values.sum())
    return Picture(
        "bezout_solutions",
        "All complex solutions",
        f"Every solution of one system (network {solutions.attrs['network']}, as many samples as "
        f"weights) is one point in each panel: {count(solutions.sizes['solution'], 'solution')}, "
        f"{real} of them equivalent to a real one by roots of unity and the order of the units. "
        "The pattern of each panel repeats under the rotations that the roots of unity make. "
        "Units: those of the weights.",
        solutions_still(solutions),
    )


def _surface(surface: xr.Dataset) -> Picture:
    return Picture(
        "bezout_zero_set",
        "A valley floor that is known exactly",
        f"The loss of a network with two weights ({surface.attrs['network']}) on one sample, and "
        "the curve on which it is zero, walked from one real solution with every step corrected "
        "to a relative residual of 1e-12. W − N = 1: the set has one dimension.",
        zero_set_still(surface),
    )


def _critical(critical: xr.Dataset) -> Picture:
    return Picture(
        "bezout_critical",
        "All critical points: value against index",
        f"{count(critical.sizes['row'], 'real critical point')} of small losses, all that the "
        "homotopy finds for several networks and draws of samples. The value is that of the loss, "
        "decay included, relative to the squared targets; points of one index are spread sideways "
        "where they would overlap. Without decay every point has a zero eigenvalue from the "
        "rescaling of its unit; crosses have others that neither symmetry nor dead inputs "
        "explain.",
        critical_still(critical),
    )


def _losses(losses: xr.Dataset) -> Table:
    decay = {"minima": "none", "decayed": "generic"}
    heads = ("network", "decay", "complete", "samples", "paths", "complex", "known", "real")
    rows = [
        (
            draw["network"].item(),
            decay[draw["group"].item()],
            "yes" if draw["complete"].item() else "–",
            *(
                _whole(draw[name])
                for name in ("samples", "paths", "critical_complex", "known", "critical_real")
            ),
        )
        for draw in (losses.isel(row=row) for row in range(losses.sizes["row"]))
    ]
    title = "Critical points of small losses (known: Bharadwaj's counts for deep linear networks)"
    return Table(title, heads, rows, words=3)


def _cases(cases: xr.Dataset) -> Table:
    names = ("value", "index", "nullity", "nullity_symmetry", "nullity_dead")
    rows = [
        (_CASES[case["case"].item()], case["kind"].item(), *(number(case[n].item()) for n in names))
        for case in (cases.isel(row=row) for row in range(cases.sizes["row"]))
    ]
    heads = ("case", "kind", "loss", "index", "nullity", "from symmetry", "from dead inputs")
    return Table("Degenerate critical points with nonzero loss", heads, rows, words=2)


def _rows(table: xr.Dataset, column: str, value: str) -> xr.Dataset:
    return table.isel(row=np.flatnonzero(table[column].values.astype(str) == value))


def _whole(value: Any) -> str:
    amount = float(value)
    if np.isnan(amount):
        return "–"
    return f"{amount:,.0f}" if amount < 1e9 else f"{amount:.3g}"
