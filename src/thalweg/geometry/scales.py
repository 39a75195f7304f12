"""Units of perturbations: what each weight's noise, or its part of a ball, is measured in."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.directions import scaled_groups
from thalweg.landscape.protocols import LinearOperator, words_of
from thalweg.landscape.space import Kind, ParameterSpace

Form = Literal["plain", "adaptive", "filter"]
_ALL: tuple[Kind, ...] = get_args(Kind)


def perturbation_scales(space: ParameterSpace, w: Tensor, form: Form) -> Tensor:
    """
    Give every weight the unit in which it is perturbed.

    In all forms the units have the length of ``w``, so that noise of relative size s, and the
    boundary of a ball of relative radius s, are s |w| away, whatever the form.

    Parameters
    ----------
    space : ParameterSpace
        Names layers and filters.
    w : Tensor
        Shape (W,).
    form : {"plain", "adaptive", "filter"}
        The root mean square of all weights; the magnitude of each (Kwon et al., ASAM, 2021, whose
        operator is ``|w|``); or the root mean square of the weight's filter, for biases and
        parameters of norms of their layer's.

    Returns
    -------
    Tensor
        Shape (W,), float64, on the CPU. Zeros do not move.

    Raises
    ------
    InvalidArgument
        If the form is none of these, or ``w`` is zero.
    InvalidWeights
        If ``w`` is no point of the space.

    Examples
    --------
    >>> space = ParameterSpace.of(torch.nn.Linear(2, 2))
    >>> w = torch.tensor([3.0, -4.0, 0.0, 0.0, 1.0, 0.0])
    >>> perturbation_scales(space, w, "adaptive").tolist()
    [3.0, 4.0, 0.0, 0.0, 1.0, 0.0]
    >>> [round(float(s), 3) for s in perturbation_scales(space, w, "filter")]
    [3.536, 3.536, 0.0, 0.0, 0.707, 0.707]
    """
    space.check(w)
    if form not in get_args(Form):
        raise InvalidArgument(f"form={form!r}; write one of {', '.join(get_args(Form))}.")
    magnitudes = w.detach().double().cpu().abs()
    if not bool(magnitudes.any()):
        raise InvalidArgument(
            "all weights are zero, so that noise relative to them is none; give a trained point."
        )
    if form == "adaptive":
        return magnitudes
    if form == "plain":
        return torch.full_like(magnitudes, float(magnitudes.norm()) / math.sqrt(len(magnitudes)))
    scales = torch.zeros_like(magnitudes)
    for entries in scaled_groups(space, "filter", _ALL):
        scales[entries] = magnitudes[entries].square().mean(1, keepdim=True).sqrt()
    return scales


class Scaled:
    """
    A symmetric operator in other units: S A S, with S the diagonal matrix of the scales.

    Parameters
    ----------
    op : LinearOperator
        A, shape (W, W).
    scales : Tensor
        Shape (W,), not negative.
    """

    def __init__(self, op: LinearOperator, scales: Tensor) -> None:
        self.op, self.shape, self.dtype, self.device = op, op.shape, op.dtype, op.device
        self.scales = scales.to(op.device, op.dtype)
        self.described = {**words_of(op), "units": "scaled on both sides"}

    def __matmul__(self, v: Tensor) -> Tensor:
        """Multiply a vector, shape (W,), or each column of a matrix, shape (W, k)."""
        scales = self.scales if v.dim() == 1 else self.scales[:, None]
        return scales * (self.op @ (scales * v))
