"""Perturbed copies of a point on any landscape, brought back by gradient flow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from thalweg.dynamics import perturb
from thalweg.geometry.spectral_measure import SpectralMeasure, spectral_measure
from thalweg.run import torch_generator
from thalweg.studies.limits import between, flow_back
from thalweg.studies.shares import shares

_PRODUCTS = 60


def perturb_landscape(
    landscape: Any,
    home: Tensor,
    *,
    top: float,
    seed: int,
    scale: float,
    copies: int,
    max_gradients: int,
    measure: Callable[[Tensor], SpectralMeasure] | None = None,
) -> dict[str, Any]:
    """
    Perturb a point several times, follow the flow, and bound what is left of the perturbation.

    Parameters
    ----------
    landscape : Landscape
        Nowhere below zero.
    home : Tensor
        Shape (W,).
    top : float
        The largest curvature there.
    seed : int
        Of the noise.
    scale : float
        Of the noise, relative to each layer's weights.
    copies : int
        How many; copies 0 and 1, 2 and 3, ... are siblings.
    max_gradients : int
        The longest training.
    measure : callable, optional
        Of a displacement, along the curvatures at home; by default by Hessian products.

    Returns
    -------
    dict
        ``copies`` and ``siblings``: rows; ``shares`` of the first copy's displacement along
        curvatures; ``path``, shape (n, 3): copy, time and distance from home.
    """
    starts = [
        perturb(landscape.space, home, scale=scale, generator=torch_generator(seed, "flow", copy))
        for copy in range(copies)
    ]
    flows, limits, paths = zip(
        *(
            flow_back(landscape, home, start, top=top, max_gradients=max_gradients)
            for start in starts
        ),
        strict=True,
    )
    rows = [
        limit.to_dict()
        | {"copy": copy, "value": flow.value, "ended": flow.ended, "gradients": flow.gradients}
        | {"time": flow.time * top, "noise": float((start - home).norm())}
        for copy, (limit, flow, start) in enumerate(zip(limits, flows, starts, strict=True))
    ]
    siblings = [
        between(
            (flows[i].w, flows[i + 1].w),
            (starts[i], starts[i + 1]),
            (flows[i].value, flows[i + 1].value),
            (limits[i], limits[i + 1]),
            top,
        ).to_dict()
        for i in range(0, copies - 1, 2)
    ]
    along = measure or partial(spectral_measure, landscape.hessian(home), products=_PRODUCTS)
    displacements = {"noise": starts[0] - home, "left": flows[0].w - home}
    return {
        "copies": rows,
        "siblings": siblings,
        "shares": {name: shares(along(v), top) for name, v in displacements.items()},
        "path": np.array([(copy, *at) for copy, path in enumerate(paths) for at in path]),
    }
