"""One pair of the study of connectivity: two networks, copies of one, and the ways between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.basins import disconnectivity_graph
from thalweg.basins.tree import By
from thalweg.connectivity import align, barrier, connect
from thalweg.connectivity.matching import Placement, random_start
from thalweg.connectivity.symmetries import Symmetries, find_symmetries
from thalweg.dynamics import perturb, train
from thalweg.errors import NotDefined, SelfCheckFailed, first_line
from thalweg.landscape.protocols import Landscape
from thalweg.landscape.synthetic import FlatBasins, Valley
from thalweg.problems import load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run
from thalweg.run.seeds import derive_seed, numpy_generator, torch_generator
from thalweg.studies.alike import load_risk

APART, WINDING = "basins", "valley"
KNOWN = {
    APART: "two basins with flat bottoms on a plain: every way between them crosses the plain",
    WINDING: "one valley with a winding floor: a curve along it stays at zero",
}
# Barriers of a pair, in the order of the table: ways between the networks, and the controls.
LINES = (
    "straight",
    "aligned",
    "curve",
    "shuffled",
    "half_aligned",
    "copies",
    "permuted",
    "permuted_aligned",
)
_DIMS, _FLAT = 40, 20


def measure_pair(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train two networks and two copies of the first, and measure the ways between them.

    Returns
    -------
    dict
        ``barrier/*`` of `LINES`, the largest excess of the training loss over the chord, as a share
        of the loss that training takes away (``unit``); NaN where the network cannot be aligned,
        which ``refused`` explains; ``t`` and ``loss/*``, the training loss along three of them.
    """
    seed = arguments["seed"]
    risk = _risk(arguments, seed)
    starts = [_start(arguments, risk, seed), _start(arguments, risk, arguments["rival"])]
    ends = [
        train(risk, w, **arguments["training"], epochs=arguments["epochs"], seed=seed + i).w
        for i, w in enumerate(starts)
    ]
    report(arguments["units"] // 4)
    before, after = (sum(risk.value(w) for w in points) / 2 for points in (starts, ends))
    ways = _Ways(risk, arguments, before - after)
    ways.line("straight", *ends)
    ways.line("copies", *_copies(risk, ends[0], arguments))
    ways.curve(*ends)
    report(arguments["units"] // 2)
    refused = ways.orders(*ends)
    return {
        "unit": ways.unit,
        "loss_start": before,
        "loss_end": after,
        "refused": refused,
        "t": np.linspace(0, 1, arguments["points"]).tolist(),
        **{f"barrier/{name}": ways.barriers.get(name, math.nan) for name in LINES},
        **{f"loss/{name}": losses for name, losses in ways.losses.items()},
        **ways.numbers,
    }


def _risk(arguments: Mapping[str, Any], seed: int) -> EmpiricalRisk:
    return load_risk(arguments, seed=seed)


def _start(arguments: Mapping[str, Any], risk: EmpiricalRisk, seed: int) -> Tensor:
    """Give the initial weights of a seed."""
    return risk.space.pack(load_stored(arguments["problem"], seed=seed).model)


def _copies(risk: EmpiricalRisk, w: Tensor, arguments: Mapping[str, Any]) -> list[Tensor]:
    """Perturb the end of a training twice, and train both on."""
    size = arguments["copy"]
    ends = []
    for i in range(2):
        seed = derive_seed(arguments["seed"], "copy", i)
        noisy = perturb(
            risk.space, w, scale=size["scale"], generator=torch_generator(seed, "noise")
        )
        ends.append(train(risk, noisy, **arguments["training"], epochs=size["epochs"], seed=seed).w)
    return ends


class _Ways:
    """Barriers and losses by name, in units of the loss that training takes away."""

    def __init__(self, risk: EmpiricalRisk, arguments: Mapping[str, Any], unit: float) -> None:
        self.risk, self.arguments, self.unit = risk, arguments, unit
        self.seed: int = arguments["seed"]
        self.barriers: dict[str, float] = {}
        self.losses: dict[str, list[float]] = {}
        self.numbers: dict[str, float] = {}

    def line(self, name: str, w0: Tensor, w1: Tensor) -> None:
        """Measure the straight line."""
        along = barrier(self.risk, w0, w1, points=self.arguments["points"], test=False)
        self.barriers[name] = float(along["barrier"].sel(quantity="loss")) / self.unit
        if name in ("straight", "aligned"):
            self.losses[name] = along["loss"].values.tolist()

    def curve(self, w0: Tensor, w1: Tensor) -> None:
        """Search for a curve of low loss."""
        options: dict[str, Any] = {**self.arguments["curve"], "points": self.arguments["points"]}
        path = connect(self.risk, w0, w1, test=False, seed=self.seed, **options)
        self.barriers["curve"] = path.barrier / self.unit
        self.losses["curve"] = path.profile["loss"].values.tolist()

    def orders(self, w0: Tensor, w1: Tensor) -> str:
        """Align the second network, and a copy of the first in random order; say why not."""
        options: dict[str, Any] = {**self.arguments["align"], "seed": self.seed}
        try:
            symmetries = find_symmetries(self.risk, w0)
            aligned = align(self.risk, w0, w1, **options)
        except (NotDefined, SelfCheckFailed) as error:
            return first_line(error)
        rng = numpy_generator(self.seed, "random orders")
        self.line("aligned", w0, aligned.w)
        self.line("shuffled", w0, _shuffled(symmetries, self.risk, w1, rng))
        self.line("half_aligned", w0, _shuffled(symmetries, self.risk, aligned.w, rng, share=0.5))
        permuted = _shuffled(symmetries, self.risk, w0, rng)
        self.line("permuted", w0, permuted)
        self.line("permuted_aligned", w0, align(self.risk, w0, permuted, **options).w)
        self.numbers = {
            "cost": aligned.cost,
            "unaligned": aligned.unaligned,
            "bound": aligned.bound,
        }
        return ""


def _shuffled(
    symmetries: Symmetries,
    risk: EmpiricalRisk,
    w: Tensor,
    rng: np.random.Generator,
    *,
    share: float = 1.0,
) -> Tensor:
    """Put a share of the units of each set in random order: the same function."""
    state = symmetries.state(w, risk.fixed())
    if share == 1.0:
        placement = random_start(symmetries, state, rng)
    else:
        placement = Placement.start(symmetries, state)
        for block in symmetries.blocks:
            some = rng.choice(block.size, round(share * block.size), replace=False)
            order = np.arange(block.size)
            order[np.sort(some)] = some
            placement.move(block, order)
    return torch.from_numpy(placement.state[: symmetries.weights].copy()).to(w)


def measure_known(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Search for a curve between two lowest points of a landscape of which the answer is known."""
    seed = arguments["seed"]
    landscape, unit, ends = _known(arguments["landscape"], seed)
    path = connect(landscape, *ends, test=False, seed=seed, **arguments["curve"])
    return {"straight": path.line_barrier / unit, "curve": path.barrier / unit, "unit": unit}


def _known(name: str, seed: int) -> tuple[Landscape, float, tuple[Tensor, Tensor]]:
    """Give the landscape, the loss that a descent from a random point takes away, and two ends."""
    generator = torch_generator(seed, "ends", name)
    if name == APART:
        basins = FlatBasins(_DIMS, count=2, flat=_FLAT, seed=seed)
        return basins, basins.height, (basins.centres[0], basins.centres[1])
    valley = Valley(_DIMS, flat=_FLAT, amplitude=2.0, seed=seed)
    along = torch.randn(2, _FLAT, generator=generator, dtype=torch.float64)
    starts = torch.randn(20, _DIMS, generator=generator, dtype=torch.float64)
    unit = float(valley.values_and_gradients(starts)[0].mean())
    return valley, unit, (valley.floor(2 * along[0]), valley.floor(2 * along[1]))


def draw_tree(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train networks with two copies each on one draw, and find all passes between the copies.

    Returns
    -------
    dict
        ``values``, shape (k,); ``passes/*`` by way, shape (k, k): largest training losses.
    """
    seed, parents = arguments["seed"], arguments["parents"]
    risk = _risk(arguments, seed)
    copies: list[Tensor] = []
    for number in range(parents):
        start = _start(arguments, risk, seed + number)
        options: dict[str, Any] = {**arguments["training"], "seed": seed + number}
        end = train(risk, start, epochs=arguments["epochs"], **options).w
        copies += _copies(risk, end, {**arguments, "seed": seed + number})
        report(arguments["units"] * (number + 1) // (2 * parents))
    try:
        find_symmetries(risk, copies[0])
        ways: tuple[By, ...] = ("line", "aligned", "bezier")
    except NotDefined:
        ways = ("line", "bezier")
    graph = disconnectivity_graph(
        risk,
        torch.stack(copies),
        by=ways,
        points=arguments["points"],
        steps=arguments["steps"],
        seed=seed,
    )
    return {
        "values": graph.values.tolist(),
        **{f"passes/{way}": passes.tolist() for way, passes in graph.passes.items()},
    }
