"""The exact surface: every sample in every cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.geometry.blocks import Block, Blocks, Phase
from thalweg.geometry.scene import Scene
from thalweg.run.progress import Bar

# A kill loses less than one percent; files stay few.
_BLOCKS = 200


def exact(blocks: Blocks, bar: Bar) -> dict[str, NDArray[np.float64]]:
    """Evaluate each cell: columns of shape (cells,) by name."""
    total = len(blocks.scene.grid)
    found = blocks.compute(Phase(cells, total, -(-total // _BLOCKS)), bar)
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def cells(scene: Scene, parameters: dict[str, Any], start: int, stop: int, bar: Bar) -> Block:
    """Evaluate the cells from ``start`` to ``stop``."""
    rows = []
    for cell in range(start, stop):
        point = scene.grid.point(cell)
        row = {p + n: v for p, risk in scene.risks.items() for n, v in risk.evaluate(point).items()}
        rows.append(row or {"loss": scene.risk.value(point)})
        bar.update(1)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
