"""How flat the loss is around a point of a check-up, by measures that rescaling leaves alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.certificates.rise import bound_rise
from thalweg.geometry import top_eigenvalues, trace
from thalweg.geometry.noise import noise_level
from thalweg.geometry.scales import Scaled, perturbation_scales
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.measurements.checkup_clock import ending
from thalweg.measurements.checkup_sizes import Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk
from thalweg.run.freed_memory import give_back

Array = NDArray[np.float64]
# Relative to the weights: the noise, the distance of the worst direction; rise of the loss.
NOISE, RADIUS, RISE = 0.05, 0.01, 0.1
# The worst step's length in units of single weights, at most: those of adaptive sharpness-aware
# minimization are 0.5 to 2 (Kwon et al., ASAM, 2021). A hundredth of eleven million weights is as
# long as thirty, all of which the worst direction puts into a few of them.
_LONGEST = 1.0


def noise(subject: Subject, place: int, sizes: Sizes) -> dict[str, Any]:
    """
    Measure how the loss rises under noise around a point.

    Each measure comes with what it is a mean of, or over copies.
    """
    how = _how(subject, sizes) | {"form": "adaptive"}
    risk, w = subject.few(place, sizes["samples"])
    average = average_sharpness(risk, w, noise=NOISE, pairs=sizes["draws"], **how)
    level = noise_level(risk, w, rise=RISE, copies=sizes["draws"], **how)
    return {
        "loss": risk.value(w),
        "average": average.value,
        "average_each": np.array(average.rises),
        "loss noise": level.value,
        "loss noise_each": level.copies,
        "loss noise_low": level.low,
        "loss noise_high": level.high,
        "samples": risk.samples,
    }


def curvature(subject: Subject, place: int, sizes: Sizes) -> dict[str, Any]:
    """
    Measure the largest curvature and the worst direction around a point, and the trace.

    All but the trace are measures that layer rescaling leaves alone, each with the samples that it
    is a mean of.
    """
    how = _how(subject, sizes)
    risk, w = subject.few(place, sizes["samples"])
    found = _directions(risk, w, sizes, how)
    give_back()  # what only the directions needed
    if sizes["trace_products"]:
        # Of the plain Hessian: what others print, and not invariant.
        hessian = risk.hessian(w, method=sizes["method"])
        total = trace(hessian, rtol=0.05, max_products=sizes["trace_products"], **how)
        found |= {"trace": total.value, "trace_error": total.error, "trace_status": total.status}
    return found


def _directions(
    risk: EmpiricalRisk, w: Tensor, sizes: Sizes, how: dict[str, Any]
) -> dict[str, Any]:
    """Measure the direction of the largest curvature, and the worst one."""
    hessian = risk.hessian(w, method=sizes["method"])
    scales = perturbation_scales(risk.space, w, "adaptive")
    search: Any = {"max_products": sizes["products"], "basis": sizes["basis"], **how}
    top = top_eigenvalues(Scaled(hessian, scales), 1, rtol=1e-3, **search)
    vectors = top.vectors
    del hessian  # its graph would be held through the ascents
    give_back()
    radius = min(RADIUS, _LONGEST / math.sqrt(len(w)))
    worst = worst_sharpness(
        *(risk, w),
        radius=radius,
        form="adaptive",
        max_gradients=sizes["gradients"],
        eigenvectors=vectors,
        starts=sizes["starts"],
        memory=sizes["memory"],
        **how,
    )
    base = risk.sample_losses(w)
    rises = risk.sample_losses(w + worst.displacement) - base
    along = (scales * vectors[:, 0].double().cpu()).to(w.device, w.dtype)
    found: dict[str, Any] = {
        "eigenvalue": float(top.values[0]),
        "eigenvalue_error": float(top.errors[0]),
        "eigenvalue_status": top.status,
        "eigenvalue_each": _array(_second_differences(risk, w, along, base)),
        "worst": worst.value,
        "worst_radius": radius,
        "worst_status": worst.status,
        "worst_each": _array(rises),
        "curved_samples": risk.samples,
    }
    del worst
    give_back()
    proved = bound_rise(risk, w, scales, radius * math.sqrt(len(w)))
    found |= (
        {"worst_most": proved.value} if proved.value is not None else {"unproved": proved.reason}
    )
    return found


def _how(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    return {"seed": subject.seed, "progress": ending(sizes["most"] / len(subject.points))}


def _second_differences(risk: EmpiricalRisk, w: Tensor, along: Tensor, base: Tensor) -> Tensor:
    """Give each sample's curvature along a direction of unit length in the form's units."""
    # A step of a hundredth of the weights: differences of 1e-4 relative are far above rounding.
    step = 0.01 * float(w.norm() / along.norm())
    higher, lower = (risk.sample_losses(w + sign * step * along) for sign in (1, -1))
    return (higher.double() + lower.double() - 2 * base.double()) / step**2


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()
