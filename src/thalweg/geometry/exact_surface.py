"""The exact surface: every sample in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.geometry.blocks import Block, Blocks, Phase
from thalweg.geometry.job import Job
from thalweg.run.progress import Bar, Progress

# A kill loses less than one percent; files stay few.
_BLOCKS = 200


def exact(
    blocks: Blocks,
    progress: Progress,
    *,
    split: str | None = None,
    chosen: Sequence[int] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """
    Evaluate cells.

    Parameters
    ----------
    blocks : Blocks
        Of the job.
    progress : Progress
        Told of every cell.
    split : str, optional
        Measure only the risk of this prefix.
    chosen : sequence of int, optional
        Evaluate only these cells.

    Returns
    -------
    dict
        Columns of shape (cells,) by name.
    """
    parameters: dict[str, Any] = {} if split is None else {"split": split}
    if chosen is not None:
        parameters["cells"] = list(chosen)
    total = len(blocks.job.grid if chosen is None else chosen)
    with progress(total, "surface, exact cells") as bar:
        columns = blocks.compute(Phase(cells, total, -(-total // _BLOCKS), parameters), bar)
    return {name: np.concatenate([block[name] for block in columns]) for name in columns[0]}


def cells(job: Job, parameters: dict[str, Any], start: int, stop: int, bar: Bar) -> Block:
    """Evaluate the cells from ``start`` to ``stop``, or those at these places of ``cells``."""
    chosen = parameters.get("cells", range(len(job.grid)))[start:stop]
    rows = []
    for cell in chosen:
        rows.append(_cell(job, cell, parameters.get("split")))
        bar.update(1)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _cell(job: Job, cell: int, split: str | None) -> dict[str, float]:
    point = job.go_to(cell)
    return {
        prefix + name: value
        for prefix, evaluate in job.evaluators.items()
        if split in (None, prefix)
        for name, value in evaluate(point).items()
    }
