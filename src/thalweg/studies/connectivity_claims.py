"""The verdicts on connectivity: lines, orders and curves between networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.connectivity_task import APART, KNOWN, WINDING
from thalweg.studies.intervals import cluster_mean

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
# Stated before anything was judged. A barrier is a share of the loss that training takes away.
# What has no barrier before cannot be lowered: below `LOW`, as in signatures of basins, there is
# none. (How alignment is compared was changed after one run: ratios of two barriers are so skewed
# that units in random order were undecided.)
LOW = 0.01
_SMALL = Rule(high=0.05)
RULES = {
    "curve": _SMALL,
    "known-case": _SMALL,
    "alignment": Rule(high=1 / 3),
    "one-basin": _SMALL,
    "copies": _SMALL,
    "permuted-copy": Rule(high=0.001),
}
_SECTION = "connectivity"
_TRAINED = (
    "On each draw of samples two networks are trained from initial weights and with orders of "
    "their own, and two copies of the end of the first, perturbed, are trained on. "
)
_BARRIER = (
    "A barrier is the largest excess of the training loss over the chord between the ends, as a "
    "share of the loss that training takes away; mean over draws. "
)
_ALIGNED = (
    "The second network's units are brought into the order of the first's by weights, by "
    "activations, and by descents on soft orders and swaps that lower the loss at the mean of "
    "both. "
)
_CURVED = "A Bezier curve with three inner points is trained to low loss. "


def judge(pairs: xr.Dataset | None, known: xr.Dataset | None) -> list[Claim]:
    """
    Judge all claims.

    Parameters
    ----------
    pairs : Dataset or None
        Over ``pair``: ``barrier`` by ``line``.
    known : Dataset or None
        Over ``case``: ``landscape``, ``straight`` and ``curve``.
    """
    apart = Control(f"On {KNOWN[APART]}.", _known(known, APART, "curve", "barrier of the curve"))
    return [
        _curve(pairs, apart),
        _known_case(known, apart),
        _alignment(pairs),
        _one_basin(pairs),
        _copies(pairs),
        _permuted_copy(pairs),
    ]


def _curve(pairs: xr.Dataset | None, apart: Control) -> Claim:
    return Claim(
        name="connectivity/curve",
        statement="A curve of low loss joins two independently trained networks.",
        source="Garipov et al. (2018); Draxler et al. (2018): no barriers between minima",
        protocol=_TRAINED + _CURVED + _BARRIER,
        statistic=_barrier(pairs, "curve"),
        rule=RULES["curve"],
        controls=(apart,),
        section=_SECTION,
        why=_missing(pairs),
    )


def _one_basin(pairs: xr.Dataset | None) -> Claim:
    return Claim(
        name="connectivity/one-basin",
        statement="But for the order of their units, two independently trained networks lie in "
        "one basin: the straight line between them is low once they are aligned.",
        source="Entezari et al. (2022); Ainsworth et al., Git Re-Basin (2023)",
        protocol=_TRAINED + _ALIGNED + _BARRIER,
        statistic=_barrier(pairs, "aligned"),
        rule=RULES["one-basin"],
        controls=(
            Control("The same networks, not aligned.", _barrier(pairs, "straight")),
            Control(
                "The aligned network, half of its units in random order.",
                _barrier(pairs, "half_aligned"),
                near=True,
            ),
        ),
        section=_SECTION,
        why=_missing(pairs, "aligned"),
    )


def _copies(pairs: xr.Dataset | None) -> Claim:
    return Claim(
        name="connectivity/copies",
        statement="Perturbed copies of one network, trained on, are joined by a straight line "
        "of low loss.",
        source="Liao and Poggio (2017): perturbed copies come back to the same basin",
        protocol=_TRAINED + _BARRIER,
        statistic=_barrier(pairs, "copies"),
        rule=RULES["copies"],
        controls=(Control("Two independently trained networks.", _barrier(pairs, "straight")),),
        section=_SECTION,
        why=_missing(pairs),
    )


def _permuted_copy(pairs: xr.Dataset | None) -> Claim:
    return Claim(
        name="connectivity/permuted-copy",
        statement="A copy of a network with its units in random order is brought back exactly: "
        "what alignment cannot do elsewhere is not for want of a search.",
        source="The symmetry of networks under the order of their units",
        protocol=_TRAINED + _ALIGNED + _BARRIER,
        statistic=_barrier(pairs, "permuted_aligned"),
        rule=RULES["permuted-copy"],
        controls=(Control("The same copy, not aligned.", _barrier(pairs, "permuted")),),
        section=_SECTION,
        why=_missing(pairs, "aligned"),
    )


def _known_case(known: xr.Dataset | None, apart: Control) -> Claim:
    return Claim(
        name="connectivity/known-case",
        statement=f"The search finds the curve where there is one: on {KNOWN[WINDING]}.",
        source="The landscape's closed form",
        protocol=_CURVED + "Its ends are two lowest points of the landscape, one landscape a "
        "draw. A barrier is a share of the mean value at random points.",
        statistic=_known(known, WINDING, "curve", "barrier of the curve"),
        rule=RULES["known-case"],
        controls=(
            apart,
            Control(
                "The straight line in the same valley.",
                _known(known, WINDING, "straight", "barrier of the line"),
                near=True,
            ),
        ),
        section=_SECTION,
        why="" if known is not None else "No known landscape was asked for.",
    )


def _alignment(pairs: xr.Dataset | None) -> Claim:
    counted = _risen(pairs)
    dropped = 0 if pairs is None else pairs.sizes["pair"] - len(counted)
    remark = f"{dropped} pairs without a barrier do not count." if dropped else ""
    statistic = _compared(pairs, "aligned")
    return Claim(
        name="connectivity/alignment",
        statement="Alignment lowers the barrier on the straight line between two independently "
        "trained networks to half or less.",
        source="Ainsworth et al., Git Re-Basin (2023)",
        protocol=_TRAINED + _ALIGNED + "The barrier of the line to the aligned network over the "
        "sum of it and that to the given one; mean over draws. One that is half gives a third.",
        statistic=statistic,
        rule=RULES["alignment"],
        controls=(
            Control(
                "The second network's units in random order instead.", _compared(pairs, "shuffled")
            ),
            Control(
                "The aligned network, half of its units in random order.",
                _compared(pairs, "half_aligned"),
                near=True,
            ),
        ),
        section=_SECTION,
        why=_missing(pairs, "aligned") or remark or ("" if statistic else "None has a barrier."),
    )


def _values(pairs: xr.Dataset, line: str) -> Floats:
    values: Floats = pairs["barrier"].sel(line=line).values
    return values


def _barrier(pairs: xr.Dataset | None, line: str) -> Statistic | None:
    if pairs is None or not np.isfinite(_values(pairs, line)).all():
        return None
    name = f"barrier, {line.replace('_', ' ')}"
    values = np.maximum(_values(pairs, line), 0.0)
    return cluster_mean(name, values, pairs["pair"].values, units="of the loss taken away")


def _risen(pairs: xr.Dataset | None) -> list[int]:
    """Number the pairs that have a barrier."""
    return [] if pairs is None else np.flatnonzero(_values(pairs, "straight") > LOW).tolist()


def _compared(pairs: xr.Dataset | None, line: str) -> Statistic | None:
    """Give a barrier over the sum of it and the unaligned one: of one that is half, a third."""
    counted = _risen(pairs)
    if pairs is None or len(counted) < 2:
        return None
    mine = pairs.isel(pair=counted)
    barriers, before = np.maximum(_values(mine, line), 0.0), _values(mine, "straight")
    if not np.isfinite(barriers).all():
        return None
    name = f"barrier, {line.replace('_', ' ')}, over the sum of it and the unaligned one"
    return cluster_mean(name, barriers / (barriers + before), mine["pair"].values)


def _known(known: xr.Dataset | None, landscape: str, line: str, name: str) -> Statistic | None:
    if known is None:
        return None
    mine = known.isel(case=known["landscape"].values == landscape)
    values = np.maximum(mine[line].values, 0.0)
    return cluster_mean(name, values, mine["number"].values, units="of the loss taken away")


def _missing(pairs: xr.Dataset | None, line: str = "straight") -> str:
    if pairs is None:
        return "No pair was measured."
    if np.isfinite(_values(pairs, line)).all():
        return ""
    return "The network cannot be aligned: " + next(
        (str(words) for words in pairs["refused"].values if words), "its barriers are not finite."
    )
