"""Random directions in parameter space, scaled to the weights they start from."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.signs import balancing_signs
from thalweg.landscape.space import Kind, Parameter, ParameterSpace
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
    all_groups = [
        _Groups(entries, drawn[entries], None if normalize is None else origin[entries].norm(dim=1))
        for entries in scaled_groups(space, normalize, kinds)
    ]
    if orthogonal and count > 1:
        _orthogonalize(all_groups, count)
    directions = torch.zeros(space.size, count, dtype=w.dtype)
    for groups in all_groups:
        directions[groups.entries] = groups.scaled().to(w.dtype)
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
class _Groups:
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
        present = self.values.norm(dim=1)
        return present if self.norms is None else self.norms[:, None].expand_as(present)

    def capacity(self) -> float:
        """Sum of squared norms: the inner product that two directions can have here."""
        return float(self.lengths().square().mean(1).sum())

    def scaled(self) -> Tensor:
        """Scale each group of each direction to its norm."""
        # A filter of zeros has zero directions, and no length to divide by.
        present = self.values.norm(dim=1).clamp_min(torch.finfo(self.values.dtype).tiny)
        ratio: Tensor = self.lengths() / present
        return self.values * ratio[:, None, :]


def _orthogonalize(all_groups: list[_Groups], count: int) -> None:
    """
    Make directions orthogonal, one after another, each group keeping its norm.

    Groups with room have orthonormal frames; their directions are the rows of one lower triangular
    factor of a correlation that cancels the inner products of the groups without room.
    """
    frames = [_frame(groups, min(count, groups.entries.shape[1])) for groups in all_groups]
    factor = torch.zeros(count, count, dtype=torch.float64)
    for groups in all_groups:
        groups.values = groups.scaled()
    for j in range(count):
        roomy = [i for i, groups in enumerate(all_groups) if groups.entries.shape[1] > j]
        tight = [groups for groups in all_groups if groups.entries.shape[1] <= j]
        row = _cancelling(tight, factor[:j, :j], sum(all_groups[i].capacity() for i in roomy))
        factor[j, :j], factor[j, j] = row, (1 - row.square().sum()).clamp_min(0).sqrt()
        for i in roomy:
            column = frames[i][:, :, : j + 1] @ factor[j, : j + 1]
            all_groups[i].values[:, :, j] = column * all_groups[i].lengths()[:, None, j]


def _cancelling(tight: list[_Groups], factor: Tensor, capacity: float) -> Tensor:
    """
    Give the row of the factor that cancels what groups without room leave, as far as it can.

    Their blocks of the direction change signs, where it takes that.
    """
    j = len(factor)
    blocks = [groups.values[:, :, j] for groups in tight]
    products = [
        torch.einsum("gsi,gs->gi", groups.values[:, :, :j], block)
        for groups, block in zip(tight, blocks, strict=True)
    ]
    if not j or not products:
        return torch.zeros(j, dtype=torch.float64)
    shares = torch.cat(products) @ torch.linalg.pinv(factor).T
    signs = balancing_signs(shares, _BENT * capacity)
    for block, block_signs in zip(
        blocks, signs.split([len(block) for block in blocks]), strict=True
    ):
        block *= block_signs[:, None]
    row: Tensor = -(signs @ shares) / max(capacity, torch.finfo(torch.float64).tiny)
    return row.div(max(1.0, float(row.norm())))


def _frame(groups: _Groups, count: int) -> Tensor:
    """Orthonormal columns in every group, the first along the first direction."""
    columns: list[Tensor] = []
    for column in groups.values.unbind(2)[:count]:
        for _ in range(2):  # the second pass takes out what rounding left
            for earlier in columns:
                column = column - (earlier * column).sum(1, keepdim=True) * earlier
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
