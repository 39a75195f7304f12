"""Small networks with polynomial activations: from a configuration to a model and its algebra."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from thalweg.algebra import Network, ZeroSystem, load_solution, random_system, read_model
from thalweg.algebra import zero_system as exact_system
from thalweg.polynomial import PolynomialActivation
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.studies.alike import risk_alike

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, eq=False)
class PolynomialNetwork:
    """
    A torch model and the network of polynomials read from it.

    Parameters
    ----------
    model : nn.Sequential
        In float64.
    network : Network
        What `read_model` makes of it.
    shape : tuple of int
        Of one input of the model.
    """

    model: nn.Sequential
    network: Network
    shape: tuple[int, ...]

    def system(self, samples: int, seed: int, targets: str = "generic") -> ZeroSystem:
        """
        Draw samples with generic targets, or with the outputs of random weights (``"planted"``).

        Returns
        -------
        ZeroSystem
            Of zero error on them.
        """
        system = random_system(self.network, samples=samples, seed=seed)
        if targets == "generic":
            return system
        weights = np.random.default_rng([seed, 31]).normal(size=(1, system.weights))
        outputs = system.evaluate(weights)[0].reshape(system.targets.shape)
        return exact_system(self.network, system.inputs, outputs)

    def risk(self, system: ZeroSystem) -> EmpiricalRisk:
        """Give the squared error of the model on the samples of a system, in float64."""
        inputs = torch.from_numpy(system.inputs).reshape(-1, *self.shape)
        data = (inputs, torch.from_numpy(system.targets))
        problem = Problem(self.model, functional.mse_loss, data)
        return risk_alike(problem, code="polynomial network", dtype=torch.float64, device="cpu")

    def loaded(self, system: ZeroSystem, weights: Any, signs: Any) -> torch.Tensor:
        """Load a real solution into the model and read its weight vector."""
        load_solution(self.model, system, weights, signs)
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])


def build(spec: dict[str, Any]) -> PolynomialNetwork:
    """
    Make the network of a configuration.

    Parameters
    ----------
    spec : dict
        ``activation`` (coefficients from the constant up), ``bias`` (of hidden units), and either
        ``widths`` of a dense network, or ``positions``, ``kernel`` and ``channels`` of a
        convolution in one dimension with a dense output.

    Examples
    --------
    >>> build({"widths": [2, 3, 1], "activation": [0, 0, 0, 1], "bias": True}).network.size
    12
    """
    activation = spec["activation"]
    if "widths" in spec:
        widths = spec["widths"]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(before, after, bias=spec["bias"]), _activation(activation)]
        model = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False)).double()
        return PolynomialNetwork(model, read_model(model), (widths[0],))
    positions, kernel, channels = spec["positions"], spec["kernel"], spec["channels"]
    read = channels * (positions - kernel + 1)
    model = nn.Sequential(
        nn.Conv1d(1, channels, kernel, bias=spec["bias"]),
        _activation(activation),
        nn.Flatten(),
        nn.Linear(read, 1, bias=False),
    ).double()
    return PolynomialNetwork(model, read_model(model, shape=(positions,)), (1, positions))


def described(spec: dict[str, Any]) -> str:
    """
    Name a network.

    Examples
    --------
    >>> described({"widths": [2, 3, 1], "activation": [0, 0, 0, 1], "bias": True})
    '2-3-1, z³, bias'
    >>> described({"positions": 3, "kernel": 2, "channels": 1, "activation": [0, 1], "bias": False})
    'convolution 3 by 2, linear'
    """
    terms = [_term(k, c) for k, c in enumerate(spec["activation"]) if c]
    words = ["linear" if spec["activation"] == [0, 1] else " + ".join(terms)]
    words += ["bias"] if spec["bias"] else []
    if "widths" in spec:
        return ", ".join(["-".join(str(width) for width in spec["widths"]), *words])
    channels = [f"{spec['channels']} channels"] if spec["channels"] > 1 else []
    return ", ".join([f"convolution {spec['positions']} by {spec['kernel']}", *channels, *words])


def _term(power: int, factor: float) -> str:
    raised = "z" + (
        str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) if power > 1 else ""
    )
    symbol = raised if power else "1"
    return symbol if factor == 1 else f"{factor:g} {symbol}"


def _activation(coefficients: list[float]) -> nn.Module:
    return PolynomialActivation.from_coefficients([float(c) for c in coefficients])
