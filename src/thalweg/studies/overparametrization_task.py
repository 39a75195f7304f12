"""One network of the study of overparametrization: trained to a loss, and measured there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from thalweg.geometry import degeneracy
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run
from thalweg.run.seeds import torch_generator
from thalweg.studies.alike import load_risk
from thalweg.studies.equal_loss import train_to_level
from thalweg.studies.invariant_measures import MEASURES, measure_robustness
from thalweg.studies.narrow_networks import CLASSES

_NULLITIES = ("rank", "rank_repeated", "symmetries", "dead")


def measure_network(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train to the level, and take errors, robustness and the Jacobian's rank.

    Robustness is NaN where the level was not reached; the rank is taken wherever training ended.
    """
    seed = arguments["seed"]
    risk = load_risk(arguments, seed=seed)
    end = train_to_level(
        risk,
        risk.space.pack(risk.problem.model),
        arguments["training"],
        level=arguments["level"],
        epochs=arguments["epochs"],
        descent=arguments["descent"],
        seed=seed,
    )
    found = dict.fromkeys(MEASURES, math.nan)
    if end.status == "at level":
        found |= measure_robustness(risk, end.w, arguments["measures"], seed=seed)
    else:
        found |= _errors(risk, end.w)
    answer: dict[str, Any] = {
        "status": end.status,
        "weights": risk.space.size,
        "samples": risk.samples,
        "equations": risk.samples * CLASSES,
        "inequalities": risk.samples * (CLASSES - 1),
        "shuffled_test_error": _shuffled_error(risk, end.w, seed),
        "misclassified": round(float(found["error"]) * risk.samples),
        "steps": end.steps,
        "descended": end.descended,
        **found,
    }
    ranks = _ranks(risk, end.w) if arguments["nullity"] else dict.fromkeys(_NULLITIES, math.nan)
    return answer | ranks


def _errors(risk: EmpiricalRisk, w: Tensor) -> dict[str, float]:
    found = dict(risk.evaluate(w))
    test = risk.held_out()
    return found | ({} if test is None else {"test_error": test.evaluate(w)["error"]})


def _shuffled_error(risk: EmpiricalRisk, w: Tensor, seed: int) -> float:
    """Give the test error where the test images' labels are shuffled among them."""
    test = risk.held_out()
    if test is None or test.data.targets is None:
        return math.nan
    order = torch.randperm(test.samples, generator=torch_generator(seed, "shuffled test labels"))
    found = test.draw(torch.arange(test.samples)).features(w).argmax(1).cpu()
    return float((found != test.data.targets.cpu()[order]).double().mean())


def _ranks(risk: EmpiricalRisk, w: Tensor) -> dict[str, float]:
    """Give the rank of J, of J where a tenth of the samples stand twice, and what explains it."""
    found = degeneracy(risk, w)
    again = degeneracy(_repeated(risk), w)
    split = found.split
    return {
        "rank": found.rank,
        "rank_repeated": again.rank,
        "symmetries": split.get("rescaling", 0),
        "dead": split.get("dead units", 0) + split.get("dead inputs", 0),
    }


def _repeated(risk: EmpiricalRisk) -> EmpiricalRisk:
    """Put the first tenth of the samples in the place of the last."""
    problem, samples = risk.problem, risk.samples
    order = torch.arange(samples)
    count = max(1, samples // 10)
    order[samples - count :] = order[:count]
    train = problem.samples("train").take(order)
    return EmpiricalRisk(replace(problem, train=train), check=risk.checked or False)
