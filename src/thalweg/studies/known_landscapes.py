"""Landscapes whose answer is known, put through the protocol: bowls, and a trough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics import perturb, train
from thalweg.landscape.quadratic import Quadratic
from thalweg.run import Report, Run, Task, torch_generator
from thalweg.studies.displacement import ELSEWHERE
from thalweg.studies.flow_copies import perturb_landscape

WEIGHTS, STEEP = 5000, 50
_NAIVE_STEPS, _NAIVE_BACK = 80, 0.1


@dataclass(frozen=True)
class Known:
    """
    A quadratic landscape.

    Attributes
    ----------
    words : str
        What it is.
    flat : int
        Dimension of its set of lowest points.
    curvatures : Tensor
        Its eigenvalues.
    height : float
        Of its lowest points: zero error is never reached where it is above zero.
    """

    words: str
    flat: int
    curvatures: Tensor
    height: float = 0.0

    @property
    def landscape(self) -> Quadratic:
        """The landscape."""
        return Quadratic(self.curvatures, height=self.height)


def _steep_and(slow: float) -> Tensor:
    return torch.cat([torch.ones(STEEP), torch.full((WEIGHTS - STEEP,), slow)]).double()


KNOWN: dict[str, Known] = {
    "round": Known(
        "a strongly convex bowl, curvatures from 0.5 to 2",
        0,
        torch.linspace(0.5, 2.0, 64, dtype=torch.float64),
    ),
    "two-level": Known(
        f"a strictly convex bowl, {STEEP} curvatures of 1 and {WEIGHTS - STEEP:,} of 1e-4",
        0,
        _steep_and(1e-4),
    ),
    "log-uniform": Known(
        f"a strictly convex bowl, {WEIGHTS:,} curvatures log-uniform over six decades",
        0,
        torch.logspace(-6, 0, WEIGHTS, dtype=torch.float64),
    ),
    "raised": Known(
        f"a trough with {WEIGHTS - STEEP:,} flat directions that is nowhere at zero",
        WEIGHTS - STEEP,
        _steep_and(0.0),
        height=0.5,
    ),
    "trough": Known(
        f"a trough at zero with {WEIGHTS - STEEP:,} flat directions of {WEIGHTS:,}",
        WEIGHTS - STEEP,
        _steep_and(0.0),
    ),
}
# For which the claims are wrong.
CONTROLS = ("round", "two-level", "log-uniform", "raised")


def known_task(config: dict[str, Any], name: str) -> Task:
    """
    Specify the protocol on a landscape whose answer is known.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    name : str
        Of `KNOWN`.
    """
    study = config["perturb_and_return"]
    arguments = {
        "landscape": name,
        "seed": config["seed"],
        "scale": study["scale"],
        # Four disjoint pairs of siblings: three degrees of freedom for their interval.
        "copies": 8,
        "max_gradients": study["max_gradients"],
    }
    return Task(
        "thalweg.studies.known_landscapes:perturb_known",
        arguments,
        label=f"flow on {KNOWN[name].words}",
        units=5,
    )


def perturb_known(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Perturb the lowest point of a known landscape, and descend by both protocols."""
    landscape = KNOWN[arguments["landscape"]].landscape
    top = float(landscape.curvature.max())
    figures = perturb_landscape(
        landscape,
        landscape.centre,
        top=top,
        **{key: arguments[key] for key in ("seed", "scale", "copies", "max_gradients")},
    )
    return figures | {"top": top, "naive": _naive(landscape, arguments)}


def _naive(landscape: Quadratic, arguments: dict[str, Any]) -> dict[str, Any]:
    """Read the same copies as the paper does: where they are after a training of fixed length."""
    hits, starts, ends = 0, [], []
    for copy in range(arguments["copies"]):
        noise = torch_generator(arguments["seed"], "flow", copy)
        start = perturb(
            landscape.space, landscape.centre, scale=arguments["scale"], generator=noise
        )
        end = train(
            landscape, start, optimizer="gd", lr=0.5, schedule="constant", steps=_NAIVE_STEPS
        ).w
        moved = float((end - landscape.centre).norm() / (start - landscape.centre).norm())
        hits += landscape.value(end) <= _NAIVE_BACK * landscape.value(start) and moved >= ELSEWHERE
        starts.append(start)
        ends.append(end)
    apart = float((ends[0] - ends[1]).norm() / (starts[0] - starts[1]).norm())
    return {"hits": int(hits), "copies": arguments["copies"], "apart": apart}
