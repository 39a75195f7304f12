"""Directions in parameter space: random, through given points, principal; and projections."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.curvature.ranks import singular_cutoff
from thalweg.errors import InvalidArgument
from thalweg.geometry.anchors import Anchors
from thalweg.geometry.signs import balancing_signs
from thalweg.landscape.protocols import Function
from thalweg.landscape.space import Kind, Parameter, ParameterSpace
from thalweg.problems.between import FixedParts, States
from thalweg.problems.checkpoints import Point
from thalweg.result import Result
from thalweg.run.seeds import torch_generator

Normalize = Literal["filter", "layer"]
# Cosines below are those of rounding: float32 entries of a network's filters.
_ORTHOGONAL = 1e-4
# Correlation, the sine of 30 degrees, that groups with room take before others change signs.
_BENT = 0.5
# Smallest singular value of unit directions that are independent.
_DEPENDENT = 1e-3
log = logging.getLogger("thalweg")


def random_directions(
    space: ParameterSpace,
    w: Tensor,
    count: int = 2,
    *,
    normalize: Normalize | None = "filter",
    seed: int = 0,
    kinds: Sequence[Kind] = ("weight",),
    orthogonal: bool = True,
) -> Tensor:
    """
    Draw Gaussian directions and scale them to the weights they start from.

    A direction's entries are grouped, and each group is scaled to the norm of the same entries of
    ``w``. With ``"filter"`` every filter of a kernel is a group (Li et al. 2018, "Visualizing the
    loss landscape of neural nets", section 4); with ``"layer"`` every layer's kernels. Biases and
    parameters of normalization layers are left out (zero) unless ``kinds`` names them; then those
    of one layer and kind are one group under either rule. A kernel of one dimension is one group.

    Parameters
    ----------
    space : ParameterSpace
        Names layers and filters.
    w : Tensor
        Shape (W,): where the directions start.
    count : int
        Number of directions k.
    normalize : {"filter", "layer"} or None
        None leaves the Gaussian's own length, about the square root of the number of entries.
    seed : int
        Direction i is a function of ``seed`` and i alone, but for the orthogonalization.
    kinds : sequence of {"weight", "bias", "norm"}
        Which weights the directions move.
    orthogonal : bool
        Make the directions orthogonal as they are returned, after scaling, which every group
        keeps. The first stays as drawn. A group with room for it, of more entries than there are
        directions before, is made orthogonal within itself. Groups without room, such as filters
        of one entry, stay as drawn, and the others take back, evenly, what these leave; where that
        would bend them by more than 30 degrees, groups without room change their signs first, as
        few as it takes. `cosines` says how near to orthogonal the directions came: where weights
        of a tiny network allow no right angle, the angle is as near to one as signs and room allow,
        and a warning is logged.

    Returns
    -------
    Tensor
        Shape (W, k), in the dtype and on the device of ``w``.

    Raises
    ------
    InvalidArgument
        If an argument is none of the above, if ``w`` is zero wherever the directions could move,
        or if there are fewer weights to move than directions.

    Examples
    --------
    >>> space = ParameterSpace.of(torch.nn.Linear(3, 2))
    >>> w = torch.tensor([3.0, 0.0, 4.0, 0.0, 2.0, 0.0, 1.0, 1.0])
    >>> directions = random_directions(space, w)
    >>> [float(f.norm().round(decimals=4)) for f in directions[:, 0].split([3, 3, 2])]
    [5.0, 2.0, 0.0]
    """
    space.check(w)
    _check(count, normalize, kinds)
    drawn = torch.stack(
        [
            torch.randn(
                space.size, generator=torch_generator(seed, "direction", i), dtype=torch.float64
            )
            for i in range(count)
        ],
        dim=1,
    )
    origin = w.detach().cpu().double()
    parts = [
        _Part(entries, drawn[entries], None if normalize is None else origin[entries].norm(dim=1))
        for entries in scaled_groups(space, normalize, kinds)
    ]
    if orthogonal and count > 1:
        _orthogonalize(parts, count)
    directions = torch.zeros(space.size, count, dtype=w.dtype)
    for part in parts:
        directions[part.entries] = part.scaled().to(w.dtype)
    if not bool(directions.any(0).all()):
        raise InvalidArgument(
            f"the weights of kinds {tuple(kinds)} are all zero (or there are none), so directions"
            " scaled to them are zero; write normalize=None or name other kinds."
        )
    if orthogonal and count > 1:
        _check_angles(directions, normalize, kinds)
    return directions.to(w.device)


def cosines(directions: Tensor) -> list[float]:
    """
    Measure how orthogonal directions are.

    Parameters
    ----------
    directions : Tensor
        Shape (W, k).

    Returns
    -------
    list of float
        The cosine of each pair's angle, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Examples
    --------
    >>> cosines(torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]]))
    [0.0, 0.7071067811865475, 0.7071067811865475]
    """
    gram = directions.double().T @ directions.double()
    lengths = gram.diagonal().sqrt()
    pairs = itertools.combinations(range(len(gram)), 2)
    return [float(gram[i, j] / lengths[i] / lengths[j]) for i, j in pairs]


def not_orthogonal(directions: Tensor) -> str:
    """Say how far from orthogonal random directions stayed; nothing where they did not."""
    widest = max(cosines(directions), key=abs, default=0.0)
    if abs(widest) <= _ORTHOGONAL:
        return ""
    return f" have a cosine of {widest:.2g}, for filters of few entries leave no right angle"


def _check_angles(directions: Tensor, normalize: Normalize | None, kinds: Sequence[Kind]) -> None:
    unit = directions.double() / directions.double().norm(dim=0)
    if float(torch.linalg.svdvals(unit)[-1]) < _DEPENDENT:
        raise InvalidArgument(
            f"{directions.shape[1]} directions that move the weights of kinds {tuple(kinds)} by"
            f" normalize={normalize!r} all lie in fewer dims, for too few weights are not zero;"
            " write fewer directions, kinds=('weight', 'bias', 'norm'), or normalize=None."
        )
    if fault := not_orthogonal(directions):
        log.warning(
            "random directions%s. normalize='layer' scales whole layers, which have room for it.",
            fault,
        )


@dataclass
class _Part:
    """
    Groups of equal size.

    ``entries`` (groups, size) are places in the flat vector, ``values`` (groups, size, k) the
    directions there, ``norms`` (groups,) what each group is scaled to, None for its own norm.
    """

    entries: Tensor
    values: Tensor
    norms: Tensor | None

    def lengths(self) -> Tensor:
        """Norms wanted: (groups, k)."""
        own = self.values.norm(dim=1)
        return own if self.norms is None else self.norms[:, None].expand_as(own)

    def capacity(self) -> float:
        """Sum of squared norms: the inner product that two directions can have here."""
        return float(self.lengths().square().mean(1).sum())

    def scaled(self) -> Tensor:
        """Scale each group of each direction to its norm."""
        # A filter of zeros has zero directions, and no length to divide by.
        own = self.values.norm(dim=1).clamp_min(torch.finfo(self.values.dtype).tiny)
        ratio: Tensor = self.lengths() / own
        return self.values * ratio[:, None, :]


def _orthogonalize(parts: list[_Part], count: int) -> None:
    """
    Make directions orthogonal, one after another, each group keeping its norm.

    Groups with room have orthonormal frames; their directions are the rows of one lower triangular
    factor of a correlation that cancels the inner products of the groups without room.
    """
    frames = [_frame(part, min(count, part.entries.shape[1])) for part in parts]
    factor = torch.zeros(count, count, dtype=torch.float64)
    for part in parts:
        part.values = part.scaled()
    for j in range(count):
        roomy = [i for i, part in enumerate(parts) if part.entries.shape[1] > j]
        tight = [part for part in parts if part.entries.shape[1] <= j]
        row = _cancelling(tight, factor[:j, :j], sum(parts[i].capacity() for i in roomy))
        factor[j, :j], factor[j, j] = row, (1 - row.square().sum()).clamp_min(0).sqrt()
        for i in roomy:
            column = frames[i][:, :, : j + 1] @ factor[j, : j + 1]
            parts[i].values[:, :, j] = column * parts[i].lengths()[:, None, j]


def _cancelling(tight: list[_Part], factor: Tensor, capacity: float) -> Tensor:
    """
    Give the row of the factor that cancels what groups without room leave, as far as it can.

    Their blocks of the direction change signs, where it takes that.
    """
    j = len(factor)
    blocks = [part.values[:, :, j] for part in tight]
    left = [
        torch.einsum("gsi,gs->gi", part.values[:, :, :j], block)
        for part, block in zip(tight, blocks, strict=True)
    ]
    if not j or not left:
        return torch.zeros(j, dtype=torch.float64)
    shares = torch.cat(left) @ torch.linalg.pinv(factor).T
    signs = balancing_signs(shares, _BENT * capacity)
    for block, own in zip(blocks, signs.split([len(block) for block in blocks]), strict=True):
        block *= own[:, None]
    row: Tensor = -(signs @ shares) / max(capacity, torch.finfo(torch.float64).tiny)
    return row.div(max(1.0, float(row.norm())))


def _frame(part: _Part, count: int) -> Tensor:
    """Orthonormal columns in every group, the first along the first direction."""
    columns: list[Tensor] = []
    for column in part.values.unbind(2)[:count]:
        for _ in range(2):  # the second pass takes out what rounding left
            for before in columns:
                column = column - (before * column).sum(1, keepdim=True) * before
        columns.append(column / column.norm(dim=1, keepdim=True))
    return torch.stack(columns, 2)


def scaled_groups(
    space: ParameterSpace, normalize: Normalize | None, kinds: Sequence[Kind]
) -> Iterator[Tensor]:
    """Give places in the flat vector, (groups, size), of groups that are scaled together."""
    layers: dict[tuple[str, str], list[Tensor]] = {}
    for parameter in space.parameters:
        if parameter.kind not in kinds or not parameter.size:
            continue
        if normalize == "filter" and parameter.kind == "weight":
            yield _filters(parameter)
        else:
            # Without scaling all entries are one group: orthogonal as a whole.
            key = ("", "") if normalize is None else (parameter.layer, parameter.kind)
            layers.setdefault(key, []).append(_places(parameter))
    for places in layers.values():
        yield torch.cat(places)[None]


def _places(parameter: Parameter) -> Tensor:
    return torch.arange(parameter.slice.start, parameter.slice.stop)


def _filters(parameter: Parameter) -> Tensor:
    places = _places(parameter)
    if len(parameter.shape) < 2:
        return places[None]
    # A complex number is two real ones, of the same filter.
    shape = (*parameter.shape, 2) if parameter.complex else parameter.shape
    return places.view(shape).transpose(0, parameter.filter_dim).flatten(1)


def _check(count: int, normalize: str | None, kinds: Sequence[str]) -> None:
    if count < 1:
        raise InvalidArgument(f"count={count}; write a positive number of directions.")
    if normalize is not None and normalize not in get_args(Normalize):
        raise InvalidArgument(f"normalize={normalize!r}; write 'filter', 'layer' or None.")
    unknown = [kind for kind in kinds if kind not in get_args(Kind)]
    if isinstance(kinds, str) or unknown or not kinds:
        raise InvalidArgument(
            f"kinds={kinds!r}; write a tuple of 'weight', 'bias', 'norm', such as ('weight',)."
        )


@dataclass(frozen=True)
class PointsPlane(Result):
    """
    A line, plane or space through given points.

    Attributes
    ----------
    origin : Tensor
        Shape (W,): the first point.
    directions : Tensor
        Shape (W, k) for k + 1 points, orthogonal, of equal length: the distance of the first two.
    coordinates : Tensor
        Shape (k + 1, k), float64: where the points lie, in units of the directions. The first is at
        0, the second at (1, 0).
    states : States
        The points with their frozen weights and buffers, where whole states were given.
    """

    origin: Tensor
    directions: Tensor
    coordinates: Tensor
    states: States

    @property
    def anchors(self) -> Anchors | None:
        """What gives each place its frozen weights and buffers; None where they do not differ."""
        return Anchors(self.coordinates, self.states.parts) if self.states.parts else None


def through_points(*points: Tensor | Point, risk: Function | None = None) -> PointsPlane:
    """
    Lay a line through two points, a plane through three, or a space through four.

    Angles and ratios of lengths in the plane are true, as all directions are orthogonal and of one
    length.

    Parameters
    ----------
    *points : Tensor or Point
        Flat vectors, shape (W,), or whole states (`open_point`).
    risk : EmpiricalRisk, optional
        Whose weights these are; needed for whole states.

    Returns
    -------
    PointsPlane
        Origin, directions and the coordinates of the points; `surface` takes it as it is.

    Raises
    ------
    InvalidArgument
        If shapes differ, the first two points coincide, or another lies where those before it
        span.

    Examples
    --------
    >>> w0, w1, w2 = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    >>> plane = through_points(w0, w1, w2)
    >>> plane.coordinates.tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.5, 1.5]]
    >>> plane.directions.T.tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """
    states = _states(points, risk)
    return _through(states.weights, states)


def _states(points: Sequence[Tensor | Point], risk: Function | None) -> States:
    if not 2 <= len(points) <= 4:
        raise InvalidArgument(f"{len(points)} points; give two for a line, three for a plane.")
    if risk is None:
        flat = [point for point in points if isinstance(point, Tensor)]
        if len(flat) < len(points):
            raise InvalidArgument(
                "give flat vectors, or whole states of tw.open_point with the risk whose they are:"
                " through_points(*points, risk=risk)."
            )
        return States(flat, [], FixedParts())
    return States.of(risk, points)


def _through(points: list[Tensor], states: States) -> PointsPlane:
    origin = points[0]
    if len({(tuple(p.shape), p.dtype) for p in points}) > 1 or origin.dim() != 1:
        shapes = [(tuple(p.shape), p.dtype) for p in points]
        raise InvalidArgument(f"points of shapes and dtypes {shapes}; give vectors of one space.")
    length = float((points[1].double() - origin.double()).norm())
    if length == 0.0:
        raise InvalidArgument("the first two are the same point, so no line goes through them.")
    longest = max(float(point.double().norm()) for point in points)
    directions: list[Tensor] = []
    coordinates = [[0.0] * (len(points) - 1)]
    for place, point in enumerate(points[1:]):
        rest, along = point.double() - origin.double(), [0.0] * len(directions)
        for _ in range(2):  # the second pass takes out what rounding left
            for i, before in enumerate(directions):
                share = float(rest @ before) / length**2
                rest, along[i] = rest - share * before, along[i] + share
        height = float(rest.norm())
        # Below this, what is left is the rounding of the points themselves.
        if height <= 4 * torch.finfo(origin.dtype).eps * longest:
            raise InvalidArgument(
                f"point {place + 2} lies on the line or plane of those before it; give these alone."
            )
        directions.append(rest * (length / height))
        row = [*along, height / length]
        coordinates.append(row + [0.0] * (len(points) - 1 - len(row)))
    basis = torch.stack(directions, 1).to(origin.dtype)
    places = torch.tensor(coordinates, dtype=torch.float64)
    return PointsPlane(origin, basis, places, states)


@dataclass(frozen=True)
class PrincipalDirections(Result):
    """
    Principal components of points.

    Attributes
    ----------
    mean : Tensor
        Shape (W,).
    directions : Tensor
        Shape (W, k), orthonormal; each points from the first point to the last.
    explained_variance : Tensor
        Shape (k,), float64: variance along each, with divisor n - 1.
    explained_variance_ratio : Tensor
        Shape (k,), float64: the same as a share of the total variance.
    """

    mean: Tensor
    directions: Tensor
    explained_variance: Tensor
    explained_variance_ratio: Tensor


def principal_directions(weights: Tensor, count: int = 2) -> PrincipalDirections:
    """
    Find the directions in which points of a trajectory vary most.

    Parameters
    ----------
    weights : Tensor
        Shape (n, W): points, such as all weights along a training.
    count : int
        Number of directions k.

    Returns
    -------
    PrincipalDirections
        Orthonormal directions and the variance along each.

    Raises
    ------
    InvalidArgument
        If the points span fewer than k dimensions.

    Notes
    -----
    From the eigenvectors of the Gram matrix of the centred points (n, n), in float64.

    Examples
    --------
    >>> points = torch.tensor(
    ...     [[-2.0, 0.0, 7.0], [0.0, 1.0, 7.0], [0.0, -1.0, 7.0], [2.0, 0.0, 7.0]]
    ... )
    >>> found = principal_directions(points)
    >>> found.explained_variance_ratio
    tensor([0.8000, 0.2000], dtype=torch.float64)
    >>> found.directions[:, 0].abs()
    tensor([1., 0., 0.])
    """
    if weights.dim() != 2 or count < 1:
        raise InvalidArgument(
            f"weights of shape {tuple(weights.shape)} and count={count}; expected shape (n, W) and"
            " a positive count."
        )
    mean = weights.double().mean(0)
    centred = weights.double() - mean
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0), vectors.flip(1)
    # Centring moves every entry by rounding: what is below is no direction of the points.
    floor = singular_cutoff((len(weights),)) ** 2 * float(values.clamp_min(0).max())
    rank = int((values > floor).sum())
    if count > rank:
        raise InvalidArgument(f"count={count}, and the {len(weights)} points span {rank} dims.")
    directions = torch.linalg.qr(centred.T @ vectors[:, :count])[0]
    travelled = (centred[-1] - centred[0]) @ directions
    directions = directions * torch.where(travelled < 0, -1.0, 1.0)
    variance = values[:count] / (len(weights) - 1)
    share = values[:count] / centred.square().sum()
    kind = weights.dtype
    return PrincipalDirections(mean.to(kind), directions.to(kind), variance, share)


@dataclass(frozen=True)
class Projection(Result):
    """
    Points seen in a line, plane or space.

    Attributes
    ----------
    coordinates : Tensor
        Shape (n, k), float64, in units of the directions.
    distances : Tensor
        Shape (n,), float64: how far each point lies off the plane.
    variance_share : float
        Share of the points' variance that the plane shows; NaN if all points are one.
    """

    coordinates: Tensor
    distances: Tensor
    variance_share: float


def project(trajectory: Tensor, origin: Tensor, directions: Tensor) -> Projection:
    """
    Project points orthogonally onto a plane and say how much of them it shows.

    Parameters
    ----------
    trajectory : Tensor
        Shape (n, W).
    origin : Tensor
        Shape (W,): the plane's point at coordinates 0.
    directions : Tensor
        Shape (W, k), linearly independent, of any lengths and angles.

    Returns
    -------
    Projection
        Coordinates, distances from the plane and the share of variance shown.

    Raises
    ------
    InvalidArgument
        If shapes do not fit or the directions are linearly dependent.

    Examples
    --------
    >>> points = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [4.0, -1.0, 0.0]])
    >>> seen = project(points, torch.zeros(3), torch.tensor([[2.0], [0.0], [0.0]]))
    >>> seen.coordinates.flatten().tolist(), seen.distances.tolist()
    ([0.0, 1.0, 2.0], [0.0, 1.0, 1.0])
    >>> seen.variance_share
    0.8
    """
    if (
        directions.dim() != 2
        or trajectory.dim() != 2
        or not (trajectory.shape[1] == len(directions) == origin.numel())
    ):
        raise InvalidArgument(
            f"trajectory {tuple(trajectory.shape)}, origin {tuple(origin.shape)} and directions"
            f" {tuple(directions.shape)} do not fit; expected (n, W), (W,) and (W, k)."
        )
    basis, upper = torch.linalg.qr(directions.double())
    diagonal = upper.diagonal().abs()
    if bool((diagonal <= 1e-10 * directions.double().norm(dim=0)).any()):
        raise InvalidArgument("the directions are linearly dependent: they span no such plane.")
    offsets = trajectory.double() - origin.double()
    within = offsets @ basis
    distances = (offsets - within @ basis.T).norm(dim=1)
    total = float((offsets - offsets.mean(0)).square().sum())
    shown = float((within - within.mean(0)).square().sum())
    coordinates = torch.linalg.solve_triangular(upper, within.T, upper=True).T
    return Projection(coordinates, distances, shown / total if total > 0 else float("nan"))
