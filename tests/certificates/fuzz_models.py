"""Networks that do more than their layers say, or say it in another way: one class or touch a kind.

Each kind starts from the same plain network and its weights. Some compute what the plain network
computes; most differ from it on some samples, at some weights, or in how they depend on weights.
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

FAR = 1.5
"""Inputs beyond this are treated otherwise by what treats some otherwise."""


class Plain(nn.Module):
    """One or two hidden layers."""

    def __init__(self, inputs, hidden, outputs, bend, deep) -> None:
        super().__init__()
        self.first, self.bend = nn.Linear(inputs, hidden), bend()
        self.middle = nn.Linear(hidden, hidden) if deep else None
        self.again = bend() if deep else None
        self.last = nn.Linear(hidden, outputs)

    def features(self, x):
        h = self.bend(self.first(x))
        return h if self.middle is None else self.again(self.middle(h))

    def network(self, x):
        return self.last(self.features(x))

    def forward(self, x):
        return self.network(x)


class Functional(Plain):
    def forward(self, x):
        h = self.bend(F.linear(x, self.first.weight, self.first.bias))
        if self.middle is not None:
            h = self.again(h @ self.middle.weight.T + self.middle.bias)
        return F.linear(h, self.last.weight, self.last.bias)


class AsksForShapes(Plain):
    def forward(self, x):
        assert x.dim() == 2
        return self.network(x.reshape(x.shape[0], -1)).view(len(x), -1)


class AsksForMode(Plain):
    def forward(self, x):
        return self.network(x) * 2 if self.training else self.network(x)


class BranchOnValues(Plain):
    def forward(self, x):
        return self.network(x.clamp(-FAR, FAR) if bool((x.abs() > FAR).any()) else x)


class BranchOnWeights(Plain):
    def forward(self, x):
        large = float(self.first.weight.detach().norm()) > 1e6
        return self.network(x) * (2.0 if large else 1.0)


class Where(Plain):
    def forward(self, x):
        return self.network(torch.where(x > FAR, torch.full_like(x, FAR), x))


class ByNumpy(Plain):
    def forward(self, x):
        far = x.detach().abs().amax(1).numpy() > FAR
        return self.network(torch.where(torch.from_numpy(far)[:, None], x.clamp(-FAR, FAR), x))


class ByType(Plain):
    """Another network for whoever asks with symbols."""

    def forward(self, x):
        return self.network(x.clamp(-FAR, FAR) if type(x) is torch.Tensor else x)


class ByTypeElsewhere(Plain):
    """The same at these weights, and for whoever asks with symbols; another network elsewhere."""

    def forward(self, x):
        y = self.network(x)
        if type(x) is torch.Tensor:
            if not hasattr(self, "start"):
                self.start = self.first.weight.detach().clone()
            y = y + 100 * (self.first.weight - self.start).sum()
        return y


class Memory(Plain):
    """The first batch gets another answer than the second."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.network(x) + (self.calls > 5) * 1e-3


class Noisy(Plain):
    def forward(self, x):
        return self.network(x) + 1e-6 * torch.randn(1, dtype=x.dtype)


class OfTheBatch(Plain):
    def forward(self, x):
        return self.network(x - x.mean(0))


class Sorted(Plain):
    def forward(self, x):
        return self.network(x).sort(dim=1).values


class Single(Plain):
    def forward(self, x):
        return self.network(x.float().to(x.dtype))


class SingleInside(Plain):
    def forward(self, x):
        return self.last(self.features(x).float().to(x.dtype))


class InPlace(Plain):
    def forward(self, x):
        return self.network(x.clamp_(-FAR, FAR))


class Residual(Plain):
    def forward(self, x):
        h = self.features(x)
        return self.last(h + h.roll(1, 1))


class Absolute(Plain):
    def forward(self, x):
        return self.network(x).abs()


class Rounded(Plain):
    """Weights on a grid so fine that outputs hardly differ; their derivative is zero."""

    def forward(self, x):
        weight = torch.round(self.first.weight * 2**44) / 2**44
        return self.last(self.bend(F.linear(x, weight, self.first.bias)))


class Detached(Plain):
    def forward(self, x):
        return self.last(self.features(x).detach())


class WithoutGradient(Plain):
    def forward(self, x):
        with torch.no_grad():
            h = self.features(x)
        return self.last(h)


class Tied(Plain):
    def forward(self, x):
        h = self.features(x)
        return self.last(self.bend(h @ self.last.weight.T @ self.last.weight) + h)


class WithExtra(Plain):
    """A weight beside the layers."""

    use = "scale"

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.extra = nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = self.network(x)
        return {"scale": y * self.extra, "none": y, "zero": y + 0 * self.extra}[self.use]


class ExtraUnused(WithExtra):
    use = "none"


class ExtraTimesZero(WithExtra):
    use = "zero"


class WithBuffer(Plain):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.register_buffer("shift", torch.full((self.last.out_features,), 0.25))

    def forward(self, x):
        return self.network(x) + self.shift


class WrongSlope(torch.autograd.Function):
    """Another derivative than the function's."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return 2 * cotangent


class OwnDerivative(Plain):
    def forward(self, x):
        return self.last(WrongSlope.apply(self.features(x)))


class MaskedLinear(nn.Linear):
    """A subclass with its own forward."""

    def forward(self, x):
        y = super().forward(x)
        return y.clamp(-FAR, FAR)


class JustNamed(nn.Linear):
    """A subclass that changes nothing."""


class Hidden(nn.Linear):
    """A subclass whose call, not its forward, does more."""

    def __call__(self, x):
        return super().__call__(x) + 1.0


def _replaced(kind):
    def change(model):
        layer = kind(model.first.in_features, model.first.out_features)
        layer.load_state_dict(model.first.state_dict())
        model.first = layer.to(model.first.weight.dtype)

    return change


def _bent(model):
    inner = model.bend

    class Clipped(type(inner)):
        def forward(self, x):
            return super().forward(x.clamp(-2, 2))

    model.bend.__class__ = Clipped


def _hook(change):
    def add(model):
        model.bend.register_forward_hook(lambda module, inputs, output: change(output))

    return add


def _pre_hook(model):
    model.first.register_forward_pre_hook(lambda module, inputs: (inputs[0].clamp(-FAR, FAR),))


def _whole_hook(model):
    model.register_forward_hook(lambda module, inputs, output: output * 1.001)


def _own_forward(model):
    forward = model.last.forward
    model.last.forward = lambda x: forward(x) * 1.001


def _bound(model):
    def forward(self, x):
        return self.network(x.clamp(-FAR, FAR))

    model.forward = types.MethodType(forward, model)


class Softened(nn.Module):
    """A parametrization: the weight is the hyperbolic tangent of what is trained."""

    def forward(self, weight):
        return torch.tanh(weight)


class Same(nn.Module):
    """A parametrization that changes nothing."""

    def forward(self, weight):
        return weight


def _parametrized(kind):
    return lambda model: parametrize.register_parametrization(model.first, "weight", kind())


def _pruned(model):
    prune.random_unstructured(model.first, "weight", 0.3)
    model.first.weight = model.first.weight.detach()  # a model with others cannot be copied


def _shared(model):
    if model.middle is not None:
        model.middle.bias = model.first.bias


def _frozen(model):
    model.first.requires_grad_(False)


def _half_frozen(model):
    model.last.bias.requires_grad_(False)


def _doubled(model):
    """One module in two places."""
    model.again = model.bend
    if model.middle is not None:
        model.middle.weight = nn.Parameter(model.middle.weight.detach().clone())


HARMLESS = [Plain, Plain, Functional, AsksForShapes, AsksForMode]
OTHERS = [
    *(
        BranchOnValues,
        BranchOnWeights,
        Where,
        ByNumpy,
        ByType,
        ByTypeElsewhere,
        Memory,
        Noisy,
        OfTheBatch,
        Sorted,
    ),
    *(Single, SingleInside, InPlace, Residual, Absolute, Rounded, Detached, WithoutGradient, Tied),
    *(WithExtra, ExtraUnused, ExtraTimesZero, WithBuffer, OwnDerivative, ByTypeElsewhere),
]
TOUCHES = {
    "subclass with a forward": _replaced(MaskedLinear),
    "subclass without": _replaced(JustNamed),
    "subclass with a call": _replaced(Hidden),
    "subclass of an activation": _bent,
    "hook that adds": _hook(lambda y: y + 0.5),
    "hook that does nothing": _hook(lambda y: None),
    "hook that clips": _hook(lambda y: y.clamp(-0.9, 0.9)),
    "pre-hook": _pre_hook,
    "hook of the whole": _whole_hook,
    "forward of an instance": _own_forward,
    "forward of the whole": _bound,
    "weight norm": lambda m: parametrizations.weight_norm(m.first),
    "spectral norm": lambda m: parametrizations.spectral_norm(m.first),
    "orthogonal": lambda m: parametrizations.orthogonal(m.last),
    "softened": _parametrized(Softened),
    "parametrized by nothing": _parametrized(Same),
    "pruned": _pruned,
    "shared bias": _shared,
    "frozen layer": _frozen,
    "frozen bias": _half_frozen,
    "one activation twice": _doubled,
}
