"""Proofs: zeros that exist, how degenerate they are, and boxes of weights with zero error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from thalweg.measurements.formatting import number
from thalweg.measurements.parts import Fact, Part, Picture, Section, Table
from thalweg.plots import plot_boxes, plot_eigenvalues, plot_split
from thalweg.report.measured import measured
from thalweg.run import Run

if TYPE_CHECKING:
    import xarray as xr

ZEROS, SPLIT, SPECTRA, BOXES = RESULTS = (
    "degeneracy/zeros",
    "degeneracy/split",
    "degeneracy/spectra",
    "degeneracy/boxes",
)
_THEOREM = (
    "Theorem (Newton and Kantorovich, for more unknowns than equations): F collects the M "
    "equations “output minus target = 0”, J is its Jacobian. If on a ball of radius ρ around w the "
    "smallest singular value of J stays at least μ > 0, and |F(w)| = η < μρ, then F has an exact "
    "zero within η/μ of w, the zeros in the ball form a smooth manifold of dimension W − M, and at "
    "each of them the Hessian of the squared loss has nullity W − M. Here μ = σ − Lρ: σ bounds the "
    "smallest singular value at w from below, L is a Lipschitz constant of J over the ball. Each "
    "row is one proof; its numbers are bounds with rounding errors counted in, so that the row can "
    "be checked by hand: η < (σ − Lρ)ρ, and the distance is η/(σ − Lρ)."
)


def section(run: Run) -> Section | None:
    """Give what the study proved; None if the run holds nothing of it."""
    if not run.has_result(ZEROS):
        return None
    zeros = run.result(ZEROS)
    large = zeros.isel(network=np.flatnonzero(zeros["measure"].values == "zero"))
    return Section(
        name="degeneracy",
        title="Zeros, proved to exist and to be degenerate",
        lead="Networks on digits, trained by Gauss-Newton in float64 until residuals are of "
        "rounding size. A certificate says that weights with exactly zero error lie next to them. "
        "Nothing here is about a whole landscape, or about generalization.",
        facts=list(_facts(run, large)),
        parts=list(_parts(run, large)),
        missing=[name for name in RESULTS if not run.has_result(name)],
    )


def _case(data: xr.Dataset, case: str) -> xr.Dataset:
    return data.isel(network=np.flatnonzero(data["case"].values == case))


def _facts(run: Run, zeros: xr.Dataset) -> Iterator[Fact]:
    own = _case(zeros, "network")
    certified = int((own["verdict"].values == "certified").sum())
    weights, equations = int(own["weights"].values[0]), int(own["equations"].values[0])
    yield Fact("zeros certified", f"{certified} of {own.sizes['network']}", "networks")
    yield Fact("weights W, equations M", f"{weights:,}, {equations:,}", "of each network")
    nullities = sorted({int(n) for n in own["nullity"].values})
    listed = ", ".join(f"{n:,}" for n in nullities)
    yield Fact("nullity measured", listed, f"W − M = {weights - equations:,}")
    if run.has_result(BOXES):
        boxes = _case(run.result(BOXES), "network")
        proved = boxes["half_width"].values[boxes["half_width"].values > 0]
        median = number(float(np.median(proved))) if proved.size else "none"
        yield Fact("proved box, half-width", median, f"median of {len(proved)} networks")


def _parts(run: Run, zeros: xr.Dataset) -> Iterator[Part]:
    yield _proofs(run, zeros)
    if "certificate" in zeros:  # a run of an earlier version stored none
        yield from _checks(zeros)
    yield _refusals(zeros)
    if run.has_result(SPECTRA):
        yield Picture(
            "degeneracy-spectrum",
            "The rank, and the gap behind it",
            "Eigenvalues of J Jᵀ, the squares of J's singular values, in descending order, one "
            "line a network. The rank is their number above the threshold that rounding sets. In "
            "the control “repeated”, a tenth of the samples stand twice, and as many eigenvalues "
            "fall to rounding size. " + measured(run, "degeneracy/nullity"),
            _drawn(plot_eigenvalues, run.result(SPECTRA), (7.5, 4)),
        )
    if run.has_result(SPLIT):
        split = run.result(SPLIT)
        yield Picture(
            "degeneracy-split",
            "What explains the nullity",
            "Each bar is the nullity W − rank of one network, by what explains it. Symmetries, "
            "dead units and dead inputs are written out as tangent vectors, each checked to change "
            "no output, and counted so that none counts twice; permutations of units are discrete "
            "and explain none. More weights than equations explain what is left beyond them. "
            + measured(run, "degeneracy/hessian"),
            _drawn(plot_split, split, (7.5, 1.6 + 0.3 * split.sizes["network"])),
        )
    if run.has_result(BOXES):
        yield from _boxes(run, run.result(BOXES))


def _proofs(run: Run, zeros: xr.Dataset) -> Table:
    head = (
        "network",
        "W",
        "M",
        "residual η",
        "singular value σ",
        "Lipschitz L",
        "radius ρ",
        "distance",
        "dimension",
        "nullity measured",
    )
    own = _case(zeros, "network")
    own = own.isel(network=np.flatnonzero(own["verdict"].values == "certified"))
    keys = ("residual", "singular_value", "lipschitz", "radius", "distance")
    rows: list[tuple[str, ...]] = []
    for i in range(own.sizes["network"]):
        network = own.isel(network=i)
        weights, equations = int(network["weights"]), int(network["equations"])
        rows.append(
            (
                f"seed {int(network['seed'])}",
                f"{weights:,}",
                f"{equations:,}",
                *(number(float(network[key])) for key in keys),
                f"{weights - equations:,}",
                f"{int(network['nullity']):,}",
            )
        )
    verdict = measured(run, "degeneracy/certified")
    return Table("What was proved", head, rows, note=f"{_THEOREM} {verdict}".strip())


def _checks(zeros: xr.Dataset) -> Iterator[Table]:
    """Say how to prove everything anew, and on what the proofs rest."""
    own = _case(zeros, "network")
    rows: list[tuple[str, ...]] = [
        (f"seed {int(network['seed'])}", f"thalweg certify verify {network['certificate'].item()}")
        for network in (own.isel(network=i) for i in range(own.sizes["network"]))
        if str(network["certificate"].item())
    ]
    if not rows:
        return
    taken = str(own["assumptions"].values[own["verdict"].values == "certified"][0])
    yield Table(
        "How to check it: each command, in this run's folder, proves a row anew",
        ("network", "command"),
        rows,
        words=2,
        note="A command reads the stored weights, inputs and targets, and refuses them where their "
        "SHA-256 digests are not those of the certificate. It evaluates the network and "
        "factorizes J Jᵀ again, and exits with 1 unless it proves every number of the row. Taken "
        f"for granted is this and no more: {taken}.",
    )


def _refusals(zeros: xr.Dataset) -> Table:
    """List the controls: a proof that is always given proves nothing."""
    rows: list[tuple[str, ...]] = []
    for case in dict.fromkeys(zeros["case"].values.tolist()):
        of_case = _case(zeros, case)
        refused = np.flatnonzero(of_case["verdict"].values != "certified")
        if len(refused):
            reason = str(of_case["reason"].values[refused[0]])
            rows.append((case, reason, f"{len(refused)} of {of_case.sizes['network']}"))
    title = (
        "What was refused, and the first reason given; a refusal does not say that no zero exists"
    )
    return Table(title, ("case", "reason", "refused"), rows, words=2)


def _boxes(run: Run, boxes: xr.Dataset) -> Iterator[Part]:
    own = _case(boxes, "network")
    verdict = measured(run, "degeneracy/box")
    if bool((own["half_width"].values > 0).any()):
        yield Picture(
            "degeneracy-boxes",
            "Boxes of weights with zero error, from both sides",
            "Up to the first mark it is proved, by interval bounds, that no network whose weights "
            "each differ by at most so much misclassifies a training sample: a region of full "
            "dimension W. At the second mark an attack by gradients found weights in the box that "
            f"misclassify one. {verdict}",
            _drawn(plot_boxes, own, (7.5, 1.8 + 0.32 * own.sizes["network"])),
        )
    rows: list[tuple[str, ...]] = [
        (
            str(network["case"].values),
            f"seed {int(network['seed'])}",
            number(float(network["half_width"])),
            number(float(network["attacked"])),
            number(float(network["margin"])),
        )
        for network in (boxes.isel(network=i) for i in range(boxes.sizes["network"]))
    ]
    head = ("case", "network", "proved half-width", "attacked", "smallest margin at w")
    yield Table("Boxes; “contradictory” has one label changed after training", head, rows, words=2)


def _drawn(plot: Callable[..., object], data: xr.Dataset, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    plot(data, ax=figure.add_subplot())
    return figure
