"""One training of the study of selection, and what is measured where it ends."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from thalweg.landscape.protocols import Landscape
from thalweg.run import Report, Run
from thalweg.studies.alike import load_risk
from thalweg.studies.equal_loss import descend, train_to_level
from thalweg.studies.invariant_measures import (
    MEASURES,
    measure_robustness,
    measure_volume,
    no_volume,
)
from thalweg.studies.selection_landscapes import ALIKE, known_landscape
from thalweg.studies.small_network import SmallLinear, SmallNetwork

_LONGEST = 5000


def select(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train by one noise to the level, and measure robustness there; NaN of all where it is not."""
    landscape, w0 = _begin(arguments)
    end = train_to_level(
        landscape,
        w0,
        arguments["training"],
        level=arguments["level"],
        epochs=arguments["epochs"],
        descent=arguments["descent"],
        seed=arguments["seed"],
    )
    answer: dict[str, Any] = {
        "status": end.status,
        "loss": end.loss,
        "steps": end.steps,
        "descended": end.descended,
        "passed": end.passed,
        "distance": float((end.w.double() - w0.double()).norm()),
        "weights": landscape.space.size,
    }
    if end.status != "at level":
        return answer | dict.fromkeys(MEASURES, math.nan)
    found = measure_robustness(landscape, end.w, arguments["measures"], seed=arguments["seed"])
    return answer | found


def _begin(arguments: dict[str, Any]) -> tuple[Landscape, Tensor]:
    if "landscape" in arguments:
        return known_landscape(arguments["landscape"], arguments["seed"])
    risk = load_risk(arguments, seed=arguments["seed"])
    return risk, risk.space.pack(risk.problem.model)


def volume(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train the small network, descend to the bottom below, and ask for volume and coefficient."""
    seed, network = arguments["seed"], _small(arguments)
    training = arguments["training"]
    end = train_to_level(
        network,
        network.beginning(seed),
        training,
        level=arguments["level"],
        epochs=arguments["epochs"],
        descent=arguments["descent"],
        seed=seed,
    )
    answer: dict[str, Any] = {"status": end.status, "weights": network.space.size}
    if end.status == "diverged":
        return answer | {"loss": math.nan} | no_volume("The training diverged.")
    w, loss, _ = descend(
        network, end.w, level=arguments["bottom"], lr=float(training["lr"]), most=_LONGEST
    )
    report(1)
    return answer | {"loss": loss} | measure_volume(network, w, arguments["volume"], seed=seed)


def _small(arguments: dict[str, Any]) -> SmallNetwork | SmallLinear:
    sizes = {key: arguments[key] for key in ("samples", "inputs", "hidden")}
    network = SmallNetwork(**sizes, seed=arguments["seed"])
    if arguments["landscape"] == ALIKE:
        weights = network.space.size
        return SmallLinear(samples=sizes["samples"], inputs=weights, seed=arguments["seed"])
    return network
