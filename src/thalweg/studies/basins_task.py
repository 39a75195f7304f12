"""Signatures of the study of basins: of networks, and of landscapes whose family is known."""

from __future__ import annotations

from typing import Any

import torch

from thalweg.basins import (
    FAMILIES,
    Design,
    Signature,
    fit_basins,
    posterior_predictive,
    signature,
    simulate,
)
from thalweg.basins.families import draw_parameters
from thalweg.basins.fit import Library
from thalweg.landscape.synthetic import FlatBasins
from thalweg.problems import load_stored
from thalweg.run import Report, Run
from thalweg.run.seeds import derive_seed
from thalweg.studies.alike import load_risk

PLAIN = "plain"
"""Basins on a plain on which descents stop: of none of the families."""
_DIMS, _FLAT, _HEIGHT, _STEPS = 60, 20, 1.0, 80


def measure_networks(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Take the signature of networks of one width on one draw of samples, and fit the families.

    Returns
    -------
    dict
        As `_answer` gives it; with ``predictive``, too, what is simulated from the best family.
    """
    seed = arguments["seed"]
    risk = load_risk(arguments, seed=seed)
    design = Design(parents=arguments["parents"], copies=arguments["copies"])
    starts = [
        risk.space.pack(
            load_stored(arguments["problem"], seed=derive_seed(seed, "parent", i)).model
        )
        for i in range(design.parents)
    ]
    training = arguments["training"] | {"steps": arguments["steps"]}
    measured = signature(risk, torch.stack(starts), training=training, design=design, seed=seed)
    return _answer(measured, draws=arguments["predictive"]) | {"weights": risk.space.size}


def measure_known(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take the signature of a landscape of a known family, or of none, and fit the families."""
    family, seed = arguments["family"], arguments["seed"]
    design = Design(parents=arguments["parents"], copies=arguments["copies"])
    if family in FAMILIES:
        parameters = draw_parameters(family, arguments["parameters"])
        return _answer(simulate(family, seed, design=design, params=parameters))
    plain = FlatBasins(_DIMS, count=design.parents, flat=_FLAT, height=_HEIGHT, seed=seed)
    noise = torch.randn(
        plain.centres.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    training = {"lr": 0.05, "steps": _STEPS, "batch_size": None}
    starts = plain.centres + 0.1 * noise
    return _answer(signature(plain, starts, training=training, design=design, seed=seed))


def _answer(measured: Signature, *, draws: int = 0) -> dict[str, Any]:
    """Write down a signature and the families' fit: all pairs, posterior, misfit, family."""
    library = Library.shipped()
    fit = fit_basins(measured, library)
    answer: dict[str, Any] = {
        "columns": {name: column.tolist() for name, column in measured.columns.items()},
        "unit": measured.unit,
        "provenance": {name: str(word) for name, word in measured.provenance.items()},
        **fit.to_dict(),
    }
    if draws:
        drawn = posterior_predictive(fit, library, draws=draws)
        answer["predictive"] = {
            "feature": [str(name) for name in drawn["feature"].values],
            **{name: drawn[name].values.tolist() for name in ("observed", "low", "high", "inside")},
        }
    return answer


def signature_of(outcome: dict[str, Any], *, parents: int, copies: int) -> Signature:
    """Read a signature that a task wrote down."""
    import numpy as np

    columns = {name: np.asarray(column) for name, column in outcome["columns"].items()}
    design = Design(parents=parents, copies=copies)
    return Signature(design, columns, outcome["unit"], outcome["provenance"])
