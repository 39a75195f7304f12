"""
The surface to a tolerance: few full evaluations, sample by sample interpolation, a correction.

With f the losses of single samples and g what is interpolated of them from a few nodes of the
grid, the mean of f over all samples is the mean of g over all samples, which costs evaluations at
the nodes only, plus the mean of f - g, which a random subset estimates without bias, however well
or badly g interpolates. How well decides how small the subset may be.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.geometry import sample_sums
from thalweg.geometry.allocation import Moments, Z, candidates, choose, levels, sizes
from thalweg.geometry.blocks import Block, Blocks, Phase
from thalweg.geometry.exact_surface import exact
from thalweg.geometry.interpolation import TensorRule
from thalweg.geometry.job import Job
from thalweg.geometry.sample_sums import drawable
from thalweg.landscape.protocols import Drawable, provenance_of
from thalweg.run.progress import Progress

Array = NDArray[np.float64]
# Features of drawn samples in all cells, or of consecutive ones at all nodes.
_BLOCK_BYTES = 64 << 20
_DRAWN, _CONSECUTIVE = 64, 1024


@dataclass(frozen=True)
class Goal:
    """
    What is asked of the cells.

    Parameters
    ----------
    tolerance : float
        Half the width of a 95% interval of the loss.
    relative : bool
        As a share of the range of the losses.
    seed : int
        Of the random subset.
    """

    tolerance: float
    relative: bool
    seed: int

    def error(self, losses: Array) -> float:
        """Standard error wanted, where these are the losses of the surface."""
        finite = losses[np.isfinite(losses)]
        unit = float(np.ptp(finite)) if self.relative and finite.size else 1.0
        return max(self.tolerance * unit / Z, 1e-150)


def hindrance(job: Job) -> str:
    """Say why samples cannot be drawn from the landscape of a job; empty where they can."""
    if not isinstance(job.risk, Drawable):
        return "the landscape is not Drawable: it has no samples to draw"
    if provenance_of(job.risk).pooled:
        return (
            "batch-norm statistics of each cell take a pass over all training samples, which"
            " leaves little to save; batchnorm='frozen' and 'held' do not"
        )
    return ""


def estimate(
    blocks: Blocks, split: str, goal: Goal, progress: Progress
) -> tuple[dict[str, Array], dict[str, Any]]:
    """
    Estimate the cells of one risk of a job.

    Parameters
    ----------
    blocks : Blocks
        Of the job.
    split : str
        Prefix of the risk's results.
    goal : Goal
        What is asked.
    progress : Progress
        Gets one bar a step.

    Returns
    -------
    columns : dict
        ``loss``, ``error``, each with ``_stderr``, and ``samples``, shape (cells,).
    about : dict
        How it was done.
    """
    work = _Estimate(blocks, split, goal, progress)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        columns = work.columns()
    return columns, work.about


class _Estimate:
    """One risk's estimate under way."""

    def __init__(self, blocks: Blocks, split: str, goal: Goal, progress: Progress) -> None:
        self.blocks, self.split, self.goal, self.progress = blocks, split, goal, progress
        self.grid, self.risk = blocks.job.grid, drawable(blocks.job, split)
        self.samples, self.cells = self.risk.samples, len(self.grid)
        self.levels = levels(self.samples)
        self.evaluations = 0
        self.counts: list[int] | None = None
        self.nodes: list[int] = []
        self.drawn = np.full(self.cells, self.levels[0])
        self.sums: Block = {}
        self.interpolated: Block = {}

    @property
    def about(self) -> dict[str, Any]:
        """How it was done."""
        spent = {
            "evaluations": self.evaluations,
            "evaluations_exact": self.cells * self.samples,
        }
        if self.counts is None:
            return {"mode": "exact", "why_exact": "estimates would cost no less", **spent}
        return {"mode": "to a tolerance", "nodes": self.counts, **spent}

    def columns(self) -> dict[str, Array]:
        """Values, standard errors and numbers of samples of all cells."""
        if self.samples < 4 * self.levels[0] or not self._choose():
            self.evaluations += self.cells * self.samples
            return self._exactly({}, range(self.cells))
        self._interpolate()
        left = self._draw()
        self.evaluations += len(left) * self.samples
        return self._exactly(self._estimated(), left)

    def _choose(self) -> bool:
        """Draw the pilot and choose nodes; say whether that costs less than exact cells."""
        rules = candidates(self.grid.axes)
        pilot = self._pilot(rules)
        losses = self._moments("loss", pilot)
        error = self.goal.error(losses.mean[0])
        which = choose(rules, self.grid.axes, losses, error)
        if which < 0:
            return False
        self.counts = rules[which]
        self.sums = {name: array[which] for name, array in pilot.items()}
        if self.counts:
            self.nodes = TensorRule(self.grid.axes, self.counts).cells
        return True

    def _pilot(self, rules: list[list[int]]) -> Block:
        n = self.levels[0]
        parameters = {"rules": rules, "first": 0, "seed": self.goal.seed}
        found = self._blocks(sample_sums.pilot, n, self._size(self.cells, _DRAWN), parameters)
        self.evaluations += n * self.cells
        return _pooled(found)

    def _interpolate(self) -> None:
        """Sum interpolated values over all samples."""
        if not self.counts:
            return
        size = self._size(len(self.nodes), _CONSECUTIVE)
        parameters = {"counts": self.counts}
        found = self._blocks(sample_sums.node_sums, self.samples, size, parameters)
        self.evaluations += len(self.nodes) * self.samples
        self.interpolated = {n: a / self.samples for n, a in _pooled(found).items()}

    def _draw(self) -> list[int]:
        """Draw on where the standard error is too large; give the cells that are left to do."""
        error = self.goal.error(self._values("loss"))
        for first, last in itertools.pairwise(self.levels):
            wanted = self._wanted(error)
            more = np.flatnonzero((wanted > first) & (wanted < self.samples)).tolist()
            if not more:
                break
            size = self._size(len(self.nodes) + len(more), _DRAWN)
            parameters = {"counts": self.counts, "cells": more, "first": first}
            parameters["seed"] = self.goal.seed
            found = self._blocks(sample_sums.remainder, last - first, size, parameters)
            self.evaluations += (len(self.nodes) + len(more)) * (last - first)
            for name, part in _pooled(found).items():
                whole = self.sums[name]
                join = np.maximum if name.endswith("_most") else np.add
                whole[more] = join(whole[more], part)
            self.drawn[more] = last
        return np.flatnonzero(self._wanted(error) > self.drawn).tolist()

    def _wanted(self, error: float) -> NDArray[np.int64]:
        """Size of subset that each cell is to have; 0 of nodes, all samples of troubled cells."""
        wanted = sizes(self._moments("loss").needed(error), self.samples)
        wanted[self._troubled()] = self.samples
        wanted[self.nodes] = 0
        return wanted

    def _troubled(self) -> NDArray[np.bool_]:
        """Cells that hold, or lie within the next nodes of, a loss that is not finite."""
        bad = ~np.isfinite(self.sums["loss_square"])
        if self.nodes:
            rule = TensorRule(self.grid.axes, self.counts or [])
            bad |= rule.near(~np.isfinite(self.interpolated["loss_at"]))
        return bad

    def _values(self, name: str) -> Array:
        """Give means: interpolated and corrected, at nodes as they are."""
        values: Array = self._moments(name).mean
        if self.nodes:
            values = values + self.interpolated[name]
            values[self.nodes] = self.interpolated[f"{name}_at"]
        return values

    def _estimated(self) -> dict[str, Array]:
        columns: dict[str, Array] = {"samples": self.drawn.copy()}
        columns["samples"][self.nodes] = self.samples
        for name in ("loss", "error"):
            if f"{name}_sum" in self.sums:
                columns[name] = self._values(name)
                columns[f"{name}_stderr"] = self._moments(name).stderr
                columns[f"{name}_stderr"][self.nodes] = 0.0
        return columns

    def _exactly(self, columns: dict[str, Array], cells: Sequence[int]) -> dict[str, Array]:
        """Put exact values in some cells, or all."""
        whole = len(cells) == self.cells
        if not len(cells):
            return columns
        chosen = None if whole else cells
        found = exact(self.blocks, self.progress, split=self.split, chosen=chosen)
        for prefixed, values in found.items():
            name = prefixed.removeprefix(self.split)
            columns.setdefault(name, np.zeros(self.cells))[cells] = values
            columns.setdefault(f"{name}_stderr", np.zeros(self.cells))[cells] = 0.0
        columns.setdefault("samples", np.zeros(self.cells, dtype=int))[cells] = self.samples
        return columns

    def _moments(self, name: str, sums: Block | None = None) -> Moments:
        total, square, most = (
            (self.sums if sums is None else sums)[f"{name}_{part}"]
            for part in ("sum", "square", "most")
        )
        # A sample that is wrong where it was thought right, or the reverse, may always turn up.
        most = np.ones_like(most) if name == "error" else most
        return Moments(total, square, most, self.drawn, self.samples)

    def _blocks(
        self, compute: Any, total: int, size: int, parameters: dict[str, Any]
    ) -> list[Block]:
        phase = Phase(compute, total, size, {"split": self.split} | parameters)
        with self.progress(total, f"surface, {compute.__name__.replace('_', ' ')}") as bar:
            return self.blocks.compute(phase, bar)

    @cached_property
    def _bytes(self) -> int:
        """Of a sample's features at one point."""
        drawn = self.risk.draw(torch.arange(1))
        features = drawn.features(self.grid.point(0))
        return features.element_size() * features.shape[1]

    def _size(self, points: int, most: int) -> int:
        """Samples a block, within memory."""
        budget = min(_BLOCK_BYTES, self.risk.memory)
        return max(1, min(most, budget // (points * self._bytes)))


def _pooled(found: list[Block]) -> Block:
    """Pool sums, and largest values, of blocks."""
    return {
        name: np.max([b[name] for b in found], 0)
        if name.endswith("_most")
        else np.sum([b[name] for b in found], 0)
        for name in found[0]
    }
