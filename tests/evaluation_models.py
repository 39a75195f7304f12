"""Models as people have them, each with a trait that a naive copy or derivative gets wrong."""

from __future__ import annotations

import functools
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

_GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.randn(24, 5, generator=_GENERATOR)
SEQUENCES = torch.randn(24, 6, 5, generator=_GENERATOR)
IMAGES = torch.randn(24, 2, 6, 6, generator=_GENERATOR)
TOKENS = torch.randint(1, 9, (24, 6), generator=_GENERATOR)
TOKENS[:, 4:] = 0
LABELS = torch.randint(0, 3, (24,), generator=_GENERATOR)


def chain(first: nn.Module | None = None) -> nn.Sequential:
    first = nn.Linear(5, 6) if first is None else first
    return nn.Sequential(first, nn.Tanh(), nn.Linear(6, 3))


def quietly(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a model by an interface that torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def old_weight_norm() -> nn.Module:
    return quietly(lambda: chain(nn.utils.weight_norm(nn.Linear(5, 6))))


def old_spectral_norm() -> nn.Module:
    return quietly(lambda: chain(nn.utils.spectral_norm(nn.Linear(5, 6))))


def pruned() -> nn.Module:
    model = chain()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_unstructured(model[2], "bias", 1)
    return model


class KeepsFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.features = nn.Linear(5, 6), nn.Linear(6, 3), {}

    def forward(self, x: Tensor) -> Tensor:
        self.features["hidden"] = [torch.tanh(self.first(x))]
        return self.last(self.features["hidden"][0])


def wrapped_forward() -> nn.Module:
    model = chain()
    original = model.forward
    model.forward = lambda x: 2 * original(x)
    return model


def wrapped_layer() -> nn.Module:
    model = chain()
    original = model[0].forward
    model[0].forward = lambda x: original(x) + 1
    return model


def hook_on_original() -> nn.Module:
    model = chain()
    first = model[0]
    model[2].register_forward_hook(lambda module, inputs, output: output * first.weight.sum())
    return model


def hook_on_weight() -> nn.Module:
    model = chain()
    weight = model[0].weight
    model[2].register_forward_hook(lambda module, inputs, output: output * weight.sum())
    return model


def hook_by_partial() -> nn.Module:
    def scale(owner: nn.Linear, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * owner.weight.sum()

    model = chain()
    model[2].register_forward_hook(functools.partial(scale, model[0]))
    return model


_COLLECTED: list[Tensor] = []


def _collect(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    _COLLECTED.append(output)


class HooksAtFirstCall(nn.Module):
    """Hooked twice, its layer would count twice: as it is in libraries that put hooks in late."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.hooked = nn.Linear(5, 6), nn.Linear(6, 3), False

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            self.first.register_forward_hook(_collect)
            self.hooked = True
        _COLLECTED.clear()
        last = self.last(torch.tanh(self.first(x)))
        return last + torch.stack(_COLLECTED).sum(0)[:, :3]


class ResetByItsClass(nn.Module):
    """A state between steps that its class resets, of the instances that it has made."""

    instances: ClassVar[weakref.WeakSet[ResetByItsClass]] = weakref.WeakSet()

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.state = nn.Linear(5, 6), nn.Linear(6, 3), 0.0
        self.instances.add(self)

    def forward(self, x: Tensor) -> Tensor:
        for instance in self.instances:
            instance.state = 0.0
        for _ in range(3):
            self.state = torch.tanh(self.first(x) + 0.5 * self.state)
        return self.last(self.state)


class Locked(nn.Module):
    """A lock cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.lock = chain(), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.inner(x)


class ParametersInList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)
        self.all = [self.line.weight, self.line.bias]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.all[0].T + self.all[1])


class Adapter(nn.Module):
    """Frozen layers with a trained addition of low rank."""

    def __init__(self) -> None:
        super().__init__()
        self.base = chain().requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, 5)), nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    model[2].weight = model[0].weight
    return model


def in_two_places() -> nn.Module:
    middle = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), middle, nn.Tanh(), middle, nn.Linear(6, 3))


def compiled() -> nn.Module:
    return torch.compile(chain(), backend="aot_eager")


def compiled_inside() -> nn.Module:
    return chain(torch.compile(nn.Linear(5, 6), backend="aot_eager"))


def compiled_in_place() -> nn.Module:
    model = chain()
    model.compile(backend="aot_eager")
    return model


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant, self.first, self.last = reentrant, nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        return checkpoint(lambda h: self.last(torch.sin(h)), hidden, use_reentrant=self.reentrant)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.last = kind(5, 4, num_layers=2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cells(x)[0][:, -1])


class Padded(nn.Module):
    """A transformer on padded tokens: torch has an inference path that gives other values."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(9, 8, padding_idx=padding_idx)
        self.encoder, self.last = quietly(lambda: nn.TransformerEncoder(layer, 1)), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.encoder(self.embed(ids), src_key_padding_mask=ids == 0).mean(1))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(5, 1, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Embedded(nn.Module):
    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed, self.last = embed, nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        found = torch.tanh(self.embed(ids))
        return self.last(found if found.dim() == 2 else found.mean(1))


class ReadSparsely(nn.Module):
    """A table that is read by a function which asks for sparse gradients."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.table, self.last, self.how = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 3), how

    def forward(self, ids: Tensor) -> Tensor:
        if self.how == "bag":
            read = F.embedding_bag(ids, self.table, mode="sum", sparse=True)
        elif self.how == "gather":
            places = ids[:, :1].expand(-1, 4)
            read = torch.gather(self.table, 0, places, sparse_grad=True)
            read = read + self.table.gather(0, places, sparse_grad=True).square()
        else:
            read = F.embedding(ids, self.table, sparse=True).sum(1)
        return self.last(torch.tanh(read))


class Radial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres, self.last = nn.Parameter(torch.randn(6, 5)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.exp(-torch.cdist(x, self.centres).square() / 10))


class FourierFilter(nn.Module):
    """A learned complex filter, a fixed complex phase, complex mixing of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
        self.mix = nn.Parameter(0.5 * torch.randn(3, 3, dtype=torch.cfloat))
        self.register_buffer("phase", torch.exp(1j * torch.linspace(0, 3, 3)).to(torch.cfloat))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = (torch.fft.rfft(x) * self.filter) @ self.mix * self.phase
        return self.last(torch.tanh(torch.fft.irfft(spectrum, n=5)))


class Tanh(torch.autograd.Function):
    """A function in the old form, which function transforms refuse."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (1 - x.tanh() ** 2)


class TanhOnce(torch.autograd.Function):
    """The right gradient, of which torch differentiates only a part."""

    @staticmethod
    def forward(ctx, x):
        ctx.value = x.detach().tanh()
        return x.tanh()

    @staticmethod
    def backward(ctx, slope):
        return slope * (1 - ctx.value**2)


class TanhWrong(TanhOnce):
    @staticmethod
    def backward(ctx, slope):
        return 1.3 * slope * (1 - ctx.value**2)


class Applies(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(5, 6), nn.Linear(6, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class ChangesInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = chain()

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.last(x.div_(2))


class UnregisteredTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.scale, self.shifts = nn.Linear(5, 3), torch.rand(5) + 1, [torch.randn(3)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.line(x * self.scale)) + self.shifts[0]


class NormalizesByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("var", torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.batch_norm(self.first(x), self.mean, self.var, training=False)
        return self.last(torch.tanh(hidden))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "plain": (chain, VECTORS),
    "old weight norm": (old_weight_norm, VECTORS),
    "old spectral norm": (old_spectral_norm, VECTORS),
    "pruned": (pruned, VECTORS),
    "new weight norm": (lambda: chain(parametrizations.weight_norm(nn.Linear(5, 6))), VECTORS),
    "keeps its features": (KeepsFeatures, VECTORS),
    "forward wrapped": (wrapped_forward, VECTORS),
    "layer's forward wrapped": (wrapped_layer, VECTORS),
    "hook that closes over a layer": (hook_on_original, VECTORS),
    "hook that closes over a weight": (hook_on_weight, VECTORS),
    "hook made by partial": (hook_by_partial, VECTORS),
    "hooks at the first call": (HooksAtFirstCall, VECTORS),
    "reset by its class": (ResetByItsClass, VECTORS),
    "holds a lock": (Locked, VECTORS),
    "parameters in a list": (ParametersInList, VECTORS),
    "frozen layers": (Adapter, VECTORS),
    "tied weights": (tied, VECTORS),
    "one layer in two places": (in_two_places, VECTORS),
    "compiled": (compiled, VECTORS),
    "compiled inside": (compiled_inside, VECTORS),
    "compiled in place": (compiled_in_place, VECTORS),
    "data parallel": (lambda: nn.DataParallel(chain()), VECTORS),
    "checkpointed, reentrant": (lambda: Checkpointed(True), VECTORS),
    "checkpointed": (lambda: Checkpointed(False), VECTORS),
    "LSTM": (lambda: Recurrent(nn.LSTM), SEQUENCES),
    "GRU": (lambda: Recurrent(nn.GRU), SEQUENCES),
    "padded transformer": (Padded, TOKENS),
    "attention": (SelfAttention, SEQUENCES),
    "sparse embedding": (lambda: Embedded(nn.Embedding(9, 4, sparse=True)), TOKENS),
    "bag of embeddings": (lambda: Embedded(nn.EmbeddingBag(9, 4)), TOKENS),
    "sparse bag, padding": (
        lambda: Embedded(nn.EmbeddingBag(9, 4, mode="sum", sparse=True, padding_idx=0)),
        TOKENS,
    ),
    "F.embedding, sparse": (lambda: ReadSparsely("embedding"), TOKENS),
    "F.embedding_bag, sparse": (lambda: ReadSparsely("bag"), TOKENS),
    "gather, sparse": (lambda: ReadSparsely("gather"), TOKENS),
    "cdist": (Radial, VECTORS),
    "complex": (FourierFilter, VECTORS),
    "old function": (lambda: Applies(Tanh.apply), VECTORS),
    "function without a second derivative": (lambda: Applies(TanhOnce.apply), VECTORS),
    "changes its inputs": (ChangesInputs, VECTORS),
    "tensors not registered": (UnregisteredTensors, VECTORS),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3)
        ),
        IMAGES,
    ),
    "instance norm, tracked": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        IMAGES,
    ),
    "batch norm by function": (NormalizesByFunction, VECTORS),
}
