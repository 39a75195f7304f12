"""Values at many points, and descents from many points: as one batch where a landscape can."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.landscape.protocols import Landscape, Replicable, Vectorized

# Numbers of weights in a batch of points that are held at once.
_AT_ONCE = 1 << 22


def values_at(landscape: Landscape, points: Tensor) -> Tensor:
    """Evaluate a landscape at points, shape (k, W): shape (k,), float64."""
    # A network's values are dearer with their gradients, which many points give with them.
    if isinstance(landscape, Vectorized) and not isinstance(landscape, Replicable):
        size = max(1, _AT_ONCE // points.shape[1])
        parts = [landscape.values_and_gradients(part)[0] for part in points.split(size)]
        return torch.cat(parts).double()
    return torch.tensor([landscape.value(point) for point in points], dtype=torch.float64)
