"""
Problems grown at random: a model of `grown_models`, a criterion, and data as people lay them out.

Everything is a function of the seed. `Case.reference` is the loss on everything at once, in plain
torch and float64.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import thalweg as tw
from grown_models import Growing, Shape, freeze, share, stir
from thalweg.problems import Problem

# Inputs and targets of samples that lie side by side.
Part = tuple[tuple[Tensor, ...], Tensor]


@dataclass
class Case:
    """
    A problem and what it is in plain torch.

    Attributes
    ----------
    problem : Problem
        Of ``model``, which is float32 or float64 and in modes of its own.
    options : dict
        For `EmpiricalRisk`.
    loss_of : callable
        From a model in float64 to its loss on everything at once.
    smooth : bool
        Whether the loss has derivatives of every order everywhere.
    pooled : bool
        Whether batch-norm statistics are taken at each point.
    sampled : bool
        Whether single samples have losses: not where all are one batch and the loss its mean.
    """

    seed: int
    model: nn.Module
    problem: Problem
    options: dict[str, Any]
    loss_of: Callable[[nn.Module], Tensor]
    smooth: bool
    layout: str
    criterion: str
    pooled: bool
    sampled: bool
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        self._plain = copy.deepcopy(self.model).double().eval()
        for module in self._plain.modules():
            if isinstance(module, nn.Embedding):
                module.padding_idx = None  # torch leaves its row out of gradients, not of values
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and self.pooled:
                module.train()
                module.momentum = 0.0

    def reference(self, w: Tensor) -> Tensor:
        """Evaluate the loss on everything at once at ``w``, float64, with a graph."""
        named = dict(self._plain.named_parameters())
        parts = w.split([named[name].numel() for name in self.names])
        tensors = {n: part.view_as(named[n]) for n, part in zip(self.names, parts, strict=True)}
        return self.loss_of(lambda *inputs: functional_call(self._plain, tensors, inputs))

    def reference_gradient(self, w: Tensor) -> Tensor:
        """Differentiate `reference` once, by torch."""
        leaf = w.detach().clone().requires_grad_()
        return torch.autograd.grad(self.reference(leaf), leaf)[0]

    def __str__(self) -> str:
        modes = {m.training for m in self.model.modules()}
        frozen = [n for n, p in self.model.named_parameters() if not p.requires_grad]
        return (
            f"seed {self.seed}: layout {self.layout}, {self.options}, {self.criterion},"
            f" frozen {frozen}, modes {sorted(modes)}\n{self.model}"
        )


def grow_case(seed: int) -> Case:
    """Make the problem of a seed."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _grow(seed, rng)


def _grow(seed: int, rng: random.Random) -> Case:
    kind = rng.choice(["vector", "sequence", "image", "tokens"])
    inputs, shapes = _inputs(rng, kind, rng.randint(5, 22))
    ragged = kind in ("sequence", "tokens") and len(inputs) == 1 and rng.random() < 0.25
    growing = Growing(rng, shapes, ragged=ragged)
    if kind == "tokens":
        growing.embed(*shapes[0][1])
    growing.grow(rng.randint(1, 6))
    each_place = growing.shapes[-1][0] == "sequence" and rng.random() < 0.4
    outputs = rng.randint(2, 4)
    growing.end(outputs, each_place=each_place)
    model, normalized = growing.model, _has_batch_norm(growing.model)
    share(rng, model)
    freeze(rng, model)
    stir(rng, model)
    places = growing.shapes[-1][1][1:]
    loss, y, smooth = _loss(rng, len(inputs[0]), outputs, places, each_place)
    parts = _ragged(rng, inputs, y, each_place) if ragged else [(inputs, y)]
    if rng.random() < 0.3:
        model, parts = model.double(), [_as_double(part) for part in parts]
    layout, given = _layout(rng, loss, parts)
    # Batches as given are not one batch, nor have the statistics of one.
    apart = ragged or layout == "given"
    policy = "frozen" if apart else rng.choice(["frozen", "recalibrate", "batch"])
    return Case(
        seed=seed,
        model=model,
        problem=Problem(model, name=f"seed {seed}", **given),
        options={"batchnorm": policy, "batch_size": rng.choice([None, 3, 7, len(y)])},
        loss_of=lambda evaluated: _at_once(evaluated, loss, parts),
        smooth=growing.smooth and smooth,
        layout=layout,
        criterion=loss.__name__ if loss is F.mse_loss else f"{loss}, {_stated(loss)}",
        pooled=normalized and policy != "frozen",
        sampled=not (normalized and policy == "batch" and "dict" in layout and _is_mean(loss)),
    )


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def _at_once(
    evaluated: Callable[..., Tensor], loss: Callable[..., Tensor], parts: list[Part]
) -> Tensor:
    """Evaluate the loss on everything at once; of parts that cannot be joined, their mean."""
    losses, counts = [], []
    for inputs, y in map(_as_double, parts):
        outputs = evaluated(*inputs)
        losses.append(_in_dtype(loss, outputs)(outputs, y).mean())
        counts.append(float(_count(loss, y)))
    return sum(n * part for n, part in zip(counts, losses, strict=True)) / sum(counts)


def _as_double(part: Part) -> Part:
    inputs, y = part
    return tuple(map(_double, inputs)), _double(y)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _inputs(
    rng: random.Random, kind: str, samples: int
) -> tuple[tuple[Tensor, ...], list[tuple[str, Shape]]]:
    """Give one input, or a vector beside it, with their kinds and shapes."""
    if kind == "vector":
        shape: Shape = (rng.randint(1, 6),)
    elif kind == "sequence":
        shape = (rng.randint(2, 5), rng.choice([1, 2, 4, 5]))
    elif kind == "image":
        shape = (rng.randint(1, 4), rng.randint(3, 6), rng.randint(3, 6))
    else:
        shape = (rng.randint(3, 8), rng.randint(2, 5))
    x = _tokens(samples, *shape) if kind == "tokens" else torch.randn(samples, *shape)
    if rng.random() < 0.7:
        return (x,), [(kind, shape)]
    beside = rng.randint(1, 3)
    return (x, torch.randn(samples, beside)), [(kind, shape), ("vector", (beside,))]


def _tokens(samples: int, numbers: int, places: int) -> Tensor:
    tokens = torch.randint(numbers, (samples, places))
    tokens[:, 0] = tokens[:, 0].clamp_min(1)  # no sample is padding alone
    return tokens


def _ragged(
    rng: random.Random, inputs: tuple[Tensor, ...], y: Tensor, each_place: bool
) -> list[Part]:
    """Cut batches off, each at a length of its own."""
    (x,) = inputs
    size = rng.randint(2, len(x))
    cuts = list(range(size, len(x), size))
    parts: list[Part] = []
    for a, b in zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True):
        length = rng.randint(2, x.shape[1])
        b = b[:, :length].clone() if each_place else b
        if each_place:
            b[0, 0] = 0  # one that counts
        parts.append(((a[:, :length],), b))
    return parts


def _loss(
    rng: random.Random, samples: int, outputs: int, places: Shape, each_place: bool
) -> tuple[Callable[..., Tensor], Tensor, bool]:
    """Give a criterion, targets, and whether it is smooth."""
    if each_place or rng.random() < 0.5:
        return *_classification(rng, samples, outputs, places), True
    real = torch.randn(samples, outputs)
    mean = rng.choice(["mean", "none"])
    return rng.choice(
        [
            (nn.MSELoss(reduction=mean), real, True),
            (nn.SmoothL1Loss(), real, False),
            (nn.HuberLoss(reduction=mean, delta=0.5), real, False),
            (nn.BCEWithLogitsLoss(), (real > 0).float(), True),
            (nn.PoissonNLLLoss(), real.abs().round(), True),
            (nn.SoftMarginLoss(), real.sign(), True),
            (F.mse_loss, real, True),
        ]
    )


def _classification(
    rng: random.Random, samples: int, classes: int, places: Shape
) -> tuple[Callable[..., Tensor], Tensor]:
    labels = torch.randint(classes, (samples, *places))
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        options["label_smoothing"] = 0.1
    if rng.random() < 0.3:
        options["weight"] = torch.rand(classes) + 0.2
    if rng.random() < 0.3:
        labels[torch.rand(labels.shape) < 0.3] = -100
        labels[(0,) * labels.dim()] = 0  # one that counts
    return nn.CrossEntropyLoss(**options), labels


def _layout(
    rng: random.Random, loss: Callable[..., Tensor], parts: list[Part]
) -> tuple[str, dict[str, Any]]:
    """Lay out the data as people have them: a name, and what to give a `Problem`."""
    if len(parts) > 1:
        layout = rng.choice(["ragged batches", "ragged dicts"])
        batches = parts
    else:
        ((inputs, y),) = parts
        layout = rng.choice(
            ["pair", "dataset", "loader", "batches", "dicts", "one dict", "given", "whole"]
        )
        batches = _cut(inputs, y, rng.randint(2, len(y)))
    paired = [(inputs[0] if len(inputs) == 1 else inputs, y) for inputs, y in batches]
    named = [{"y": y} | {f"x{i}": x for i, x in enumerate(inputs)} for inputs, y in batches]
    if "dict" in layout:
        whole = (
            {name: torch.cat([d[name] for d in named]) for name in named[0]}
            if (layout == "one dict")
            else named
        )
        return layout, {"train": whole, **_own_loss(loss)}
    if "batches" in layout:
        return layout, {"train": paired, "loss": loss}
    if layout == "given":
        return layout, {"train": tw.Batches(paired), "loss": loss}
    ((inputs, y),) = parts
    pair = (inputs[0] if len(inputs) == 1 else inputs, y)
    dataset = TensorDataset(*inputs, y)
    data = {
        "pair": pair,
        "whole": tw.Whole(pair),
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=len(batches[0][1])),
    }[layout]
    return layout, {"train": data, "loss": loss}


def _cut(inputs: tuple[Tensor, ...], y: Tensor, size: int) -> list[Part]:
    cuts = list(range(size, len(y), size))
    columns = zip(*(x.tensor_split(cuts) for x in inputs), strict=True)
    return list(zip(columns, y.tensor_split(cuts), strict=True))


def _own_loss(loss: Callable[..., Tensor]) -> dict[str, Any]:
    """Write a criterion as ``loss(model, batch)``, and what a batch counts where that differs."""

    def of_batch(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        outputs = model(*[batch[name] for name in sorted(batch) if name != "y"])
        values = _in_dtype(loss, outputs)(outputs, batch["y"])
        return values.flatten(1).mean(1) if values.dim() > 1 else values

    if not isinstance(loss, nn.CrossEntropyLoss):
        return {"loss": of_batch}
    return {"loss": of_batch, "weight": lambda batch: _count(loss, batch["y"])}


def _count(loss: Callable[..., Tensor], y: Tensor) -> Tensor | float:
    """What a batch of these targets counts in the mean over everything."""
    if not isinstance(loss, nn.CrossEntropyLoss):
        return float(len(y))
    counted = y[y >= 0]
    return counted.numel() if loss.weight is None else loss.weight.double()[counted].sum()


def _is_mean(loss: Any) -> bool:
    return bool(getattr(loss, "reduction", "mean") == "mean")


def _stated(loss: nn.Module) -> dict[str, Any]:
    names = ("reduction", "label_smoothing", "weight", "delta", "ignore_index")
    return {name: getattr(loss, name) for name in names if hasattr(loss, name)}


def _in_dtype(loss: Callable[..., Tensor], like: Tensor) -> Callable[..., Tensor]:
    return copy.deepcopy(loss).to(like) if isinstance(loss, nn.Module) else loss
