"""Claims about zero-minimizers: that they are there, how degenerate, and that a box surrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import exact, share

if TYPE_CHECKING:
    import xarray as xr

_SOURCE = "Liao and Poggio (2017): with W > N the zero-minimizers are degenerate"
_SECTION = "degeneracy"
# Stated before anything is measured.
_MOST, _NONE = Rule(low=0.5), Rule(low=0.0, high=0.0)
RULES = {"certified": _MOST, "nullity": _NONE, "hessian": _NONE, "box": _MOST}
_WHY = "Counted on the networks that were certified."
_NEAR = {
    "below": "nearly enough weights: just fewer than equations",
    "above": "just more weights than equations, and no room for Gauss-Newton to find a zero",
}
_CONTROLS = {
    "narrow": "fewer weights than equations: no Jacobian has their rank",
    "contradictory": "one sample stands twice with two targets: there is no zero",
    "early": "stopped after one step of Gauss-Newton: no zero is near",
}


def judge(zeros: xr.Dataset, boxes: xr.Dataset) -> list[Claim]:
    """
    Judge the claims of the study.

    Parameters
    ----------
    zeros : xarray.Dataset
        ``degeneracy/zeros``.
    boxes : xarray.Dataset
        ``degeneracy/boxes``.

    Returns
    -------
    list of Claim
        Certified zeros, their nullity by the Gram matrix and by the Hessian, and boxes.
    """
    large, small = _measured(zeros, "zero"), _measured(zeros, "hessian")
    return [_certified(large), _nullity(large), _hessian(small), _box(boxes)]


def _certified(zeros: xr.Dataset) -> Claim:
    def statistic(case: str) -> Statistic:
        verdicts = _networks_of(zeros, case)["verdict"].values
        return share(
            "share of networks certified", int((verdicts == "certified").sum()), len(verdicts)
        )

    return Claim(
        name="degeneracy/certified",
        statement="Next to the point where Gauss-Newton ends, most networks with more weights than"
        " equations have weights with exactly zero squared error, by proof; the zeros around form"
        " a manifold of dimension W - M.",
        source=_SOURCE,
        protocol="Each network is trained in float64 from its own initialization on its own images"
        " of digits, all classes but the last as outputs, and certify_zero is asked for a proof."
        " Networks with draws of their own are the sample. Controls get as many steps, but the one"
        " that is stopped.",
        statistic=statistic("network"),
        rule=RULES["certified"],
        controls=(
            *(Control(why, statistic(case)) for case, why in _CONTROLS.items()),
            *(Control(why, statistic(case), near=True) for case, why in _NEAR.items()),
        ),
        section=_SECTION,
    )


def _nullity(zeros: xr.Dataset) -> Claim:
    return Claim(
        name="degeneracy/nullity",
        statement="At these zeros the Jacobian's nullity, and so that of the Hessian of the squared"
        " loss, is W - M exactly.",
        source=_SOURCE,
        protocol="The numerical rank of J J^T in float64, at the threshold that rounding sets; the"
        " largest difference of W - rank to W - M over the networks.",
        statistic=_miss(zeros, "network", certified=True),
        rule=RULES["nullity"],
        why=_WHY,
        controls=(
            Control(
                "a tenth of the samples stand twice: equations depend on one another, and the"
                " nullity is larger than W - M",
                _miss(zeros, "repeated"),
            ),
        ),
        section=_SECTION,
    )


def _hessian(zeros: xr.Dataset) -> Claim:
    return Claim(
        name="degeneracy/hessian",
        statement="The Hessian of the squared loss itself has nullity W - M at certified zeros.",
        source=_SOURCE,
        protocol="Small networks, trained and certified likewise; all eigenvalues of the Hessian,"
        " written out in float64; those below 1e-13 W of the largest are zero. The largest"
        " difference to W - M.",
        statistic=_miss(zeros, "network", certified=True),
        rule=RULES["hessian"],
        why=_WHY,
        controls=(
            Control(
                "stopped after one step: residuals bend the loss in directions in which outputs"
                " do not change to first order",
                _miss(zeros, "early"),
            ),
        ),
        section=_SECTION,
    )


def _box(boxes: xr.Dataset) -> Claim:
    def statistic(case: str) -> Statistic:
        widths = _networks_of(boxes, case)["half_width"].values
        return share("share of networks with a proved box", int((widths > 0).sum()), len(widths))

    return Claim(
        name="degeneracy/box",
        statement="The weights with zero classification error contain a box of full dimension W"
        " around most trained networks, by proof.",
        source="Liao and Poggio (2017): global minima are flat and of large volume",
        protocol="Networks are trained by SGD with cross-entropy; interval bounds over the weights"
        " prove the largest box on which no training sample is misclassified.",
        statistic=statistic("network"),
        rule=RULES["box"],
        controls=(
            Control(
                "the label of one sample is changed after training: the network misclassifies it",
                statistic("contradictory"),
            ),
        ),
        section=_SECTION,
    )


def _measured(zeros: xr.Dataset, measure: str) -> xr.Dataset:
    return zeros.isel(network=np.flatnonzero(zeros["measure"].values == measure))


def _networks_of(data: xr.Dataset, case: str) -> xr.Dataset:
    return data.isel(network=np.flatnonzero(data["case"].values == case))


def _miss(zeros: xr.Dataset, case: str, *, certified: bool = False) -> Statistic | None:
    networks = _networks_of(zeros, case)
    if certified:
        networks = networks.isel(network=np.flatnonzero(networks["verdict"].values == "certified"))
    if not networks.sizes["network"]:
        return None
    missed = networks["nullity"].values - (
        networks["weights"].values - networks["equations"].values
    )
    return exact(
        "nullity minus (W - M), where it differs most",
        float(missed[np.abs(missed).argmax()]),
        units="directions",
        n=networks.sizes["network"],
    )
