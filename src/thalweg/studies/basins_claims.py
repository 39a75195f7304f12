"""The verdicts on basins: which family their signatures are of, and whether basins hold basins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.basins.fit import NONE
from thalweg.studies.basins_task import PLAIN
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import cluster_share, exact

if TYPE_CHECKING:
    import xarray as xr

NETWORKS, SHUFFLED = "networks", "without structure"
# Stated before anything was judged.
RULES = {
    "side-by-side": Rule(low=0.5),
    "one-valley": Rule(low=0.5),
    "described": Rule(low=0.5),
    "known-case": Rule(low=0.75),
    "inside-basins": Rule(low=1.0),
}
_SECTION = "basins"
_PAPER = (
    "Liao and Poggio (2017), abstract: a collection of basins with flat bottoms, perhaps basins"
)
_SOURCE = f"{_PAPER} inside basins"
_SIGNED = (
    "Networks of two widths are trained on draws of samples of their own, four from different "
    "initial weights on each; perturbed at half and at the end of training at six scales, trained "
    "on, and perturbed again. Barriers on the lines between all of these, distances, returns and "
    "differences of the functions are a signature. The same protocol runs on simulated landscapes. "
)
_FITTED = (
    "A classifier trained on simulated signatures chooses among six families; the answer is none "
    "of them where the best family's own signatures lie nearer to one another than this one to "
    "them. Counted are signatures, each of four networks. "
)
_MEMORY = (
    "Siblings after one long step and cousins after four short ones, each trained on, are compared "
    "at equal distance. The second have the lower barriers at a scale where short steps are led "
    "back by a basin larger than they are. Two such scales, a factor of 4 apart and none between, "
    "are basins inside basins. All draws of a width are one test, by permutation within parents. "
)
_NO_POWER = (
    "By so many branches the test does not find basins inside basins on landscapes that have them: "
    "what it does not find in networks means nothing."
)
_AS_PLAIN_AS = (
    "Not seen are basins inside basins as plain as those of the family of trees, which the same "
    "test found on every set of landscapes; fainter ones may be there."
)


def judge(fits: xr.Dataset | None, memories: xr.Dataset | None) -> list[Claim]:
    """
    Judge all claims.

    Parameters
    ----------
    fits : Dataset or None
        Over ``signature``: ``kind`` (networks, a family, or plain) and ``family``, the answer.
    memories : Dataset or None
        Over ``set``: ``kind`` and ``nested``.
    """
    return [
        _family(
            fits,
            "side-by-side",
            "basins",
            "The basins of networks lie side by side, each with a flat bottom",
            ("tree", "valley"),
        ),
        _family(
            fits,
            "one-valley",
            "valley",
            "The basins of networks are one connected valley with a winding floor",
            ("basins", "tree"),
        ),
        Claim(
            name="basins/described",
            statement="One of six families of landscapes describes the signature of networks.",
            source=_SOURCE,
            protocol=_SIGNED + _FITTED,
            statistic=_described(fits, NETWORKS),
            rule=RULES["described"],
            controls=(
                Control(
                    "Basins on a plain on which descents stop: of none of the families.",
                    _described(fits, PLAIN),
                ),
            ),
            section=_SECTION,
            why=_missing(fits),
        ),
        _known_case(fits),
        _inside(memories),
    ]


def _of(data: xr.Dataset, kind: str) -> xr.Dataset:
    return data.isel({str(data["kind"].dims[0]): data["kind"].values == kind})


def _share(fits: xr.Dataset | None, kind: str, family: str) -> Statistic | None:
    if fits is None or not _of(fits, kind).sizes["signature"]:
        return None
    answers = _of(fits, kind)["family"].values
    name = f"share of signatures of {kind} given {family}"
    return cluster_share(name, answers == family, np.arange(len(answers)))


def _described(fits: xr.Dataset | None, kind: str) -> Statistic | None:
    if fits is None or not _of(fits, kind).sizes["signature"]:
        return None
    answers = _of(fits, kind)["family"].values
    name = f"share of signatures of {kind} given any family"
    return cluster_share(name, answers != NONE, np.arange(len(answers)))


def _family(
    fits: xr.Dataset | None, name: str, family: str, words: str, others: tuple[str, ...]
) -> Claim:
    return Claim(
        name=f"basins/{name}",
        statement=f"{words}: of six families this one is chosen, and fits.",
        source=_SOURCE,
        protocol=_SIGNED + _FITTED,
        statistic=_share(fits, NETWORKS, family),
        rule=RULES[name],
        controls=tuple(
            Control(f"Landscapes of the family {other}.", _share(fits, other, family))
            for other in others
        ),
        section=_SECTION,
        why=_missing(fits),
    )


def _known_case(fits: xr.Dataset | None) -> Claim:
    return Claim(
        name="basins/known-case",
        statement="Landscapes of which the family is known are given their own family.",
        source="The landscapes' closed forms",
        protocol=_SIGNED + _FITTED + "Parameters are drawn from the families' priors, with seeds "
        "that the simulated signatures do not have.",
        statistic=_right(fits, 0),
        rule=RULES["known-case"],
        controls=(Control("The same answers, against the next family's name.", _right(fits, 1)),),
        section=_SECTION,
        why=_missing(fits),
    )


def _right(fits: xr.Dataset | None, shift: int) -> Statistic | None:
    if fits is None:
        return None
    kinds = fits["kind"].values
    families = [
        str(kind) for kind in dict.fromkeys(kinds.tolist()) if kind not in (NETWORKS, PLAIN)
    ]
    if not families:
        return None
    named = dict(zip(families, families[shift:] + families[:shift], strict=True))
    hits = [
        answer == named[kind]
        for kind, answer in zip(kinds, fits["family"].values, strict=True)
        if kind in named
    ]
    name = "share of landscapes given their own family"
    return cluster_share(name, hits, np.arange(len(hits)))


def _inside(memories: xr.Dataset | None) -> Claim:
    trees = _nested(memories, "tree")
    nested = _nested(memories, NETWORKS)
    why = "Fewer than two widths." if nested is None else ""
    if nested is not None and (trees is None or trees.value < 1):
        nested, why = None, _NO_POWER
    elif nested is not None and nested.value < 1:
        why = _AS_PLAIN_AS
    return Claim(
        name="basins/inside-basins",
        statement="There are basins inside basins: lines of descent remember basins of two sizes, "
        "at every width.",
        source=_SOURCE,
        protocol=_SIGNED + _MEMORY,
        statistic=nested,
        rule=RULES["inside-basins"],
        controls=(
            Control(
                "One winding valley, the same branching: a tree by design, without basins.",
                _nested(memories, "valley"),
            ),
            Control(
                "The networks' own distances, with barriers by distance and nothing else.",
                _nested(memories, SHUFFLED),
            ),
        ),
        section=_SECTION,
        why=why,
    )


def _nested(memories: xr.Dataset | None, kind: str) -> Statistic | None:
    """Give the share of widths, or of as many sets of landscapes, at which two sizes are seen."""
    if memories is None:
        return None
    nested = _of(memories, kind)["nested"].values
    if len(nested) < 2:
        return None
    name = f"share of sets of {kind} with two sizes of basins"
    return exact(name, float(nested.mean()), n=len(nested))


def _missing(fits: xr.Dataset | None) -> str:
    return "No signature was taken." if fits is None else ""
