"""Checks of surfaces: values, alignment, batches, losses that are not finite, batch norm."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conformance import tasks
from conformance.adapter import Adapter, Array, Failure, Surface, Task, flat

POINTS = 5
CURVATURES = torch.tensor([1.0, 9.0, 4.0, 0.5])
AXES = torch.eye(4)[:, :2]


def bowl_on_the_grid(adapter: Adapter) -> str:
    """The bottom is the centre; the Hessian's axes are the directions."""
    return _bowl(adapter, torch.zeros(2))


def bowl_off_the_grid(adapter: Adapter) -> str:
    """The bottom lies between grid points, at a third of a step from the centre."""
    return _bowl(adapter, torch.tensor([1 / 6, -1 / 6]))


def _bowl(adapter: Adapter, offset: Tensor) -> str:
    bottom = torch.ones(4) / 2
    bottom[:2] += offset
    task = tasks.quadratic(CURVATURES, bottom=bottom, rotated=False)
    found = adapter.surface(task, AXES, points=POINTS, extent=1.0)
    return _compare(found, _expected(task, found))


def _expected(task: Task, found: Surface) -> Array:
    """The loss in float64 where the surface says that its cells lie."""
    w, directions = flat(task.model).double(), found.directions.double()
    rows = [
        [tasks.loss_at(task, w + x * directions[:, 0] + y * directions[:, 1]) for y in found.y]
        for x in found.x
    ]
    return np.array(rows)


def _compare(found: Surface, expected: Array, tolerance: float = 1e-4) -> str:
    if found.losses.shape != expected.shape:
        raise Failure(f"shape {found.losses.shape} for axes of {expected.shape}")
    span = float(np.ptp(expected))
    worst = float(np.abs(found.losses - expected).max()) / span
    if not worst <= tolerance:
        raise Failure(f"a cell is off by {worst:.2g} of the range")
    return f"off by {worst:.0e} of the range at most"


def _centre(axis: Array) -> int:
    place = int(np.abs(axis).argmin())
    if abs(axis[place]) > 1e-9:
        raise Failure(f"no cell at 0: the nearest lies at {axis[place]:.3g}")
    return place


def centre_is_the_training_loss(adapter: Adapter) -> str:
    """On a trained network, along the tool's own random directions (given ones if it has none)."""
    task = tasks.convolutional()
    true = tasks.loss_at(task, flat(task.model))
    found = _any_surface(adapter, task)
    loss = float(found.losses[_centre(found.x), _centre(found.y)])
    if not abs(loss - true) <= 1e-5 * true:
        raise Failure(f"loss {loss:.4g} in the centre, {true:.4g} at the trained weights")
    return f"off by {abs(loss / true - 1):.0e}"


def _any_surface(adapter: Adapter, task: Task) -> Surface:
    if type(adapter).random_surface is not Adapter.random_surface:
        return adapter.random_surface(task, points=POINTS)
    w = flat(task.model)
    directions = torch.randn(len(w), 2, generator=torch.Generator().manual_seed(0)) * 0.05
    return adapter.surface(task, directions, points=POINTS, extent=1.0)


def rows_and_columns_are_aligned(adapter: Adapter) -> str:
    """On a bowl that is the sum of a function of x and one of y, no row or column is shifted."""
    task = tasks.quadratic(CURVATURES, bottom=torch.tensor([0.7, 0.1, 0.5, 0.5]), rotated=False)
    found = adapter.surface(task, AXES, points=POINTS, extent=1.0)
    z = found.losses
    mixed = z - z[:1] - z[:, :1] + z[0, 0]
    worst = float(np.abs(mixed).max() / np.ptp(z))
    if not worst <= 1e-2:
        raise Failure(f"rows differ by shifts, {worst:.2g} of the range")
    bends = [float(np.diff(axis, 2).mean()) for axis in (z[:, 0], z[0])]
    steps = [float(np.diff(axis)[0]) for axis in (found.x, found.y)]
    norms = found.directions.norm(dim=0).tolist()
    curved = [b / (s * n) ** 2 for b, s, n in zip(bends, steps, norms, strict=True)]
    if not abs(curved[1] / curved[0] - 9) <= 0.1:
        raise Failure("rows and columns are exchanged")
    return f"mixed differences of {worst:.0e} of the range"


def uneven_batches_change_nothing(adapter: Adapter) -> str:
    """64 samples, the last 4 of which have large losses, as one batch and as 60 + 4."""
    task = tasks.convolutional(trained=60)
    x, y = task.whole
    x = torch.cat([x[:60], 4 * x[60:]])
    task = Task(task.model, task.criterion, [(x, (y + 3 * (torch.arange(64) >= 60)) % 10)])
    w = flat(task.model)
    directions = torch.randn(len(w), 2, generator=torch.Generator().manual_seed(0)) * 0.02
    found = adapter.surface(task.split(60, 4), directions, points=3, extent=1.0)
    expected = _expected(task, found)
    worst = float(np.abs(found.losses / expected - 1).max())
    if not worst <= 1e-4:
        raise Failure(f"losses off by {100 * worst:.0f}% with batches of 60 and 4")
    return f"off by {worst:.0e}"


def losses_that_are_not_finite_are_kept(adapter: Adapter) -> str:
    """The loss is log(w0), from w0 = 1: NaN below 0, minus infinity at 0."""
    task = tasks.undefined()
    found = adapter.surface(task, torch.eye(2) * 2, points=POINTS, extent=1.0)
    w0 = 1 + (found.directions[0] @ torch.tensor(np.array([found.x, 0 * found.x])).float()).numpy()
    if not bool((w0 < -1e-3).any()):
        return _other_side(adapter)
    low, zero = w0 < -1e-3, np.abs(w0) < 1e-6
    if not np.isnan(found.losses[low]).all():
        raise Failure(f"{int(np.isfinite(found.losses[low]).sum())} NaN replaced by numbers")
    if not (found.losses[zero] == -np.inf).all():
        raise Failure("infinity replaced by a number")
    return f"{int(np.isnan(found.losses).sum())} NaN kept"


def _other_side(adapter: Adapter) -> str:
    """For grids that begin at w: the direction turned around."""
    found = adapter.surface(tasks.undefined(), torch.eye(2) * -2, points=POINTS, extent=1.0)
    w0 = 1 + float(found.directions[0, 0]) * found.x
    low = w0 < -1e-3
    if not low.any() or not np.isnan(found.losses[low]).all():
        raise Failure("NaN replaced by numbers")
    return f"{int(np.isnan(found.losses).sum())} NaN kept"


def batch_norm_stays_finite(adapter: Adapter) -> str:
    """Along its own random directions no loss of a network with batch norm is NaN, in 5 draws."""
    for seed in range(5):
        found = adapter.random_surface(tasks.normalized(), points=POINTS, seed=seed)
        bad = int((~np.isfinite(found.losses)).sum())
        if bad:
            raise Failure(f"{bad} of {found.losses.size} losses are NaN: variances below zero")
    return "all finite"


def batch_norm_model_is_left_as_it_was(adapter: Adapter) -> str:
    """Weights, buffers and modes of the user's model in training mode are bit for bit the same."""
    task = tasks.normalized()
    task.model.train()
    before = copy.deepcopy(task.model.state_dict())
    modes = [module.training for module in task.model.modules()]
    adapter.random_surface(task, points=3)
    changed = [
        name
        for name, tensor in task.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    ]
    if changed:
        raise Failure(f"changed: {', '.join(changed[:3])}")
    if [module.training for module in task.model.modules()] != modes:
        raise Failure("left in evaluation mode")
    return "bit for bit"


class _Seen:
    """What all copies of a model share: the points it was evaluated at."""

    def __init__(self, allowed: int) -> None:
        self.allowed, self.points = allowed, list[float]()

    def __deepcopy__(self, _: object) -> _Seen:
        return self


class _Killed(BaseException):
    """Stands for a kill: no tool may catch it."""


class _Counting(nn.Linear):
    """Notes each new point; is killed at one of them."""

    seen: _Seen

    def forward(self, x: Tensor) -> Tensor:
        point = float((self.weight.detach() * torch.tensor([[1.0, 1000.0]])).sum())
        if point not in self.seen.points:
            if len(self.seen.points) >= self.seen.allowed:
                raise _Killed
            self.seen.points.append(point)
        return super().forward(x)


def _counting(allowed: int) -> Task:
    model = _Counting(2, 1, bias=False)
    model.seen = _Seen(allowed)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0]]))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    return Task(model, nn.MSELoss(), [(x, torch.ones(8, 1))])


def a_resume_does_each_cell_once(adapter: Adapter) -> str:
    """Killed half-way through 21 x 21 cells, the second call does the others, and agrees."""
    grid = {"points": 21, "extent": 1.0}
    whole = adapter.surface(_counting(10_000), torch.eye(2), **grid)
    first, second = _counting(230), _counting(10_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        try:
            adapter.resumed_surface(first, torch.eye(2), folder=folder, **grid)
        except _Killed:
            found = adapter.resumed_surface(second, torch.eye(2), folder=folder, **grid)
        else:
            raise Failure("the kill was swallowed")
    if not np.array_equal(found.losses, whole.losses):
        wrong = int((~(found.losses == whole.losses)).sum())
        raise Failure(f"{wrong} cells differ from those of one go")
    again = len(set(_points(first)) & set(_points(second)) - {0.0})
    if again > 21:  # a row
        raise Failure(f"{again} of 230 cells done again")
    return f"{again} of 230 cells done again"


def _points(task: Task) -> list[float]:
    model = task.model
    assert isinstance(model, _Counting)
    return model.seen.points
