"""
The surface to a tolerance: few full evaluations, sample by sample interpolation, a correction.

With f the losses of single samples and g what is interpolated of them from a few nodes of the
grid, the mean of f over all samples is the mean of g over all samples, which costs evaluations at
the nodes only, plus the mean of f - g, which a random subset estimates without bias, however well
or badly g interpolates. How well decides how small the subset may be.

A few samples may carry a cell's whole loss, and a subset without them knows nothing of them. So all
samples are first evaluated at a few nodes; those with extreme losses there are a stratum of its
own, evaluated in every cell with certainty; the rest is interpolated and drawn from. Where one
residual still carries much of a cell's variance more are drawn, and in the end all.
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
from thalweg.geometry.allocation import (
    Moments,
    Z,
    candidates,
    choose,
    extremes,
    following,
    levels,
    sizes,
)
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
# From this share of the nodes on at which no stratum of few samples holds the extremes, there is
# little that a subset can tell.
_HALF = 1 / 2
_COSTLY = "estimates would cost no less"
_CARRIED = "few samples carry the loss of most cells, so that a random subset tells little of them"
# A standard error that one residual dominates is known badly. It is left where it is less than this
# share of the one asked for, and the larger share is stated, unless it is rounding.
_NEGLIGIBLE, _STATED, _ROUNDING = 1 / 10, 1 / 5, 1e-12
# Where what is still to be evaluated is within this share of all cells, these are evaluated.
_SPENT = 1 / 4


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
        self.evaluations = 0
        self.counts: list[int] | None = None
        self.why = _COSTLY
        self.certain: list[int] = []
        self.certain_sums: Block = {}
        self.nodes: list[int] = []
        self.drawn = np.zeros(self.cells, dtype=int)
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
            return {"mode": "exact", "why_exact": self.why, **spent}
        told = {"mode": "to a tolerance", "nodes": self.counts, "stratum": len(self.certain)}
        return told | spent

    def columns(self) -> dict[str, Array]:
        """Values, standard errors and numbers of samples of all cells."""
        rules = candidates(self.grid.axes)
        hopeless = self.samples < 4 * levels(self.samples)[0] or len(rules) == 1
        if hopeless or not self._survey(rules[1]) or not self._choose(rules):
            self.evaluations += self.cells * self.samples
            return self._exactly({}, range(self.cells))
        self._interpolate()
        if self._wanted().sum() > (1 - _SPENT) * self.cells * self.rest:
            self.counts, self.why = None, _CARRIED
            self.evaluations += self.cells * self.samples
            return self._exactly({}, range(self.cells))
        left = self._draw()
        self.evaluations += len(left) * self.samples
        return self._exactly(self._estimated(), left)

    @property
    def rest(self) -> int:
        """How many samples are interpolated and drawn from: all but the certain ones."""
        return self.samples - len(self.certain)

    def _survey(self, counts: list[int]) -> bool:
        """Evaluate all samples at a few nodes; those with extreme losses become certain."""
        nodes = len(TensorRule(self.grid.axes, counts).cells)
        size = self._size(nodes, _CONSECUTIVE)
        blocks = self._blocks(sample_sums.node_losses, self.samples, size, {"counts": counts})
        self.evaluations += nodes * self.samples
        certain, still = extremes(np.concatenate([block["loss"] for block in blocks], axis=1))
        if still > _HALF:
            self.why = _CARRIED
            return False
        self.certain = certain
        self.drawn[:] = levels(self.rest)[0]
        self.certain_sums = {"loss": np.zeros(self.cells), "error": np.zeros(self.cells)}
        if certain:
            size = self._size(self.cells, _DRAWN)
            parameters = {"certain": certain}
            blocks = self._blocks(sample_sums.certain_sums, len(certain), size, parameters)
            self.evaluations += len(certain) * self.cells
            self.certain_sums = _pooled(blocks)
        return True

    def _choose(self, rules: list[list[int]]) -> bool:
        """Draw the pilot and choose nodes; say whether that costs less than exact cells."""
        pilot = self._pilot(rules)
        losses = self._moments("loss", pilot)
        error = self.goal.error(self._whole("loss", self.rest * losses.mean[0]))
        which = choose(rules, self.grid.axes, losses, error * self.samples / self.rest)
        if not which:
            return False
        self.counts = rules[which]
        self.sums = {name: array[which] for name, array in pilot.items()}
        self.nodes = TensorRule(self.grid.axes, self.counts).cells
        return True

    def _pilot(self, rules: list[list[int]]) -> Block:
        n = levels(self.rest)[0]
        parameters = {"rules": rules, "first": 0, **self._drawing}
        blocks = self._blocks(sample_sums.pilot, n, self._size(self.cells, _DRAWN), parameters)
        self.evaluations += n * self.cells
        return _pooled(blocks)

    @property
    def _drawing(self) -> dict[str, Any]:
        return {"seed": self.goal.seed, "certain": self.certain}

    def _interpolate(self) -> None:
        """Sum interpolated values over all samples that are not certain."""
        size = self._size(len(self.nodes), _CONSECUTIVE)
        parameters = {"counts": self.counts, "certain": self.certain}
        blocks = self._blocks(sample_sums.node_sums, self.rest, size, parameters)
        self.evaluations += len(self.nodes) * self.rest
        self.interpolated = _pooled(blocks)

    def _draw(self) -> list[int]:
        """Draw on where the standard error is too large; give the cells that are left to do."""
        for first, last in itertools.pairwise(levels(self.rest)):
            targets = self._wanted()
            more = np.flatnonzero(
                (self.drawn == first) & (targets > first) & (targets < self.rest)
            ).tolist()
            if not more:
                break
            size = self._size(len(self.nodes) + len(more), _DRAWN)
            parameters = {"counts": self.counts, "cells": more, "first": first, **self._drawing}
            blocks = self._blocks(sample_sums.remainder, last - first, size, parameters)
            self.evaluations += (len(self.nodes) + len(more)) * (last - first)
            for name, part in _pooled(blocks).items():
                whole = self.sums[name]
                join = np.maximum if name.endswith("_most") else np.add
                whole[more] = join(whole[more], part)
            self.drawn[more] = last
        return np.flatnonzero(self._wanted() > self.drawn).tolist()

    @cached_property
    def _error(self) -> float:
        """Standard error asked of a cell's loss: by the range over nodes and well known cells."""
        values, known = self._values("loss"), np.zeros(self.cells, dtype=bool)
        known[self.nodes] = True
        rough = self.goal.error(values[known])
        known |= self._stderr("loss") <= rough
        return self.goal.error(values[known])

    def _wanted(self) -> NDArray[np.int64]:
        """Size of subset that each cell is to have; 0 of nodes, all samples of troubled cells."""
        losses = self._moments("loss")
        targets = sizes(losses.needed(self._error * self.samples / self.rest), self.rest)
        further = np.maximum(targets, following(self.drawn, self.rest))
        negligible = self._stderr("loss") <= _NEGLIGIBLE * self._error
        targets = np.where(losses.dominated & ~negligible, further, targets)
        targets[self._troubled()] = self.rest
        targets[self.nodes] = 0
        return targets

    def _troubled(self) -> NDArray[np.bool_]:
        """Cells that hold, or lie within the next nodes of, a loss that is not finite."""
        bad = ~np.isfinite(self.sums["loss_square"]) | ~np.isfinite(self.certain_sums["loss"])
        rule = TensorRule(self.grid.axes, self.counts or [])
        troubled: NDArray[np.bool_] = bad | rule.near(~np.isfinite(self.interpolated["loss_at"]))
        return troubled

    def _whole(self, name: str, rest: Array) -> Array:
        """Give means over all samples from sums over those that are not certain."""
        mean: Array = (self.certain_sums[name] + rest) / self.samples
        return mean

    def _values(self, name: str) -> Array:
        """Give means: interpolated and corrected, at nodes as they are."""
        sums = self.rest * self._moments(name).mean + self.interpolated[name]
        sums[self.nodes] = self.interpolated[f"{name}_at"]
        return self._whole(name, sums)

    def _stderr(self, name: str) -> Array:
        stderr: Array = self._moments(name).stderr * (self.rest / self.samples)
        return stderr

    def _estimated(self) -> dict[str, Array]:
        columns: dict[str, Array] = {"samples": self.drawn + len(self.certain)}
        columns["samples"][self.nodes] = self.samples
        for name in ("loss", "error"):
            if f"{name}_sum" in self.sums:
                columns[name] = self._values(name)
                columns[f"{name}_stderr"] = self._stderr(name)
                columns[f"{name}_stderr"][self.nodes] = 0.0
        stderr = columns["loss_stderr"]
        rounded = stderr <= _ROUNDING * np.abs(columns["loss"])
        doubtful = self._moments("loss").dominated & ~rounded
        stderr[doubtful] = np.maximum(stderr[doubtful], _STATED * self._error)
        return columns

    def _exactly(self, columns: dict[str, Array], cells: Sequence[int]) -> dict[str, Array]:
        """Put exact values in some cells, or all."""
        whole = len(cells) == self.cells
        if not len(cells):
            return columns
        chosen = None if whole else cells
        exact_columns = exact(self.blocks, self.progress, split=self.split, chosen=chosen)
        for prefixed, values in exact_columns.items():
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
        more = self._unseen(name) if sums is None and self.interpolated else 1.0
        return Moments(total, square, most, self.drawn, self.rest, more)

    def _unseen(self, name: str) -> Array:
        """
        Say how many times larger the squares of all interpolated values are than of those drawn.

        What is left of a sample goes with its values, so that the variance is as many times larger
        where the subset missed the largest.
        """
        drawn = self.sums[f"{name}_control"] / self.drawn
        every = self.interpolated[f"{name}_control"] / self.rest
        ratio = np.where(every > 0, every / drawn, 1.0)
        factor: Array = np.where(ratio > 1, ratio, 1.0)  # NaN: both infinite
        return factor

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


def _pooled(blocks: list[Block]) -> Block:
    """Pool sums, and largest values, of blocks."""
    return {
        name: np.max([b[name] for b in blocks], 0)
        if name.endswith("_most")
        else np.sum([b[name] for b in blocks], 0)
        for name in blocks[0]
    }
