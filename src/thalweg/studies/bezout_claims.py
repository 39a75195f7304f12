"""The verdicts on the paper's zero-minimizers: rules, statistics and controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Run
from thalweg.studies.bezout_statistics import (
    dimension_error,
    flat_minima,
    in_groups,
    largest,
    mismatches,
    of_case,
    of_groups,
    smallest,
    unexplained_nullity,
)
from thalweg.studies.claim import Claim, Control, Rule
from thalweg.studies.intervals import exact

if TYPE_CHECKING:
    import xarray as xr

PAPER = "Liao and Poggio, Theory II (arXiv 1703.09833)"
MANY, DEGENERATE = f"{PAPER}, claim 2 of the abstract", f"{PAPER}, claim 4 of the abstract"
ZERO_LOSS = 1e-10
# Stated before anything was measured.
RULES = {
    "many": Rule(low=1),
    "bound-is-count": Rule(low=1, high=1),
    "always-real": Rule(low=1),
    "rank": Rule(low=0, high=0),
    "more-weights-suffice": Rule(low=1),
    "dimension": Rule(low=0, high=0),
    "zeros-degenerate": Rule(low=1),
    "minima-one-unit": Rule(low=0, high=0),
    "minima-any": Rule(low=0, high=0),
    "generic-decay": Rule(low=0, high=0),
    "loaded": Rule(high=ZERO_LOSS),
}
_SOLVED = (
    "The system of zero error of each network at random rational samples is solved by monodromy, "
    "with the output weights fixed by the gauge; "
)
_FLAT = (
    "All critical points of the squared loss of networks with one hidden unit, at generic data, "
    "are found by homotopy. Those with positive loss, no negative eigenvalue and no line in the "
    "null space along which the loss falls are taken; the nullity of the Hessian is reduced by "
    "that of the rescaling of units."
)


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge how many zero-minimizers there are, of which dimension, and what is degenerate."""
    names = ("systems", "zeros", "losses", "critical", "cases")
    tables = {name: run.result(f"bezout/{name}") for name in names}
    systems = tables["systems"]
    return [
        _many(systems),
        _bezout_is_the_count(systems),
        _always_real(systems),
        _exist_up_to_the_rank(systems),
        _exist_beyond(systems),
        _dimension(systems),
        _zeros_degenerate(tables["zeros"]),
        _minima_of_one_unit(tables["critical"], tables["cases"]),
        _minima_of_any(tables["critical"], tables["cases"]),
        _decayed(tables["losses"], tables["cases"]),
        _loaded(tables["zeros"], tables["critical"]),
    ]


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def _many(systems: xr.Dataset) -> Claim:
    name = "smallest number of solutions over h! dʰ"
    square, beyond = of_groups(systems, "square"), of_groups(systems, "beyond")
    return Claim(
        name="bezout/many",
        statement="As many generic equations as weights, none of them inconsistent (N = W, not "
        "above the generic rank): there are finitely many complex zero-minimizers, and at least "
        "h! dʰ for h units zᵈ, exponentially many in the number of weights.",
        source=MANY,
        protocol=f"{_SOLVED}solutions are counted before dividing by the symmetry group, whose "
        "order is h! dʰ. The smallest quotient over all networks and draws decides.",
        statistic=smallest(name, square["solutions_modulo_symmetry"], "times"),
        rule=RULES["many"],
        controls=(
            Control(
                "Networks with more samples than their generic rank: no solution at all.",
                largest(name, beyond["solutions_complex"], "times"),
            ),
        ),
        section="bezout",
    )


def _bezout_is_the_count(systems: xr.Dataset) -> Claim:
    name = "smallest share of Bezout's number that is reached"
    square, beyond = of_groups(systems, "square"), of_groups(systems, "beyond")
    return Claim(
        name="bezout/bound-is-count",
        statement="(Naive reading) Bezout's number is the number of zero-minimizers.",
        source=MANY,
        protocol=f"{_SOLVED}their number is divided by Bezout's, the product of the degrees. The "
        "smallest quotient over all networks and draws decides.",
        statistic=smallest(name, square["solutions_complex"] / square["bezout"], "share"),
        rule=RULES["bound-is-count"],
        controls=(
            Control(
                "Networks with more samples than their generic rank: none of the solutions.",
                largest(name, beyond["solutions_complex"] / beyond["bezout"], "share"),
            ),
        ),
        section="bezout",
        why="It is an upper bound. One unit reaches it; for two and more the equations have common "
        "zeros at infinity, which it counts.",
    )


def _always_real(systems: xr.Dataset) -> Claim:
    name = "smallest number of real zero-minimizers modulo symmetry"
    square, beyond = of_groups(systems, "square"), of_groups(systems, "beyond")
    return Claim(
        name="bezout/always-real",
        statement="(Naive reading) Where there are complex zero-minimizers, there are real ones "
        "(N = W, not above the generic rank).",
        source=MANY,
        protocol=f"{_SOLVED}the real ones among them, signs of output weights free, are counted. "
        "The smallest number over all networks and draws decides.",
        statistic=smallest(name, square["real"], "solutions"),
        rule=RULES["always-real"],
        controls=(
            Control(
                "Networks with more samples than their generic rank: no real solution either.",
                largest(name, beyond["real"], "solutions"),
            ),
        ),
        section="bezout",
        why="Bezout counts complex solutions. One unit z² with targets of both signs has none that "
        "is real.",
    )


def _exist_up_to_the_rank(systems: xr.Dataset) -> Claim:
    name = "systems with a solution beyond the rank, or without one up to it"
    generic = systems.where(systems["group"] != "planted", drop=True)
    return Claim(
        name="bezout/rank",
        statement="Zero-minimizers for generic targets exist exactly where the number of equations "
        "does not exceed the generic rank of the Jacobian.",
        source=f"What claim 2 calls 'modulo inconsistent equations' ({PAPER})",
        protocol="The rank is computed exactly modulo a prime. Solutions are sought by monodromy, "
        "and real ones by Gauss-Newton from random starts, without its help. Systems are counted "
        "for which the two disagree; those where nothing was found and not all was sought are left "
        "out.",
        statistic=mismatches(name, generic),
        rule=RULES["rank"],
        controls=(
            Control(
                "Targets planted as outputs of the network, hence not generic: they are fitted "
                "beyond the rank.",
                mismatches(name, of_groups(systems, "planted")),
            ),
        ),
        section="bezout",
    )


def _exist_beyond(systems: xr.Dataset) -> Claim:
    name = "smallest existence (1: there is a solution, 0: there is none)"
    more = systems.where(
        (systems["weights"] > systems["equations"]) & (systems["group"] != "planted"), drop=True
    )
    square = of_groups(systems, "beyond")
    square = square.where(square["network"] == _three_squares(square), drop=True)
    return Claim(
        name="bezout/more-weights-suffice",
        statement="(Naive reading) There are zero-minimizers, complex ones at least, whenever "
        "there are more weights than equations.",
        source=MANY,
        protocol=f"{_SOLVED}whether there is one is noted for each network with W > N. The "
        "smallest note decides.",
        statistic=smallest(name, more["exists"], "0 or 1"),
        rule=RULES["more-weights-suffice"],
        controls=(
            Control(
                "Three units z² with bias, two inputs: W = 9 weights and N = 7 samples, but "
                "quadratic functions of two inputs have dimension 6.",
                largest(name, square["exists"], "0 or 1"),
            ),
        ),
        section="bezout",
        why="The generic rank of the Jacobian, not the number of weights, bounds what can be "
        "fitted.",
    )


def _three_squares(systems: xr.Dataset) -> str:
    quadratic = [str(n) for n in systems["network"].values if "z²" in str(n)]
    return quadratic[0] if quadratic else ""


def _dimension(systems: xr.Dataset) -> Claim:
    name = "largest distance of the dimension from W - N"
    return Claim(
        name="bezout/dimension",
        statement="For generic targets, and N up to the generic rank, the zero-minimizers form a "
        "set of dimension exactly W - N (weights after the gauge).",
        source=DEGENERATE,
        protocol="At every zero-minimizer found, complex or real, the kernel of the Jacobian is "
        "measured by its singular values (zero: below 1e-9 of the largest). Where the rank is N "
        "the zeros form a manifold whose dimension is that of the kernel.",
        statistic=dimension_error(name, of_groups(systems, "square", "wide", "rotated")),
        rule=RULES["dimension"],
        controls=(
            Control(
                "Targets planted beyond the rank: zeros exist, in more dimensions than W - N.",
                dimension_error(name, of_groups(systems, "planted")),
            ),
            Control(
                "Generic targets beyond the rank: no zeros; the empty set has dimension -1.",
                dimension_error(name, of_groups(systems, "beyond")),
            ),
        ),
        section="bezout",
    )


def _zeros_degenerate(zeros: xr.Dataset) -> Claim:
    name = "smallest nullity beyond symmetry at a zero-minimizer"
    return Claim(
        name="bezout/zeros-degenerate",
        statement="With more weights than equations, N up to the generic rank, zero-minimizers are "
        "degenerate for another reason than symmetry (networks zᵈ with d odd).",
        source=DEGENERATE,
        protocol="Real zero-minimizers are loaded into torch. With zero residuals the nullity of "
        "the Hessian of the squared loss is the number of weights minus the rank of the Jacobian "
        "(zero: singular values below 1e-9 of the largest); it is reduced by the number of "
        "independent tangents to continuous symmetries. The smallest rest decides.",
        statistic=smallest(name, unexplained_nullity(of_groups(zeros, "wide")), "eigenvalues"),
        rule=RULES["zeros-degenerate"],
        controls=(
            Control(
                "As many weights as equations: isolated up to the rescaling of units.",
                smallest(name, unexplained_nullity(of_groups(zeros, "square")), "eigenvalues"),
            ),
            Control(
                "Three units z², six samples: W - N = 3, all three of them rotations of the units.",
                smallest(name, unexplained_nullity(of_groups(zeros, "rotated")), "eigenvalues"),
            ),
        ),
        section="bezout",
    )


def _minima_of_one_unit(critical: xr.Dataset, cases: xr.Dataset) -> Claim:
    name = "largest nullity beyond rescaling at a minimum with positive loss"
    return Claim(
        name="bezout/minima-one-unit",
        statement="Minima with nonzero loss are not degenerate, up to the rescaling of units: "
        "networks with one hidden unit, generic data, more samples than weights.",
        source=DEGENERATE,
        protocol=_FLAT,
        statistic=largest(
            name, unexplained_nullity(flat_minima(of_groups(critical, "minima"))), "eigenvalues"
        ),
        rule=RULES["minima-one-unit"],
        controls=_degenerate_minima(name, cases),
        section="bezout",
    )


def _minima_of_any(critical: xr.Dataset, cases: xr.Dataset) -> Claim:
    name = "largest nullity beyond rescaling at a minimum with positive loss"
    split = flat_minima(of_case(cases, "split"))
    eigenvalues = np.concatenate(
        [
            unexplained_nullity(flat_minima(of_groups(critical, "minima"))),
            unexplained_nullity(split),
        ]
    )
    return Claim(
        name="bezout/minima-any",
        statement="(As the paper has it) Minima with nonzero loss are not degenerate, for generic "
        "data and more samples than weights, whatever the number of units.",
        source=DEGENERATE,
        protocol=_FLAT + " To these come minima of one unit split in two (a unit w becomes a w and "
        "b w, with a³ + b³ = 1), in the network with two units.",
        statistic=largest(name, eigenvalues, "eigenvalues"),
        rule=RULES["minima-any"],
        controls=_degenerate_minima(name, cases)[:2],
        section="bezout",
        why="A unit can be split into two along a curve without a change of the function, and on a "
        "part of the curve the minimum stays one (Fukumizu and Amari, Neural Networks 13, 2000).",
    )


def _degenerate_minima(name: str, cases: xr.Dataset) -> tuple[Control, ...]:
    texts = {
        "line": "One unit z² that reads two inputs, one sample with target -1: a line of minima.",
        "dead": "One unit z³ with two inputs that are zero in all samples: their weights are free.",
        "split": "Two units z³: a minimum of one unit split in two, at generic data.",
    }
    return tuple(
        Control(
            text,
            largest(name, unexplained_nullity(flat_minima(of_case(cases, case))), "eigenvalues"),
        )
        for case, text in texts.items()
    )


def _decayed(losses: xr.Dataset, cases: xr.Dataset) -> Claim:
    name = "critical points that are multiple or not isolated"
    cube, rotation = of_case(cases, "cube"), of_case(cases, "rotation")
    return Claim(
        name="bezout/generic-decay",
        statement="With a generic weight decay, a different one for each weight, all critical "
        "points, complex ones too, are isolated and not degenerate.",
        source=f"The equations gradient = 0 are W in W unknowns ({DEGENERATE})",
        protocol="All critical points of the squared loss with decay are found by homotopy; paths "
        "that end at a critical point where the Hessian is singular are counted.",
        statistic=exact(
            name,
            float(losses["singular"].values[in_groups(losses, "decayed")].sum()),
            units="paths",
        ),
        rule=RULES["generic-decay"],
        controls=(
            Control(
                "A cube of one weight, one sample, no decay: the Hessian vanishes at w = 0, where "
                "the loss is not zero.",
                largest(name, cube["singular"], "paths"),
            ),
            Control(
                "Two linear units, the same decay for all weights: a circle of minima.",
                largest(name, rotation["singular"], "paths"),
            ),
        ),
        section="bezout",
    )


def _loaded(zeros: xr.Dataset, critical: xr.Dataset) -> Claim:
    name = "largest training loss of a loaded solution"
    units = "of the mean squared target"
    real = of_groups(zeros, "square", "wide", "rotated", "planted")
    minima = flat_minima(of_groups(critical, "minima"))
    return Claim(
        name="bezout/loaded",
        statement="A real solution of the polynomial system, loaded into a torch network, has zero "
        "training loss up to rounding (at most 1e-10 of the mean squared target, float64).",
        source=MANY,
        protocol="Every real solution is loaded, and the empirical risk evaluated by torch. The "
        "largest decides; for the controls the smallest.",
        statistic=largest(name, real["loss"] / real["at_zero"], units),
        rule=RULES["loaded"],
        controls=(
            Control(
                "The same weights with a relative noise of 0.1.",
                smallest(name, real["loss_perturbed"] / real["at_zero"], units),
            ),
            Control(
                "Minima that are no solutions.",
                smallest(name, minima["value"] / minima["at_zero"], units),
            ),
        ),
        section="bezout",
    )
