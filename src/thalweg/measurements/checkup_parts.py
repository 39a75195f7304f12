"""The parts of a check-up, each measured by itself: fit, lines, degeneracy, surface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity import barrier
from thalweg.errors import InvalidArgument
from thalweg.geometry import degeneracy
from thalweg.measurements.checkup_clock import ending
from thalweg.measurements.checkup_sizes import Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.dataset_codec import pack
from thalweg.problems.loss import pair
from thalweg.risk import EmpiricalRisk

Array = NDArray[np.float64]
_NOT_CHECKED = "not made: it would have taken too much of the time; give more --minutes"
# Samples whose targets are read at once.
_AT_ONCE = 1000


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
        "self_check": _NOT_CHECKED if checked is None else checked.words,
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
        answer |= _margins(judged, outputs.double().cpu())
    answer["kind"] = judged.problem.output_kind
    answer["judged"] = "train" if other is None else "test"
    return answer


def _outputs(risk: EmpiricalRisk, w: Tensor) -> Tensor | None:
    """Give the outputs of every sample, shape (N, C); None where the loss shows none."""
    drawn = risk.draw(torch.arange(risk.samples))
    return drawn.features(w) if drawn.by_outputs else None


def _margins(risk: EmpiricalRisk, outputs: Tensor) -> dict[str, Any]:
    """
    Give each sample's margin: its own class's output over the highest other.

    In units of the outputs' root mean square about their mean, so that it depends on the function
    alone. Empty where targets are no classes.
    """
    kind = risk.problem.output_kind
    if kind != "classes" or outputs.dim() != 2 or outputs.shape[1] < 2:
        return {}
    parts = torch.arange(risk.samples).split(_AT_ONCE)
    targets = [pair(risk.data.take(part))[1] for part in parts]
    if any(not isinstance(t, Tensor) or t.dim() != 1 or t.is_floating_point() for t in targets):
        return {}
    labels = torch.cat(targets).cpu().long()[:, None]
    known = (labels >= 0) & (labels < outputs.shape[1])  # others are passed over by the loss
    labels = labels.clamp(0, outputs.shape[1] - 1)
    own = outputs.gather(1, labels)[:, 0]
    others = outputs.scatter(1, labels, -torch.inf).amax(1)
    unit = (outputs - outputs.mean(1, keepdim=True)).square().sum(1).mean().sqrt()
    return {"margins": _array(((own - others) / unit)[known[:, 0]])} if unit > 0 else {}


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def line(subject: Subject, first: int, last: int, sizes: Sizes) -> dict[str, Any]:
    """Measure the line between two points."""
    risk = subject.moving(sizes["samples"])
    ends = (subject.points[first], subject.points[last])
    in_time = ending(sizes["most"] / len(subject.pairs))
    return pack({"line": barrier(risk, *ends, points=sizes["points"], progress=in_time)})


def kernel(subject: Subject, place: int, sizes: Sizes) -> dict[str, Any]:
    """Measure rank and nullity at a point, on some samples."""
    risk, w = subject.few(place, sizes["samples"])
    ends = ending(sizes["most"] / len(subject.points))
    found = degeneracy(risk, w, probes=2, steps=10, seed=subject.seed, progress=ends)
    return {**found.to_dict(), "samples": risk.samples}


def surface(subject: Subject, sizes: Sizes) -> dict[str, Any]:
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
