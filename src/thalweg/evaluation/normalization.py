"""Batch normalization under measurement: whose statistics, stated, and differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import POLICIES, Policy

_Mode = Literal["stored", "batch", "running", "collect"]


def check_policy(policy: str) -> Policy:
    """
    Return ``policy`` if it is one.

    Raises
    ------
    InvalidArgument
        If it is not.
    """
    if policy not in POLICIES:
        known = ", ".join(repr(name) for name in POLICIES)
        raise InvalidArgument(f"batchnorm={policy!r}; write one of {known}.")
    return policy  # type: ignore[return-value]


class ControlledNorm:
    """
    Take over one batch-norm module of a model copy, with statistics under our control.

    Parameters
    ----------
    module : nn.Module
        A batch-norm layer. Its ``forward`` is replaced; its weights and buffers stay its own.
    """

    def __init__(self, module: nn.modules.batchnorm._BatchNorm) -> None:
        self.module = module
        self.mode: _Mode = "stored"
        self.mean, self.var = self._initial()
        self.moments: list[tuple[Tensor, Tensor, int]] = []
        self.total = 0
        module.forward = self._forward  # type: ignore[method-assign,assignment]

    def _initial(self) -> tuple[Tensor, Tensor]:
        m = self.module
        if m.running_mean is not None and m.running_var is not None:
            return m.running_mean, m.running_var
        like = next(iter(m.parameters()), torch.zeros(()))
        zeros = torch.zeros(m.num_features, dtype=like.dtype, device=like.device)
        return zeros, torch.ones_like(zeros)

    def _forward(self, x: Tensor) -> Tensor:
        m = self.module
        if self.mode == "stored":
            return self._with_stored(x)
        if self.mode == "running" and m.running_mean is not None:
            return self._with_running(x)
        if self.mode == "collect":
            return self._collecting(x)
        return F.batch_norm(x, None, None, m.weight, m.bias, True, 0.0, m.eps)

    def _collecting(self, x: Tensor) -> Tensor:
        """Normalize by the batch, and keep its moments, which torch's kernel computes anyway."""
        m, channels, count = self.module, x.shape[1], x.numel() // x.shape[1]
        mean, var = x.new_zeros(channels), x.new_ones(channels)
        # With a momentum of 1 the running statistics become those of this batch.
        normalized = F.batch_norm(x, mean, var, m.weight, m.bias, True, 1.0, m.eps)
        population = var * ((count - 1) / count)
        moments = _Moments.apply(x, mean, population)  # type: ignore[no-untyped-call]
        self.moments.append((*moments, count))
        return normalized

    def _with_stored(self, x: Tensor) -> Tensor:
        m = self.module
        if not (self.mean.requires_grad or self.var.requires_grad):
            return F.batch_norm(x, self.mean, self.var, m.weight, m.bias, False, 0.0, m.eps)
        # torch's kernel gives no gradient to the statistics, so they are written out here.
        scale = torch.rsqrt(self.var + m.eps)
        scale = scale if m.weight is None else scale * m.weight
        shift = -self.mean * scale if m.bias is None else m.bias - self.mean * scale
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)

    def _with_running(self, x: Tensor) -> Tensor:
        m = self.module
        count = m.num_batches_tracked
        if count is not None:
            count.add_(1)
        momentum = m.momentum if m.momentum is not None else 1.0 / float(count or 1)
        return F.batch_norm(
            x, m.running_mean, m.running_var, m.weight, m.bias, True, momentum, m.eps
        )

    def pooled(self) -> tuple[Tensor, Tensor]:
        """
        Pool the collected moments by the law of total variance.

        Returns
        -------
        mean, var : Tensor
            Shape (channels,): mean and population variance of the layer's inputs.
        """
        self.total = total = sum(count for _, _, count in self.moments)
        mean = sum((m.double() * (n / total) for m, _, n in self.moments), torch.zeros(()))
        square = sum(
            ((v.double() + m.double().square()) * (n / total) for m, v, n in self.moments),
            torch.zeros(()),
        )
        kind = self.moments[0][0].dtype
        return mean.to(kind), (square - mean.square()).clamp_min(0.0).to(kind)


class _Moments(torch.autograd.Function):
    """Mean and population variance of each channel, already known, as functions of the values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, mean)
        return mean.clone(), var.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        x, mean = ctx.saved_tensors
        shape = (1, -1) + (1,) * (x.dim() - 2)
        by_mean, by_var = (c.view(shape) * (x.shape[1] / x.numel()) for c in cotangents)
        constant = by_mean - 2 * by_var * mean.view(shape)
        return torch.addcmul(constant, by_var, x, value=2), None, None


class Normalization:
    """All batch-norm layers of a model copy, switched together."""

    def __init__(self, model: nn.Module) -> None:
        self.norms = [
            ControlledNorm(module)
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]

    def __bool__(self) -> bool:
        return bool(self.norms)

    @contextmanager
    def mode(self, mode: _Mode) -> Iterator[None]:
        """Use other statistics inside the block, the stored ones again after it."""
        for norm in self.norms:
            norm.mode = mode
            norm.moments = []
        try:
            yield
        finally:
            for norm in self.norms:
                norm.mode = "stored"

    def stored(self) -> list[tuple[Tensor, Tensor]]:
        """Give the statistics in use, one pair (mean, variance) a layer."""
        return [(norm.mean, norm.var) for norm in self.norms]

    def store(self, statistics: list[tuple[Tensor, Tensor]]) -> None:
        """Use these statistics from now on."""
        for norm, (mean, var) in zip(self.norms, statistics, strict=True):
            norm.mean, norm.var = mean, var

    def restore_buffers(self) -> None:
        """Use the model's own buffers from now on."""
        for norm in self.norms:
            norm.mean, norm.var = norm._initial()

    def estimate(self, forward_all: Callable[[], None]) -> list[tuple[Tensor, Tensor]]:
        """Run ``forward_all`` over the calibration batches and pool what each layer sees."""
        with self.mode("collect"):
            forward_all()
            return [norm.pooled() for norm in self.norms]

    def pull_back(self, cotangents: list[tuple[Tensor, Tensor]]) -> Tensor:
        """
        Pair collected moments of one calibration batch with cotangents of the statistics.

        With v = E[x^2] - m^2, a cotangent (dm, dv) of (m, v) is a cotangent
        (dm - 2 m dv, dv) of (E[x], E[x^2]).

        Parameters
        ----------
        cotangents : list of pairs of Tensor
            Derivatives of the risk with respect to each layer's mean and variance.

        Returns
        -------
        Tensor
            A scalar whose gradient is this batch's share of the risk's gradient through the
            statistics.
        """
        paired = torch.zeros(())
        for norm, (d_mean, d_var) in zip(self.norms, cotangents, strict=True):
            for mean, var, count in norm.moments:
                first = (d_mean - 2 * norm.mean.detach() * d_var) * mean
                second = d_var * (var + mean.square())
                paired = paired + (first + second).sum() * (count / norm.total)
            norm.moments = []
        return paired
