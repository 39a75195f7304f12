"""How flat the loss is around a point of a check-up, by measures that rescaling leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.geometry import top_eigenvalues, trace
from thalweg.geometry.noise import noise_level
from thalweg.geometry.scales import Scaled, perturbation_scales
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.measurements.checkup_clock import OutOfTime, ending
from thalweg.measurements.checkup_plan import Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk
from thalweg.run.progress import Progress

Array = NDArray[np.float64]
# Relative to the weights: the noise, the distance of the worst direction; rise of the loss.
NOISE, RADIUS, RISE = 0.05, 0.01, 0.1


def flatness(subject: Subject, place: int, sizes: Sizes) -> dict[str, Any]:
    """
    Measure how flat the loss is around a point, by measures that layer rescaling leaves alone.

    Each comes with what it is a mean of: over noise, over samples, over copies. ``refused`` says
    why where it took too long.
    """
    ends = ending(sizes["seconds"] / len(subject.points))
    try:
        return _noise(subject, place, sizes, ends) | _curvature(subject, place, sizes, ends)
    except OutOfTime as error:
        return {"refused": str(error)}


def _noise(subject: Subject, place: int, sizes: Sizes, ends: Progress) -> dict[str, Any]:
    draws = sizes["draws"]
    risk, w = subject.few(place, sizes["samples"])
    how: Any = {"form": "adaptive", "seed": subject.seed, "progress": ends}
    average = average_sharpness(risk, w, noise=NOISE, pairs=draws, **how)
    level = noise_level(risk, w, rise=RISE, copies=draws, **how)
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


def _curvature(subject: Subject, place: int, sizes: Sizes, ends: Progress) -> dict[str, Any]:
    risk, w = subject.few(place, sizes["curved_samples"])
    how: Any = {"seed": subject.seed, "progress": ends}
    hessian = risk.hessian(w, method=sizes["method"])
    scales = perturbation_scales(risk.space, w, "adaptive")
    search: Any = {"max_products": sizes["products"], "basis": sizes["basis"], **how}
    top = top_eigenvalues(Scaled(hessian, scales), 1, rtol=1e-3, **search)
    vectors = top.vectors
    worst = worst_sharpness(
        *(risk, w),
        radius=RADIUS,
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
        "worst_status": worst.status,
        "worst_each": _array(rises),
        "curved_samples": risk.samples,
    }
    del worst
    if sizes["trace_products"]:
        # Of the plain Hessian: what others print, and not invariant.
        total = trace(hessian, rtol=0.05, max_products=sizes["trace_products"], **how)
        found |= {"trace": total.value, "trace_error": total.error, "trace_status": total.status}
    return found


def _second_differences(risk: EmpiricalRisk, w: Tensor, along: Tensor, base: Tensor) -> Tensor:
    """Give each sample's curvature along a direction of unit length in the form's units."""
    # A step of a hundredth of the weights: differences of 1e-4 relative are far above rounding.
    step = 0.01 * float(w.norm() / along.norm())
    higher, lower = (risk.sample_losses(w + sign * step * along) for sign in (1, -1))
    return (higher.double() + lower.double() - 2 * base.double()) / step**2


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()
