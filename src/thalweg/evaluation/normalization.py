"""Batch normalization under measurement: whose statistics, stated, and differentiable."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thalweg.errors import InvalidArgument, InvalidProblem
from thalweg.landscape.provenance import POLICIES, Policy

_Mode = Literal["stored", "batch", "running", "collect", "differentiate", "evaluation"]
_PLAIN = {nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward}
_batch_norm = F.batch_norm
_BATCH_NORM_ARGUMENTS = inspect.signature(F.batch_norm)


def check_policy(policy: str) -> Policy:
    """
    Return ``policy`` if it is one.

    Raises
    ------
    InvalidArgument
        If it is not.
    """
    if policy not in POLICIES:
        policies = ", ".join(repr(name) for name in POLICIES)
        raise InvalidArgument(f"batchnorm={policy!r}; write one of {policies}.")
    return policy  # type: ignore[return-value]


class ControlledNorm:
    """
    Take over one batch-norm module of a model copy, with statistics under our control.

    A subclass keeps its own ``forward``, whatever it does besides (a fused activation, a
    condition): only the calls of torch's batch norm in it are taken over.

    Parameters
    ----------
    name : str
        Its name in the model.
    module : nn.Module
        A batch-norm layer. Its ``forward`` is replaced; its weights and buffers stay its own.
    """

    def __init__(self, name: str, module: nn.modules.batchnorm._BatchNorm) -> None:
        # Weakly: the module holds this by its forward, and a copy of a model that held itself would
        # stay in memory after its last use, until the collector of cycles comes by.
        self.name, self._module = name, weakref.ref(module)
        self.mode: _Mode = "stored"
        self.differentiable = False
        self.mean, self.var = self._initial()
        self.moments: list[tuple[Tensor, Tensor, int]] = []
        self.total = 0
        own = module.forward
        plain = "forward" not in vars(module) and type(module).forward in _PLAIN
        module.forward = (  # type: ignore[method-assign]
            self._plain if plain else lambda *args, **kwargs: self._within(own, *args, **kwargs)
        )

    @property
    def module(self) -> nn.modules.batchnorm._BatchNorm:
        """The layer, which the copy of the model holds."""
        module = self._module()
        assert module is not None
        return module

    @property
    def kept(self) -> bool:
        """Whether the module keeps running statistics."""
        return self.module.running_mean is not None and self.module.running_var is not None

    def _initial(self) -> tuple[Tensor, Tensor]:
        m = self.module
        if m.running_mean is not None and m.running_var is not None:
            return m.running_mean, m.running_var
        like = next(iter(m.parameters()), torch.zeros(()))
        zeros = torch.zeros(m.num_features, dtype=like.dtype, device=like.device)
        return zeros, torch.ones_like(zeros)

    def _plain(self, input: Tensor) -> Tensor:
        m = self.module
        return self.normalize(input, m.weight, m.bias, m.eps)

    def _within(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls = _Calls(self)
        with calls:
            output = own(*args, **kwargs)
        if not calls.seen and self.mode not in ("stored", "evaluation"):
            raise InvalidProblem(
                f"{self.name} ({type(self.module).__name__}) is a batch norm that normalizes by"
                " formulas of its own, so its statistics cannot be taken over; write"
                " batchnorm='frozen' to have it measured as it is in evaluation mode, or have its"
                " forward call super().forward(x) or F.batch_norm."
            )
        return output

    def normalize(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """Normalize by the statistics that the present mode wants, then scale and shift."""
        if self.mode == "stored" or (self.mode == "evaluation" and self.kept):
            return self._with_stored(x, weight, bias, eps)
        if self.mode == "running" and self.module.running_mean is not None:
            return self._with_running(x, weight, bias, eps)
        if self.mode == "collect":
            return self._collecting(x, weight, bias, eps)
        if self.mode == "differentiate":
            self._keep_moments(x)
        return _batch_norm(x, None, None, weight, bias, True, 0.0, eps)

    def _keep_moments(self, x: Tensor) -> None:
        """Keep E[x] and E[x^2] of the batch as torch differentiates them, as often as wanted."""
        dims = [dim for dim in range(x.dim()) if dim != 1]
        self.moments.append((x.mean(dims), x.square().mean(dims), x.numel() // x.shape[1]))

    def _collecting(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """Normalize by the batch, and keep its moments, which torch's kernel computes anyway."""
        channels, count = x.shape[1], x.numel() // x.shape[1]
        mean, var = x.new_zeros(channels), x.new_ones(channels)
        # With a momentum of 1 the running statistics become those of this batch.
        normalized = _batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
        population = var * ((count - 1) / count)
        moments = _Moments.apply(x, mean, population)  # type: ignore[no-untyped-call]
        self.moments.append((*moments, count))
        return normalized

    def _with_stored(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        if not (self.differentiable or self.mean.requires_grad or self.var.requires_grad):
            return _batch_norm(x, self.mean, self.var, weight, bias, False, 0.0, eps)
        # torch's kernel gives no gradient to the statistics, so they are written out here.
        scale = torch.rsqrt(self.var + eps)
        scale = scale if weight is None else scale * weight
        shift = -self.mean * scale if bias is None else bias - self.mean * scale
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)

    def _with_running(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        m = self.module
        count = m.num_batches_tracked
        if count is not None:
            count.add_(1)
        momentum = m.momentum if m.momentum is not None else 1.0 / float(count or 1)
        return _batch_norm(x, m.running_mean, m.running_var, weight, bias, True, momentum, eps)

    def pooled(self) -> tuple[Tensor, Tensor]:
        """
        Pool the collected moments by the law of total variance.

        Returns
        -------
        mean, var : Tensor
            Shape (channels,): mean and population variance of the layer's inputs.
        """
        if not self.moments:  # a layer that evaluation never calls, an auxiliary head's say
            return self._initial()
        self.total = total = sum(count for _, _, count in self.moments)
        mean = sum((m.double() * (n / total) for m, _, n in self.moments), torch.zeros(()))
        square = sum(
            ((v.double() + m.double().square()) * (n / total) for m, v, n in self.moments),
            torch.zeros(()),
        )
        kind = self.moments[0][0].dtype
        return mean.to(kind), (square - mean.square()).clamp_min(0.0).to(kind)


class _Calls(TorchFunctionMode):
    """Hand the calls of torch's batch norm to a layer's controller."""

    def __init__(self, norm: ControlledNorm) -> None:
        super().__init__()
        self.norm, self.seen = norm, False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        self.seen = True
        bound = _BATCH_NORM_ARGUMENTS.bind(*args, **kwargs)
        bound.apply_defaults()
        x, weight, bias, eps = (bound.arguments[n] for n in ("input", "weight", "bias", "eps"))
        return self.norm.normalize(x, weight, bias, eps)


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
            ControlledNorm(name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self.scripted = [
            name
            for name, module in model.named_modules()
            if str(getattr(module, "original_name", "")).startswith("BatchNorm")
        ]

    def __bool__(self) -> bool:
        return bool(self.norms or self.scripted)

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

    def check(self, policy: Policy) -> None:
        """
        Refuse statistics that cannot be had.

        Raises
        ------
        InvalidArgument
            If they are to be frozen and a layer keeps none, or to be others than those kept and
            a layer is TorchScript.
        """
        if policy != "frozen" and self.scripted:
            raise InvalidArgument(
                f"{self.scripted[0]} is a batch norm in TorchScript, which keeps its running"
                f" statistics whatever is asked, and batchnorm={policy!r} wants others; write"
                " batchnorm='frozen', or give the nn.Module that was scripted."
            )
        without = [norm.name for norm in self.norms if not norm.kept]
        if policy == "frozen" and without:
            raise InvalidArgument(
                f"batchnorm='frozen', and {without[0]} keeps no running statistics that could be"
                " frozen (track_running_stats=False); write batchnorm='recalibrate', or 'batch' for"
                " the whole set taken as one batch."
            )

    def stored(self) -> list[tuple[Tensor, Tensor]]:
        """Give the statistics in use, one pair (mean, variance) a layer."""
        return [(norm.mean, norm.var) for norm in self.norms]

    def store(
        self, statistics: list[tuple[Tensor, Tensor]], *, differentiable: bool = False
    ) -> None:
        """Use these statistics from now on, perhaps as variables of a derivative."""
        for norm, (mean, var) in zip(self.norms, statistics, strict=True):
            norm.mean, norm.var, norm.differentiable = mean, var, differentiable

    def keep(self, statistics: list[tuple[Tensor, Tensor]]) -> None:
        """Make these statistics the model's buffers."""
        for norm, (mean, var) in zip(self.norms, statistics, strict=True):
            norm.module.running_mean, norm.module.running_var = mean.clone(), var.clone()
        self.restore_buffers()

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
