"""The parts of a check-up, each measured by itself: fit, flatness, lines, degeneracy, surface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity import barrier
from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.geometry import degeneracy, top_eigenvalues, trace
from thalweg.geometry.noise import noise_level
from thalweg.geometry.scales import Scaled, perturbation_scales
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.measurements import checkup_plan
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.dataset_codec import pack
from thalweg.risk import EmpiricalRisk

Array = NDArray[np.float64]
# Relative to the weights: the noise, the distance of the worst direction; rise of the loss.
NOISE, RADIUS, RISE = 0.05, 0.01, 0.1


def there(subject: Subject) -> dict[str, Any]:
    """Say what is there: weights, frozen ones, buffers, modes, and what the self-check compared."""
    model, risk = subject.problem.model, subject.risk
    parameters = list(model.parameters())
    modes = {type(m).__name__ for m in model.modules() if m.training and not list(m.children())}
    checked = risk.checked
    return {
        "weights": risk.space.size,
        "layers": len(risk.space.layers),
        "frozen": sum(p.numel() for p in parameters if not p.requires_grad),
        "buffers": sum(b.numel() for b in model.buffers()),
        "training_mode": sorted(modes),
        "batchnorm": risk.provenance.batchnorm,
        "dtype": str(risk.dtype).removeprefix("torch."),
        "self_check": "not made" if checked is None else checked.words,
        "notes": [note for point in subject.points for note in point.notes],
    }


def fit(subject: Subject, place: int) -> dict[str, Any]:
    """Evaluate every sample at a point: losses, errors, outputs, on train and test."""
    risk, w = subject.at(place)
    answer: dict[str, Any] = {"weights": w.detach().double().cpu().numpy()}
    other = risk.held_out()
    for name, part in (("train", risk), ("test", other)):
        if part is not None:
            found = part.evaluate_samples(w)
            answer |= {f"{name}_{key}": _array(values) for key, values in found.items()}
    judged = risk if other is None else other
    outputs = _outputs(judged, w)
    if outputs is not None:
        answer["outputs"] = outputs.float().cpu().numpy()
    answer["kind"] = judged.problem.output_kind
    answer["judged"] = "train" if other is None else "test"
    return answer


def _outputs(risk: EmpiricalRisk, w: Tensor) -> Tensor | None:
    """Give the outputs of every sample, shape (N, C); None where the loss shows none."""
    drawn = risk.draw(torch.arange(risk.samples))
    return drawn.features(w) if drawn.by_outputs else None


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def flatness(subject: Subject, place: int, sizes: dict[str, int]) -> dict[str, Any]:
    """
    Measure how flat the loss is around a point, by measures that layer rescaling leaves alone.

    Each comes with what it is a mean of: over noise, over samples, over copies.
    """
    draws, seed = sizes["draws"], subject.seed
    risk, w = subject.few(place, sizes["samples"])
    average = average_sharpness(risk, w, noise=NOISE, form="adaptive", pairs=draws, seed=seed)
    level = noise_level(risk, w, rise=RISE, form="adaptive", copies=draws, seed=seed)
    few, w = subject.few(place, sizes["curved_samples"])
    return {
        "loss": risk.value(w),
        "average": average.value,
        "average_each": np.array(average.rises),
        "loss noise": level.value,
        "loss noise_each": level.copies,
        "loss noise_low": level.low,
        "loss noise_high": level.high,
        **_curved(few, w, seed),
        "samples": risk.samples,
        "curved_samples": few.samples,
    }


def _curved(risk: EmpiricalRisk, w: Tensor, seed: int) -> dict[str, Any]:
    hessian, scales = risk.hessian(w), perturbation_scales(risk.space, w, "adaptive")
    products, gradients = checkup_plan.PRODUCTS, checkup_plan.GRADIENTS
    top = top_eigenvalues(Scaled(hessian, scales), 1, rtol=1e-3, max_products=products, seed=seed)
    worst = worst_sharpness(
        risk,
        w,
        radius=RADIUS,
        form="adaptive",
        max_gradients=gradients,
        eigenvectors=top.vectors,
        seed=seed,
    )
    # The trace is of the plain Hessian: what others print, and not invariant.
    total = trace(hessian, rtol=0.05, max_products=checkup_plan.TRACE_PRODUCTS, seed=seed)
    base = risk.sample_losses(w)
    rises = risk.sample_losses(w + worst.displacement) - base
    along = (scales * top.vectors[:, 0].double().cpu()).to(w.device, w.dtype)
    return {
        "eigenvalue": float(top.values[0]),
        "eigenvalue_error": float(top.errors[0]),
        "eigenvalue_status": top.status,
        "eigenvalue_each": _array(_second_differences(risk, w, along, base)),
        "worst": worst.value,
        "worst_status": worst.status,
        "worst_each": _array(rises),
        "trace": total.value,
        "trace_error": total.error,
        "trace_status": total.status,
    }


def _second_differences(risk: EmpiricalRisk, w: Tensor, along: Tensor, base: Tensor) -> Tensor:
    """Give each sample's curvature along a direction of unit length in the form's units."""
    # A step of a hundredth of the weights: differences of 1e-4 relative are far above rounding.
    step = 0.01 * float(w.norm() / along.norm())
    higher, lower = (risk.sample_losses(w + sign * step * along) for sign in (1, -1))
    return (higher.double() + lower.double() - 2 * base.double()) / step**2


def line(subject: Subject, first: int, last: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Measure the line between two points."""
    risk = subject.moving(sizes["samples"])
    ends = (subject.points[first], subject.points[last])
    return pack({"line": barrier(risk, *ends, points=sizes["points"])})


def kernel(subject: Subject, place: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Measure rank and nullity at a point, on some samples; the reason where it cannot be."""
    risk, w = subject.few(place, sizes["samples"])
    try:
        found = degeneracy(risk, w, probes=2, steps=10, seed=subject.seed)
    except ThalwegError as error:
        return {"refused": str(error).partition("\n")[0]}
    return {**found.to_dict(), "samples": risk.samples}


def surface(subject: Subject, sizes: dict[str, int]) -> dict[str, Any]:
    """Measure the loss on the line or the plane through the points."""
    from thalweg.measurements.planes import lay_plane
    from thalweg.measurements.point import MeasuredPoint
    from thalweg.measurements.surface_picture import picture
    from thalweg.problems.between import States

    risk = subject.moving(sizes["samples"])
    dims, count = sizes["dims"], len(subject.points)
    shown = list(subject.points[: dims + 1 if count > 1 else 1])
    states = States.of(risk, shown)
    along = States.of(risk, subject.along) if subject.along else None
    measured = MeasuredPoint(
        risk=risk,
        states=states,
        names=tuple(subject.names[: len(shown)]),
        given=True,
        along=along,
        steps=tuple(range(len(subject.along))),
        trajectory="trajectory" if subject.along else "",
    )
    rule = "points" if count > 1 else "random"
    options = {"directions": rule, "dims": dims, "points": sizes["points"], "extent": None}
    options |= {"normalize": "filter", "tolerance": None, "relative": True, "test": False}
    options["seed"] = subject.seed
    try:
        plane = lay_plane(measured, options)
    except InvalidArgument:  # checkpoints that coincide, or lie on one line, span no such plane
        options["directions"] = "random"
        plane = lay_plane(replace(measured, states=States.of(risk, shown[:1])), options)
    return pack(picture(measured, plane, options))
