"""The signature of a landscape's basins: what branches of trainings, and branches of these, do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.basins.many import descend_from, values_at
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import (
    Function,
    HeldOut,
    Landscape,
    Sampled,
    Scored,
    placed,
    sample_evaluator,
    words_of,
)
from thalweg.landscape.space import ParameterSpace
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import derive_seed, torch_generator

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
# Of the loss that training takes away: a barrier up to this share is none.
LOW = 0.01
_TRAINING = {
    "lr": 0.05,
    "momentum": 0.9,
    "steps": 200,
    "batch_size": 100,
    "schedule": "cosine",
}
# What a pair of points is.
KINDS = ("early child", "child", "sibling", "cousin", "descendant", "parents")


@dataclass(frozen=True)
class Design:
    """
    Which branches a signature has: the same on every landscape.

    Attributes
    ----------
    parents : int
        Trainings from different starts.
    copies : int
        Children of each at each scale, an even number: they are compared in pairs.
    levels : int
        Number of scales; each is sqrt(generations) times the one below, so that all steps of a line
        of descent together are as long as one step of the next scale.
    generations : int
        Steps of a line of descent: a child, its child, and so on, each trained on.
    scale : float
        The smallest, relative to the weights of a layer (`perturb`).
    places : int
        Points on a line between its ends: its middle, and others at random in equal parts.
    branch : float
        Steps of a branch, as a share of those of training.
    """

    parents: int = 8
    copies: int = 8
    levels: int = 6
    generations: int = 4
    scale: float = 0.05
    places: int = 9
    branch: float = 0.5

    def __post_init__(self) -> None:
        if (
            self.parents < 2
            or self.copies < 2
            or self.copies % 2
            or self.levels < 2
            or self.generations < 2
            or self.places < 3
            or not (self.scale > 0 and 0 < self.branch <= 1)
        ):
            raise InvalidArgument(
                f"{self}; write two or more parents, levels and generations, an even number of"
                " copies, three places or more, a positive scale, and branch between 0 and 1."
            )

    @property
    def scales(self) -> tuple[float, ...]:
        """All scales, from the smallest."""
        return tuple(self.scale * self.generations ** (level / 2) for level in range(self.levels))


@dataclass(frozen=True, eq=False)
class Signature:
    """
    What was measured on the pairs of points that a design names.

    Attributes
    ----------
    design : Design
        Which branches there are.
    columns : dict of str to ndarray
        One number a pair: ``kind`` (its place in `KINDS`), ``parent``, ``level``, ``copy`` (of two
        the second; of two parents ``parent`` is), ``distance`` of
        the trained points, ``step`` (that of the perturbed points; of siblings and cousins, NaN),
        ``barrier`` (largest excess over the chord, in units of ``unit``), ``middle`` (excess at the
        mean, likewise), ``rise`` (loss of the first minus that of the second, likewise),
        ``disagreement`` (mean absolute difference of a sample's losses, likewise; on held-out
        samples where there are any).
    unit : float
        Loss that training takes away, mean over parents.
    provenance : dict
        Which function it is.
    """

    design: Design
    columns: dict[str, Floats]
    unit: float
    provenance: dict[str, Any]

    def pairs(self, kind: str) -> dict[str, Floats]:
        """Give the columns of pairs of one kind."""
        mine = self.columns["kind"] == KINDS.index(kind)
        return {name: column[mine] for name, column in self.columns.items()}

    def part(self, design: Design) -> Signature:
        """
        Give the signature of fewer parents and copies, as a smaller design has them.

        Raises
        ------
        InvalidArgument
            If the other design differs in anything else, or has more of them.
        """
        fewer = replace(self.design, parents=design.parents, copies=design.copies)
        if fewer != design or not (
            design.parents <= self.design.parents and design.copies <= self.design.copies
        ):
            raise InvalidArgument(
                f"a signature by {self.design} has no part by {design}; write a design with as many"
                " parents and copies or fewer, and the same otherwise."
            )
        kept = self.columns["parent"] < design.parents
        kept &= self.columns["copy"] < design.copies
        columns = {name: column[kept] for name, column in self.columns.items()}
        return replace(self, design=design, columns=columns)

    def by_level(self, kind: str, values: Floats) -> Floats:
        """Average one number a pair of a kind within parents: shape (parents, levels)."""
        pairs, design = self.pairs(kind), self.design
        cells = (pairs["parent"] * design.levels + pairs["level"]).astype(int)
        size = design.parents * design.levels
        total = np.bincount(cells, values, minlength=size)
        return (total / np.bincount(cells, minlength=size)).reshape(design.parents, design.levels)

    def figures(self) -> dict[str, Floats]:
        """Give each figure by parent and scale, shape (parents, levels); see `profile`."""
        child, early = self.pairs("child"), self.pairs("early child")
        figures = {
            "returned": self.by_level("child", np.where(child["barrier"] <= LOW, 1.0, 0.0)),
            "returned_early": self.by_level(
                "early child", np.where(early["barrier"] <= LOW, 1.0, 0.0)
            ),
            "kept": self.by_level("child", child["distance"] / child["step"]),
            "rise": self.by_level("child", child["rise"]),
            "disagreement": self.by_level("child", child["disagreement"]),
        }
        for kind in ("child", "sibling", "cousin", "descendant"):
            pairs = self.pairs(kind)
            figures[f"{kind}_barrier"] = self.by_level(kind, pairs["barrier"])
            figures[f"{kind}_middle"] = self.by_level(kind, pairs["middle"])
            figures[f"{kind}_distance"] = self.by_level(kind, pairs["distance"])
        return figures

    def profile(self) -> xr.Dataset:
        """
        Average over parents, with standard errors by parent.

        Returns
        -------
        xarray.Dataset
            Over ``scale``: shares ``returned`` (of children of the end, and of half of training)
            by the line to their parent, ``kept`` (distance after training over that before), and
            for children, siblings, cousins and last descendants ``*_barrier`` and ``*_middle`` in
            units of the loss that training takes away, and ``*_distance``; ``*_stderr`` of each.
        """
        import xarray as xr

        variables: dict[str, Any] = {}
        for name, table in self.figures().items():
            variables[name] = ("scale", table.mean(0))
            spread = table.std(0, ddof=1) / np.sqrt(len(table))
            variables[f"{name}_stderr"] = ("scale", spread)
        attrs = {"unit": self.unit, **asdict(self.design), **self.provenance}
        return xr.Dataset(variables, coords={"scale": list(self.design.scales)}, attrs=attrs)

    def to_xarray(self) -> xr.Dataset:
        """Give all pairs, over ``pair``."""
        import xarray as xr

        columns = {name: ("pair", column) for name, column in self.columns.items()}
        attrs = {"unit": self.unit, "kinds": KINDS, **asdict(self.design), **self.provenance}
        return xr.Dataset(columns, attrs=attrs)

    @classmethod
    def from_xarray(cls, data: xr.Dataset) -> Signature:
        """Read what `to_xarray` gave."""
        attrs = dict(data.attrs)
        unit = float(attrs.pop("unit"))
        attrs.pop("kinds")
        design = {name: attrs.pop(name) for name in asdict(Design())}
        columns = {str(name): np.asarray(column.values) for name, column in data.items()}
        return cls(Design(**design), columns, unit, attrs)


def signature(
    landscape: Landscape,
    starts: Tensor,
    *,
    training: Mapping[str, Any] | None = None,
    design: Design | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Signature:
    """
    Train, perturb at moments and scales, perturb what came of it, train on, and measure the lines.

    Children leave each parent at half and at the end of its training, at every scale; each child
    of the end founds a line of descent, all of one scale. On the straight lines between children
    and their parent, siblings, last descendants of siblings (cousins), these and their ancestor,
    and parents, the barrier, the loss in the middle and how far the two functions differ are
    measured. The protocol is the same on a network and on a synthetic landscape.

    Parameters
    ----------
    landscape : Landscape
        What is trained on.
    starts : Tensor
        Shape (parents, W): where trainings begin.
    training : mapping, optional
        ``lr``, ``momentum``, ``steps``, ``batch_size`` and ``schedule`` of `train`.
    design : Design, optional
        Which branches there are.
    seed : int
        Of noise, orders and places on lines.
    progress : Progress
        Shows descents.

    Raises
    ------
    InvalidArgument
        If there are not as many starts as parents, a setting is unknown, or training takes away no
        loss, so that there is no unit for barriers.

    Examples
    --------
    >>> from thalweg.landscape.synthetic import convex_bowl
    >>> bowl = convex_bowl(12)
    >>> starts = torch.randn(4, 12, generator=torch.Generator().manual_seed(0)).double()
    >>> found = signature(bowl, starts, design=Design(parents=4, copies=2, levels=3))
    >>> found.profile().returned.values.tolist()
    [1.0, 1.0, 1.0]
    """
    design = design or Design()
    recipe: dict[str, Any] = {**_TRAINING, **(training or {})}
    _check(landscape, starts, design, recipe)
    descents = 1 + (1 + design.generations) * design.levels * design.copies
    with progress(design.parents * descents, "descents") as bar:
        points = _Branches(landscape, design, recipe, seed, bar.update).grow(starts)
    before, after = (values_at(landscape, w) for w in (points["start"], points["parent"]))
    unit = float((before - after).mean())
    if not 0 < unit < math.inf:
        raise InvalidArgument(
            f"training changes the loss from {float(before.mean()):.6g} to"
            f" {float(after.mean()):.6g}; write a training that lowers it, such as a smaller lr or"
            " more steps."
        )
    columns = _measure(landscape, design, points, unit, seed)
    diverged = int((~np.isfinite(columns["barrier"] + columns["distance"])).sum())
    if diverged:
        raise InvalidArgument(
            f"{diverged} of {len(columns['kind'])} lines are not finite: descents diverged; write"
            " a smaller lr, or a smaller scale or fewer levels of the design."
        )
    return Signature(design, columns, unit, words_of(landscape))


class _Branches:
    """Parents, and their descendants: shapes (parents, levels, copies, W)."""

    def __init__(
        self,
        landscape: Landscape,
        design: Design,
        recipe: dict[str, Any],
        seed: int,
        told: Any,
    ) -> None:
        self.landscape, self.design, self.recipe = landscape, design, recipe
        self.seed, self.told = seed, told
        self.short = recipe | {"steps": max(1, round(design.branch * recipe["steps"]))}

    def grow(self, starts: Tensor) -> dict[str, Tensor]:
        starts = torch.stack([placed(self.landscape, w) for w in starts])
        halfway, ends = self._descend(starts, self.recipe, "parents")
        shape = (self.design.levels, self.design.copies)
        points = {"start": starts, "parent": ends}
        for name, origin in (("early child", halfway), ("child", ends)):
            wide = origin[:, None, None].expand(-1, *shape, -1)
            points |= self._branch(name, wide, origin)
        line = points["child"]
        for generation in range(1, self.design.generations):
            line = self._branch(f"generation {generation}", line, ends)[f"generation {generation}"]
        return points | {"descendant": line}

    def _branch(self, name: str, origins: Tensor, ancestors: Tensor) -> dict[str, Tensor]:
        """Perturb in units of the ancestors' weights, so that all steps of a line are as long."""
        generator, space = torch_generator(self.seed, name), self.landscape.space
        unit = torch.stack([_unit(space, w) for w in ancestors])[:, None, None]
        scales = torch.tensor(self.design.scales)[:, None, None].to(unit)
        noise = torch.randn(origins.shape, generator=generator, dtype=torch.float64)
        noisy = origins + scales * unit * noise.to(unit)
        ends = self._descend(noisy.flatten(0, 2), self.short, name)[1]
        return {name: ends.reshape(origins.shape), f"{name} start": noisy}

    def _descend(self, starts: Tensor, recipe: dict[str, Any], name: str) -> tuple[Tensor, Tensor]:
        seed = derive_seed(self.seed, name)
        halfway_and_ends = descend_from(self.landscape, starts, recipe, seed=seed)
        self.told(len(starts))
        return halfway_and_ends


def _unit(space: ParameterSpace, w: Tensor) -> Tensor:
    """Give the standard deviation of `thalweg.perturb`'s noise of scale 1, shape (W,)."""
    unit, scales = torch.empty_like(w), space.layer_scales(w)
    for parameter in space.parameters:
        unit[parameter.slice] = scales[parameter.layer]
    return unit


def _measure(
    landscape: Landscape, design: Design, points: dict[str, Tensor], unit: float, seed: int
) -> dict[str, Floats]:
    """Give the columns of a `Signature`."""
    names = ("parent", "early child", "child", "descendant")
    flat = torch.cat([points[name].reshape(-1, points[name].shape[-1]) for name in names])
    first, second, about = _pairs(design)
    own = values_at(landscape, flat).numpy()
    losses = _sample_losses(landscape, flat, own)
    barrier, middle = _lines(landscape, flat, own, first, second, design, seed)
    offsets = (flat[first] - flat[second]).double().norm(dim=1).numpy()
    steps = np.full(len(first), np.nan)
    for kind, name in ((0, "early child"), (1, "child")):
        # Early ones, too, are compared with what their parent came to.
        away = points[f"{name} start"] - points["parent"][:, None, None]
        steps[about["kind"] == kind] = away.double().norm(dim=-1).flatten().numpy()
    return about | {
        "distance": offsets,
        "step": steps,
        "barrier": barrier / unit,
        "middle": middle / unit,
        "rise": (own[first] - own[second]) / unit,
        "disagreement": np.abs(losses[first] - losses[second]).mean(1) / unit,
    }


def _pairs(design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, Floats]]:
    """Name all pairs by places among parents, early children, children and descendants."""
    size = design.levels * design.copies
    per = design.parents * size
    rows = []
    for parent, level, copy in itertools.product(
        range(design.parents), range(design.levels), range(design.copies)
    ):
        place = design.parents + parent * size + level * design.copies + copy
        rows.append((0, parent, level, copy, place, parent))
        rows.append((1, parent, level, copy, place + per, parent))
        rows.append((4, parent, level, copy, place + 2 * per, parent))
        if copy % 2:
            # Disjoint pairs: no point is in two of a kind.
            rows.append((2, parent, level, copy, place + per - 1, place + per))
            rows.append((3, parent, level, copy, place + 2 * per - 1, place + 2 * per))
    # Of two parents the later: what is left of fewer parents are those before it.
    between = [(5, j, 0, 0, i, j) for i, j in itertools.combinations(range(design.parents), 2)]
    table = np.array(sorted(rows) + between)
    about = {
        name: table[:, i].astype(np.float64)
        for i, name in enumerate(("kind", "parent", "level", "copy"))
    }
    return table[:, 4], table[:, 5], about


def _lines(
    landscape: Landscape,
    points: Tensor,
    own: Floats,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    design: Design,
    seed: int,
) -> tuple[Floats, Floats]:
    """Give the largest excess over the chord, and that in the middle, of each line."""
    inner = design.places - 1
    generator = torch_generator(seed, "places")
    jitter = torch.rand(len(first), inner, generator=generator, dtype=torch.float64)
    t = torch.cat([(torch.arange(inner) + jitter) / inner, torch.full((len(first), 1), 0.5)], 1)
    ends = points[second] - points[first]
    lines = points[first][:, None] + t[..., None].to(points) * ends[:, None]
    values = values_at(landscape, lines.flatten(0, 1)).reshape(t.shape).numpy()
    shares = t.numpy()
    excess = values - (1 - shares) * own[first, None] - shares * own[second, None]
    return excess.max(1), excess[:, -1]


def _sample_losses(landscape: Function, points: Tensor, values: Floats) -> Floats:
    """Evaluate each sample's loss at all points, held-out samples where there are: (k, N)."""
    other = landscape.held_out() if isinstance(landscape, HeldOut) else None
    if other is None and not isinstance(landscape, Scored | Sampled):
        return values[:, None]
    evaluate = sample_evaluator(landscape if other is None else other)
    return torch.stack([evaluate(w)["loss"] for w in points]).double().cpu().numpy()


def _check(landscape: Landscape, starts: Tensor, design: Design, recipe: dict[str, Any]) -> None:
    if starts.dim() != 2 or len(starts) != design.parents:
        raise InvalidArgument(
            f"starts of shape {tuple(starts.shape)}; write ({design.parents}, W), one for each"
            " parent of the design."
        )
    for w in starts:
        landscape.space.check(w)
    unknown = sorted(recipe.keys() - _TRAINING.keys())
    if unknown:
        raise InvalidArgument(f"training has {unknown[0]!r}; write some of {', '.join(_TRAINING)}.")
