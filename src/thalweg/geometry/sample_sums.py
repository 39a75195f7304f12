"""What workers compute for a surface to a tolerance: sums over nodes, and over what they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.geometry.blocks import Block
from thalweg.geometry.interpolation import TensorRule
from thalweg.geometry.job import Job
from thalweg.landscape.protocols import Drawable, Drawn, provenance_of, require
from thalweg.run import torch_generator
from thalweg.run.progress import Bar

Parameters = dict[str, Any]
# Interpolated features held at once.
_SLAB_BYTES = 16 << 20


def subset(seed: int, split: str, samples: int, certain: Sequence[int] = ()) -> Tensor:
    """
    Give the order in which samples are drawn: a subset of n is its first n.

    Those that are ``certain`` are not drawn.
    """
    order = torch.randperm(samples, generator=torch_generator(seed, "subset", split))
    return order[~torch.isin(order, torch.tensor(certain, dtype=torch.int64))]


def node_losses(job: Job, parameters: Parameters, start: int, stop: int, bar: Bar) -> Block:
    """
    Evaluate consecutive samples at the nodes, each by itself.

    Parameters hold ``split`` and ``counts``. ``loss`` has shape (nodes, samples).
    """
    rule = _rule(job, parameters["counts"])
    assert rule is not None
    drawn = drawable(job, parameters["split"]).draw(torch.arange(start, stop))
    losses = drawn.measures(_evaluate(job, drawn, rule.cells, bar))["loss"]
    return {"loss": losses.double().cpu().numpy()}


def certain_sums(job: Job, parameters: Parameters, start: int, stop: int, bar: Bar) -> Block:
    """
    Sum true values of the samples ``certain`` in all cells: shape (cells,).

    Parameters hold ``split`` and ``certain``.
    """
    which = torch.tensor(parameters["certain"][start:stop], dtype=torch.int64)
    drawn = drawable(job, parameters["split"]).draw(which)
    features = _evaluate(job, drawn, range(len(job.grid)), bar)
    return {n: v.double().sum(1).cpu().numpy() for n, v in drawn.measures(features).items()}


def pilot(job: Job, parameters: Parameters, start: int, stop: int, bar: Bar) -> Block:
    """
    Evaluate drawn samples in all cells, and see what each rule of interpolation leaves of them.

    Parameters hold ``split`` (prefix of names), ``seed``, ``certain`` (samples not to draw),
    ``first`` (how many drawn samples come before) and ``rules`` (lists of counts of nodes; an empty
    one does not interpolate). Arrays have shape (rules, cells).
    """
    drawn, features = _drawn(job, parameters, range(len(job.grid)), start, stop, bar)
    blocks = [
        _left(drawn, features, _rule(job, counts), range(len(features)))
        for counts in parameters["rules"]
    ]
    return {name: np.stack([block[name] for block in blocks]) for name in blocks[0]}


def remainder(job: Job, parameters: Parameters, start: int, stop: int, bar: Bar) -> Block:
    """
    Evaluate drawn samples in some cells, and see what one rule of interpolation leaves of them.

    Parameters hold ``split``, ``seed``, ``certain``, ``first``, ``counts`` and ``cells``. Arrays
    have shape (cells,).
    """
    rule, cells = _rule(job, parameters["counts"]), parameters["cells"]
    nodes = rule.cells if rule else []
    drawn, features = _drawn(job, parameters, [*nodes, *cells], start, stop, bar)
    return _left(drawn, features, rule, cells, nodes=features[: len(nodes)])


def node_sums(job: Job, parameters: Parameters, start: int, stop: int, bar: Bar) -> Block:
    """
    Evaluate samples that are not certain at the nodes and sum what is interpolated from there.

    Parameters hold ``split``, ``certain`` and ``counts``. Arrays ``loss``, ``error`` have shape
    (cells,), as have the sums of squares ``loss_control``, ``error_control``; ``loss_at``,
    ``error_at``, sums of true values, shape (nodes,).
    """
    rule = _rule(job, parameters["counts"])
    assert rule is not None
    risk = drawable(job, parameters["split"])
    every = torch.arange(risk.samples)
    rest = every[~torch.isin(every, torch.tensor(parameters["certain"], dtype=torch.int64))]
    drawn = risk.draw(rest[start:stop])
    features = _evaluate(job, drawn, rule.cells, bar)
    at = {
        f"{name}_at": v.double().sum(1).cpu().numpy()
        for name, v in drawn.measures(features).items()
    }
    parts = [_measured(drawn, slab) for slab in _slabs(rule, features, range(len(job.grid)))]
    sums = {n: torch.cat([p[n].double().sum(1) for p in parts]).cpu().numpy() for n in parts[0]}
    squares = {
        f"{n}_control": torch.cat([p[n].double().square().sum(1) for p in parts]).cpu().numpy()
        for n in parts[0]
    }
    return at | sums | squares


def drawable(job: Job, split: str) -> Drawable:
    """Give what is measured under a prefix, which must have samples to draw."""
    return require(job.risks[split], Drawable, "tolerance", "leave out tolerance")


def _rule(job: Job, counts: Sequence[int]) -> TensorRule | None:
    return TensorRule(job.grid.axes, counts) if counts else None


def _drawn(
    job: Job, parameters: Parameters, cells: Sequence[int], start: int, stop: int, bar: Bar
) -> tuple[Drawn, Tensor]:
    risk = drawable(job, parameters["split"])
    split = provenance_of(risk).split or ""
    order = subset(parameters["seed"], split, risk.samples, parameters["certain"])
    drawn = risk.draw(order[parameters["first"] :][start:stop])
    return drawn, _evaluate(job, drawn, cells, bar)


def _evaluate(job: Job, drawn: Drawn, cells: Sequence[int], bar: Bar) -> Tensor:
    """Features of the samples drawn: (cells, samples, features)."""
    rows: list[Tensor] = []
    for i, cell in enumerate(cells):
        rows.append(drawn.features(job.go_to(cell)).cpu())
        # The bar counts samples, each of which is done a cell at a time.
        bar.update((i + 1) * drawn.size // len(cells) - i * drawn.size // len(cells))
    return torch.stack(rows)


def _left(
    drawn: Drawn,
    features: Tensor,
    rule: TensorRule | None,
    cells: Sequence[int],
    nodes: Tensor | None = None,
) -> Block:
    """
    Sums, sums of squares and largest of true minus interpolated values in ``cells``.

    ``loss_control``, ``error_control`` are sums of squares of the interpolated values.
    """
    if nodes is None:
        nodes = features[rule.cells] if rule else features[:0]
    features = features[len(features) - len(cells) :]
    sums: dict[str, list[Tensor]] = {}
    start = 0
    for slab in _slabs(rule, nodes, cells) if rule else [None]:
        part = features if slab is None else features[start : start + len(slab)]
        start += len(part)
        control = None if slab is None else _measured(drawn, slab)
        for name, true in drawn.measures(part).items():
            controlled = torch.zeros_like(true) if control is None else control[name]
            difference = (true - controlled).double()
            sums.setdefault(f"{name}_control", []).append(controlled.double().square().sum(1))
            sums.setdefault(f"{name}_sum", []).append(difference.sum(1))
            sums.setdefault(f"{name}_square", []).append(difference.square().sum(1))
            sums.setdefault(f"{name}_most", []).append(difference.abs().amax(1))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in sums.items()}


def _measured(drawn: Drawn, features: Tensor) -> dict[str, Tensor]:
    """Measure interpolated features; what is not finite is no control, and 0 as good as any."""
    measures = drawn.measures(features)
    return {name: torch.where(values.isfinite(), values, 0.0) for name, values in measures.items()}


def _slabs(rule: TensorRule, nodes: Tensor, cells: Sequence[int]) -> Iterator[Tensor]:
    """Interpolate features to cells, as many at a time as memory allows."""
    _, samples, width = nodes.shape
    size = max(1, _SLAB_BYTES // (nodes.element_size() * samples * width))
    for start in range(0, len(cells), size):
        weights = torch.from_numpy(rule.weights(cells[start : start + size])).to(nodes)
        yield (weights @ nodes.flatten(1)).reshape(-1, samples, width)
