"""What the study of degeneracy does to one network: train it to a zero, certify, take ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.certificates import Certificate, certify_margin, certify_zero
from thalweg.certificates.store import write_certificate
from thalweg.curvature.ranks import singular_cutoff
from thalweg.dynamics import train
from thalweg.geometry import degeneracy
from thalweg.problems import MLP, Problem, load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import Report, Run
from thalweg.studies.alike import risk_alike

# Steps of Gauss-Newton: all, and for the control that is stopped on the way.
_STEPS, _EARLY = 40, 1
_CLASSES = 10
# Accuracy of the products that write out a Hessian.
_PRODUCTS = 1e-13


def measure_zero(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train one network on digits by Gauss-Newton, certify a zero, and take the nullity.

    The cases: ``narrow`` has far fewer weights than equations, ``below`` just fewer, ``above`` just
    more; in ``contradictory`` one sample stands twice with two targets; ``early`` is stopped after
    one step; in ``repeated`` a tenth of the samples stand twice, so that equations depend on one
    another.
    """
    risk, w0 = _regression(arguments)
    steps = _EARLY if arguments["case"] == "early" else _STEPS
    w = train(risk, w0, optimizer="gauss-newton", steps=steps).w
    proof = certify_zero(risk, w)
    certificate = proof.to_dict()
    keys = ("residual", "singular_value", "lipschitz", "radius", "distance")
    row = {
        "verdict": proof.verdict,
        "reason": proof.reasons[0] if proof.reasons else "",
        "weights": risk.space.size,
        "equations": _equations(risk),
        "certificate": _written(run, proof, arguments) if arguments["case"] == "network" else "",
        "assumptions": "; ".join(proof.assumptions),
        **{key: np.nan if certificate[key] is None else certificate[key] for key in keys},
    }
    if arguments["case"] not in ("network", "repeated"):
        return row
    degrees = degeneracy(risk, w)
    return row | {
        "rank": degrees.rank,
        "nullity": degrees.nullity,
        "threshold": degrees.threshold,
        "above": degrees.above,
        "below": degrees.below,
        "density_low": degrees.estimators["density_low"],
        "density_high": degrees.estimators["density_high"],
        "density_agrees": bool(degrees.estimators["agree"]),
        "causes": np.array(list(degrees.split)),
        "split": np.array(list(degrees.split.values())),
        "eigenvalues": degrees.eigenvalues,
    }


def _written(run: Run, proof: Certificate, arguments: dict[str, Any]) -> str:
    """Write a proof to a file that can be verified, and give its name in the run's folder."""
    if proof.verdict != "certified":
        return ""
    path = run.inside("certificates", f"zero-{arguments['seed']}.json")
    path.parent.mkdir(exist_ok=True)
    write_certificate(proof, path)
    for file in (path, path.with_suffix(".safetensors")):
        run.cover("certificates", file.name)
    return path.relative_to(run.path).as_posix()


def measure_hessian(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take the nullity of the Hessian itself, written out in float64, of a small network."""
    risk, w0 = _regression(arguments)
    steps = _EARLY if arguments["case"] == "early" else _STEPS
    w = train(risk, w0, optimizer="gauss-newton", steps=steps).w
    dense = risk.hessian(w).to_dense()
    values = torch.linalg.eigvalsh((dense + dense.T) / 2).abs()
    zero = singular_cutoff(tuple(dense.shape), rounding=_PRODUCTS) ** 2
    return {
        "verdict": certify_zero(risk, w).verdict,
        "weights": risk.space.size,
        "equations": _equations(risk),
        "nullity": int((values <= zero * values.max()).sum()),
    }


def measure_box(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """
    Train one classifier, prove a box of weights with zero error, and attack it.

    In the case ``contradictory`` the label of one sample is changed after the training: the network
    then misclassifies it.
    """
    x, labels = _digits(arguments)
    model = MLP(64, (arguments["width"],), _CLASSES, seed=arguments["seed"])
    risk = risk_alike(Problem(model, nn.CrossEntropyLoss(), (x, labels), name="digits"))
    w = train(
        risk,
        risk.space.pack(model),
        epochs=arguments["epochs"],
        lr=0.05,
        momentum=0.9,
        batch_size=20,
        seed=arguments["seed"],
    ).w
    if arguments["case"] == "contradictory":
        labels = labels.clone()
        labels[0] = (labels[0] + 1) % _CLASSES
        risk = risk_alike(Problem(model, nn.CrossEntropyLoss(), (x, labels), name="digits"))
    certificate = certify_margin(risk, w)
    return {
        "verdict": certificate.verdict,
        "reason": certificate.reasons[0] if certificate.reasons else "",
        "half_width": certificate.half_width,
        "attacked": certificate.attacked,
        "margin": certificate.margin,
        "dimension": certificate.dimension,
        "samples": certificate.samples,
    }


def _digits(arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Give images, flat and in float64 where wanted, of a random order of the seed's own."""
    problem = load_problem(
        "digits", train_size=arguments["samples"], data_seed=arguments["seed"], network="mlp"
    )
    x, labels = problem.train
    return x.flatten(1), labels


def _regression(arguments: dict[str, Any]) -> tuple[EmpiricalRisk, Tensor]:
    case, outputs = arguments["case"], arguments["outputs"]
    width, samples = _width(arguments)
    x, labels = _digits(arguments | {"samples": samples})
    # The last classes' outputs are left out: those of all ten sum to one, and are not independent.
    y = F.one_hot(labels, _CLASSES)[:, :outputs].double()
    x = x.double()
    if case in ("contradictory", "repeated"):
        count = 1 if case == "contradictory" else max(1, len(x) // 10)
        x = torch.cat([x[:-count], x[:count]])
        again = (1 - y[:count]) if case == "contradictory" else y[:count]
        y = torch.cat([y[:-count], again])
    model = MLP(64, (width,), outputs, arguments["activation"], seed=arguments["seed"]).double()
    problem = Problem(model, nn.MSELoss(), (x, y), name="digits")
    risk = risk_alike(problem, dtype=torch.float64)
    return risk, risk.space.pack(model)


def _width(arguments: dict[str, Any]) -> tuple[int, int]:
    """Give hidden units and samples of a case, of which W = (64 + 1 + C) h + C and M = N C."""
    case, outputs, samples = arguments["case"], arguments["outputs"], arguments["samples"]
    most = (samples * outputs - outputs - 1) // (65 + outputs)
    if case == "narrow":
        return max(1, min(arguments["width"] // 8, most)), samples
    if case == "above":
        return most + 1, samples
    if case == "below":
        # The network of the case above, on just as many more samples as it takes.
        weights = (65 + outputs) * (most + 1) + outputs
        return most + 1, weights // outputs + 1
    return arguments["width"], samples


def _equations(risk: EmpiricalRisk) -> int:
    targets = risk.problem.samples("train").targets
    assert targets is not None
    return targets.numel()
