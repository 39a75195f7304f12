"""Robustness of an end point, by measures that the rescaling of layers leaves alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from thalweg.geometry.learning_coefficient import learning_coefficient
from thalweg.geometry.noise import noise_level
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.geometry.volume import log_volume
from thalweg.landscape.protocols import Landscape, evaluator
from thalweg.problems.samples import Samples
from thalweg.risk import EmpiricalRisk
from thalweg.tracing.chain import Network


@dataclass(frozen=True)
class RobustnessMeasure:
    """
    One measure, and which of its differences are none.

    Attributes
    ----------
    words : str
        What it is.
    larger : bool
        Whether larger values are those of more robust places.
    tolerance : float
        Differences of at most this are none: of logarithms, or of the value itself.
    logarithmic : bool
        Which of both.
    units : str
        Of the value.
    """

    words: str
    larger: bool
    tolerance: float
    logarithmic: bool = True
    units: str = ""


# Tolerances are what the instruments themselves leave open: copies of noise, a lower bound found by
# ascents, the standard error of a test error of a tenth on 360 samples.
MEASURES: dict[str, RobustnessMeasure] = {
    "average": RobustnessMeasure("mean rise under relative noise", False, 0.05, units="loss"),
    "worst": RobustnessMeasure("greatest rise in a relative ball", False, 0.1, units="loss"),
    "loss_noise": RobustnessMeasure(
        "relative noise that doubles the loss (PAC-Bayes)", True, 0.05, units="of each weight"
    ),
    "error_noise": RobustnessMeasure(
        "relative noise that keeps the error", True, 0.05, units="of each weight"
    ),
    "margin": RobustnessMeasure(
        "margin of all but a tenth of the samples", True, 0.05, units="spread of the outputs"
    ),
    "test_error": RobustnessMeasure(
        "test error", False, 0.02, logarithmic=False, units="share of samples"
    ),
}
FLATNESS = ("average", "worst", "loss_noise", "error_noise")
"""Those of weights: a claim about robustness is about their mean trend."""


def measure_robustness(
    landscape: Landscape, w: Tensor, sizes: Mapping[str, Any], *, seed: int
) -> dict[str, float]:
    """
    Take all measures at a point.

    Parameters
    ----------
    landscape : Landscape
        An `EmpiricalRisk` has all; others those of weights that they define.
    w : Tensor
        Shape (W,).
    sizes : mapping
        ``noise`` and ``radius`` relative to the weights, ``pairs``, ``copies``, ``gradients``.
    seed : int
        Of the noise: the same at all points that are compared.

    Returns
    -------
    dict
        By the names of `MEASURES`, with ``loss``, ``error`` and ``test_loss``; NaN where one is
        not defined, or lies beyond what was tried.
    """
    base = evaluator(landscape)(w)
    measures = dict.fromkeys(MEASURES, math.nan) | {"loss": base["loss"]}
    chosen: dict[str, Any] = {"form": "adaptive", "seed": seed}
    measures["average"] = average_sharpness(
        landscape, w, noise=sizes["noise"], pairs=sizes["pairs"], **chosen
    ).value
    measures["worst"] = worst_sharpness(
        landscape, w, radius=sizes["radius"], max_gradients=sizes["gradients"], **chosen
    ).value
    for quantity, rise in (("loss", base["loss"]), ("error", 0.01)):
        if quantity in base:
            level = noise_level(
                landscape,
                w,
                quantity=quantity,  # type: ignore[arg-type]
                rise=rise,
                copies=sizes["copies"],
                **chosen,
            )
            converged = level.status == "converged"
            measures[f"{quantity}_noise"] = level.value if converged else math.nan
    if isinstance(landscape, Network):
        # Studies measure no other network than a problem's risk.
        measures |= _of_network(cast(EmpiricalRisk, landscape), w, base)
    return measures


def _of_network(risk: EmpiricalRisk, w: Tensor, base: Mapping[str, float]) -> dict[str, float]:
    measures = {"error": base.get("error", math.nan), "margin": margin(risk, w)}
    test = risk.held_out()
    if test is not None:
        measures |= {f"test_{name}": value for name, value in test.evaluate(w).items()}
    return measures


def margin(risk: EmpiricalRisk, w: Tensor) -> float:
    """
    Give the margin that nine samples of ten have, as a share of how far outputs spread.

    The margin is the right class's output minus the largest of the others; a tenth of the samples
    have a smaller one. Multiplying all outputs changes nothing.

    Returns
    -------
    float
        NaN where there are no classes.
    """
    drawn = risk.draw(torch.arange(risk.samples))
    targets = risk.data.targets
    if not drawn.by_outputs or targets is None:
        return math.nan
    outputs = drawn.features(w).double().cpu()
    right = _classes(risk.data).cpu()
    if outputs.shape[1] < 2 or right.shape != outputs.shape[:1]:
        return math.nan
    own = outputs.gather(1, right[:, None])[:, 0]
    rivals = outputs.scatter(1, right[:, None], -math.inf).max(1).values
    spread = float((outputs - outputs.mean(1, keepdim=True)).square().mean().sqrt())
    return float((own - rivals).quantile(0.1)) / spread if spread else math.nan


def _classes(samples: Samples) -> Tensor:
    targets = samples.targets
    assert targets is not None
    return targets.argmax(1) if targets.dim() == 2 else targets.long()


def measure_volume(
    landscape: Landscape, w: Tensor, sizes: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """
    Ask for the log-volume below a level, and for the learning coefficient.

    Parameters
    ----------
    landscape : Landscape
        Any.
    w : Tensor
        Shape (W,).
    sizes : mapping
        ``level`` above the loss at w; ``localization``, per squared weight; ``budget`` of gradients
        of the learning coefficient.
    seed : int
        Of both.

    Returns
    -------
    dict
        ``volume`` and ``coefficient``, each with ``_low``, ``_high``, ``_status`` and ``_reason``;
        NaN where it is refused.
    """
    volume = log_volume(
        landscape, w, level=sizes["level"], localization=sizes["localization"], seed=seed
    )
    coefficient = learning_coefficient(
        landscape, w, budget=sizes["budget"], localization=sizes["localization"], seed=seed
    )
    return _answered("volume", volume) | _answered("coefficient", coefficient)


def no_volume(reason: str) -> dict[str, Any]:
    """Give what `measure_volume` does where there is no point to ask at."""
    names = ("volume", "coefficient")
    numbers = {name + end: math.nan for name in names for end in ("", "_low", "_high")}
    statuses = {f"{name}_status": "refused" for name in names}
    return numbers | statuses | {f"{name}_reason": reason for name in names}


def _answered(name: str, estimate: Any) -> dict[str, Any]:
    numbers = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {
        **{name + end: math.nan if value is None else value for end, value in numbers.items()},
        f"{name}_status": estimate.status,
        f"{name}_reason": " ".join(estimate.reasons),
    }
