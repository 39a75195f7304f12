"""
Problems grown at random: graphs of layers, shared and frozen weights, random modes, data layouts.

Everything is a function of the seed. A model is a `Grown`: a list of modules, each fed with what
earlier ones gave. `Case.reference` is the loss on everything at once, in plain torch.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

from thalweg.problems import Problem

Shape = tuple[int, ...]


class Reshaped(nn.Module):
    """A layer between two changes of shape: sequences with their features first, for one."""

    def __init__(self, layer: nn.Module, before: str, after: str) -> None:
        super().__init__()
        self.layer, self.before, self.after = layer, before, after

    def forward(self, x: Tensor) -> Tensor:
        return _RESHAPES[self.after](self.layer(_RESHAPES[self.before](x)))

    def extra_repr(self) -> str:
        return f"{self.before}, {self.after}"


_RESHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "same": lambda x: x,
    "turn": lambda x: x.transpose(1, 2),
    "first of pair": lambda x: x[0],
    "flatten": lambda x: x.flatten(1),
    "mean": lambda x: x.flatten(2).mean(2) if x.dim() == 4 else x.mean(1),
    "last": lambda x: x[:, -1],
    "largest": lambda x: x.amax(1),
}


class Attention(nn.Module):
    """Self-attention with a residual, causal or not."""

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attend, self.causal = nn.MultiheadAttention(features, heads, batch_first=True), causal

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool).triu(1) if self.causal else None
        return x + self.attend(x, x, x, attn_mask=mask, need_weights=False)[0]


class Padded(nn.Module):
    """An encoder layer that does not look at tokens of number 0."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        return self.layer(x, src_key_padding_mask=tokens == 0)


class Products(nn.Module):
    """A bilinear form of a value with itself."""

    def __init__(self, form: nn.Bilinear) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.form(x, x))


class Positions(nn.Module):
    """A learned vector for each place of a sequence, a parameter of the model's own."""

    def __init__(self, places: int, features: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(places, features) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places


class Join(nn.Module):
    """Two values of one shape as one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return {"add": a + b, "times": a * torch.sigmoid(b), "mean": (a + b) / 2}[self.how]

    def extra_repr(self) -> str:
        return self.how


class Scale(nn.Module):
    """A buffer that every value is multiplied by."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


class Grown(nn.Module):
    """
    A graph of modules: value i + 1 is what module ``uses[i]`` makes of earlier values.

    Value 0 is the input; the last one is the output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.uses: list[tuple[int, tuple[int, ...]]] = []

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, sources in self.uses:
            values.append(self.layers[layer](*[values[i] for i in sources]))
        return values[-1]

    def extra_repr(self) -> str:
        return "\n".join(
            f"value {i + 1} = layer {layer} of {sources}"
            for i, (layer, sources) in enumerate(self.uses)
        )


@dataclass
class Case:
    """
    A problem and what it is in plain torch.

    Attributes
    ----------
    problem : Problem
        Of ``model``, which is float32 or float64 and in modes of its own.
    options : dict
        For `EmpiricalRisk`.
    loss_of : callable
        From a model in float64 to its loss on everything at once.
    smooth : bool
        Whether the loss has derivatives of every order everywhere.
    pooled : bool
        Whether batch-norm statistics are taken at each point.
    sampled : bool
        Whether single samples have losses: not where all are one batch and the loss its mean.
    """

    seed: int
    model: nn.Module
    problem: Problem
    options: dict[str, Any]
    loss_of: Callable[[nn.Module], Tensor]
    smooth: bool
    layout: str
    criterion: str
    pooled: bool
    sampled: bool
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        self._plain = copy.deepcopy(self.model).double().eval()
        for module in self._plain.modules():
            if isinstance(module, nn.Embedding):
                module.padding_idx = None  # torch leaves its row out of gradients, not of values
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and self.pooled:
                module.train()
                module.momentum = 0.0

    def reference(self, w: Tensor) -> Tensor:
        """Evaluate the loss on everything at once at ``w``, float64, with a graph."""
        named = dict(self._plain.named_parameters())
        parts = w.split([named[name].numel() for name in self.names])
        tensors = {n: part.view_as(named[n]) for n, part in zip(self.names, parts, strict=True)}
        return self.loss_of(lambda *inputs: functional_call(self._plain, tensors, inputs))

    def reference_gradient(self, w: Tensor) -> Tensor:
        """Differentiate `reference` once, by torch."""
        leaf = w.detach().clone().requires_grad_()
        return torch.autograd.grad(self.reference(leaf), leaf)[0]

    def __str__(self) -> str:
        modes = {m.training for m in self.model.modules()}
        frozen = [n for n, p in self.model.named_parameters() if not p.requires_grad]
        return (
            f"seed {self.seed}: layout {self.layout}, {self.options}, {self.criterion},"
            f" frozen {frozen}, modes {sorted(modes)}\n{self.model}"
        )


class _Growing:
    """One model on its way: values with their kinds and shapes, and the modules between them."""

    def __init__(self, rng: random.Random, kind: str, shape: Shape) -> None:
        self.rng, self.model, self.smooth = rng, Grown(), True
        self.shapes: list[tuple[str, Shape]] = [(kind, shape)]

    def use(self, layer: nn.Module | int, sources: tuple[int, ...], kind: str, shape: Shape) -> int:
        """Apply a new module, or one that is there by its number; give the new value's number."""
        if isinstance(layer, nn.Module):
            self.model.layers.append(layer)
            layer = len(self.model.layers) - 1
        self.model.uses.append((layer, sources))
        self.shapes.append((kind, shape))
        return len(self.shapes) - 1

    def grow(self, steps: int) -> None:
        for _ in range(steps):
            source = self._source()
            if self.rng.random() < 0.2 and self._join(source):
                continue
            if self.rng.random() < 0.15 and self._again(source):
                continue
            kind, shape = self.shapes[source]
            layer, shape = getattr(self, f"_{kind}")(*shape)
            self.use(layer, (source,), kind, shape)

    def _source(self) -> int:
        first = 1 if self.shapes[0][0] == "tokens" else 0
        last = len(self.shapes) - 1
        return last if self.rng.random() < 0.75 else self.rng.randint(first, last)

    def _join(self, source: int) -> bool:
        others = [i for i, s in enumerate(self.shapes) if s == self.shapes[source] and i != source]
        if not others:
            return False
        how = Join(self.rng.choice(["add", "times", "mean"]))
        self.use(how, (source, self.rng.choice(others)), *self.shapes[source])
        return True

    def _again(self, source: int) -> bool:
        """Share a layer: one that keeps the shape and has no statistics of its own."""
        fitting = [
            layer
            for layer, sources in self.model.uses
            if len(sources) == 1
            and self.shapes[sources[0]] == self.shapes[source]
            and self.shapes[self._given_by(layer)] == self.shapes[source]
            and not any(
                isinstance(m, nn.modules.batchnorm._BatchNorm)
                for m in self.model.layers[layer].modules()
            )
        ]
        if not fitting:
            return False
        self.use(self.rng.choice(fitting), (source,), *self.shapes[source])
        return True

    def _given_by(self, layer: int) -> int:
        return 1 + next(i for i, (used, _) in enumerate(self.model.uses) if used == layer)

    def _activation(self) -> nn.Module:
        smooth = [nn.Tanh, nn.GELU, nn.Softplus, nn.SiLU, nn.Sigmoid, nn.Mish]
        if self.rng.random() < 0.2:
            self.smooth = False
            return self.rng.choice([nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.Softsign])()
        return self.rng.choice(smooth)()

    def _vector(self, features: int) -> tuple[nn.Module, Shape]:
        wider = self.rng.randint(2, 6)
        choice = self.rng.randrange(8)
        if choice == 0:
            return nn.BatchNorm1d(features, affine=self.rng.random() < 0.8), (features,)
        if choice == 1 and features > 1:
            return self.rng.choice([nn.LayerNorm, nn.RMSNorm])(features), (features,)
        if choice == 2:
            return nn.Dropout(0.3), (features,)
        if choice == 3:
            return Scale(self.rng.uniform(0.5, 2.0)), (features,)
        if choice == 4:
            return self._activation(), (features,)
        if choice == 5:
            linear = nn.Linear(features, wider)
            return parametrizations.weight_norm(linear), (wider,)
        if choice == 6:
            return Products(nn.Bilinear(features, features, wider)), (wider,)
        block = nn.Sequential(nn.Linear(features, wider), self._activation())
        return block, (wider,)

    def _sequence(self, places: int, features: int) -> tuple[nn.Module, Shape]:
        same, heads = (places, features), 2 if features % 2 == 0 else 1
        wider = self.rng.randint(2, 6)
        choice = self.rng.randrange(9)
        if choice == 0:
            return Attention(features, heads, causal=self.rng.random() < 0.5), same
        if choice == 1:
            return self._encoder(features, heads), same
        if choice in (2, 3):
            recurrent = self.rng.choice([nn.LSTM, nn.GRU, nn.RNN])
            both = self.rng.random() < 0.3
            layer = recurrent(features, wider, batch_first=True, bidirectional=both)
            return Reshaped(layer, "same", "first of pair"), (places, wider * (1 + both))
        if choice == 4:
            layer = nn.Conv1d(features, wider, 2, padding=self.rng.randint(0, 1))
            longer = places + 2 * layer.padding[0] - 1
            if longer > 0:
                return Reshaped(layer, "turn", "turn"), (longer, wider)
        if choice == 5:
            return Reshaped(nn.BatchNorm1d(features), "turn", "turn"), same
        if choice == 6 and features > 1:
            return nn.LayerNorm(features), same
        if choice == 7:
            return Positions(places, features), same
        return nn.Sequential(nn.Linear(features, wider), self._activation()), (places, wider)

    def _encoder(self, features: int, heads: int) -> nn.TransformerEncoderLayer:
        activation = self.rng.choice(["gelu", "relu"])
        self.smooth &= activation == "gelu"
        return nn.TransformerEncoderLayer(
            *(features, heads, 5),
            dropout=self.rng.choice([0.0, 0.2]),
            activation=activation,
            batch_first=True,
            norm_first=self.rng.random() < 0.5,
        )

    def _image(self, channels: int, height: int, width: int) -> tuple[nn.Module, Shape]:
        same, wider = (channels, height, width), 2 * self.rng.randint(1, 2)
        choice = self.rng.randrange(8)
        if choice == 0:
            return nn.BatchNorm2d(channels), same
        if choice == 1:
            groups = 2 if channels % 2 == 0 else 1
            norm = self.rng.choice([nn.GroupNorm(groups, channels), nn.InstanceNorm2d(channels)])
            if height * width > 1:
                return norm, same
        if choice == 2 and min(height, width) >= 2:
            if self.rng.random() < 0.3:
                self.smooth = False
                return nn.MaxPool2d(2), (channels, height // 2, width // 2)
            return nn.AvgPool2d(2), (channels, height // 2, width // 2)
        if choice == 3:
            layer = nn.ConvTranspose2d(channels, wider, 2)
            return nn.Sequential(layer, self._activation()), (wider, height + 1, width + 1)
        if choice == 4:
            return nn.Dropout2d(0.2), same
        if choice == 5 and channels > 1:
            return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), same
        stride = self.rng.choice([1, 1, 2])
        mode = self.rng.choice(["zeros", "circular", "replicate"])
        layer = nn.Conv2d(channels, wider, 3, stride, padding=1, padding_mode=mode)
        size = (height - 1) // stride + 1, (width - 1) // stride + 1
        return nn.Sequential(layer, self._activation()), (wider, *size)

    def _tokens(self, numbers: int, places: int) -> None:
        """Embed the tokens, in one of several ways."""
        features = self.rng.choice([2, 4, 4, 5])
        if self.rng.random() < 0.2:
            mode = self.rng.choice(["mean", "sum"])
            self.use(nn.EmbeddingBag(numbers, features, mode=mode), (0,), "vector", (features,))
            return
        padding = self.rng.choice([None, None, 0])
        embedding = nn.Embedding(numbers, features, padding_idx=padding)
        embedded = self.use(embedding, (0,), "sequence", (places, features))
        if self.rng.random() < 0.3:
            heads = 2 if features % 2 == 0 else 1
            padded = Padded(self._encoder(features, heads))
            self.use(padded, (0, embedded), "sequence", (places, features))

    def end(self, outputs: int, *, each_place: bool) -> None:
        """Bring the last value to the outputs: a vector, or one for each place of a sequence."""
        last = len(self.shapes) - 1
        kind, shape = self.shapes[last]
        if each_place:
            layer = nn.Linear(shape[1], outputs)
            self.use(Reshaped(layer, "same", "turn"), (last,), "classes", (outputs, shape[0]))
            return
        if kind != "vector":
            how = self.rng.choice(
                ["flatten", "mean", *(["last", "largest"] * (kind == "sequence"))]
            )
            self.smooth &= how != "largest"
            features = {"flatten": torch.Size(shape).numel(), "mean": shape[0]}.get(how, shape[-1])
            features = shape[-1] if how == "mean" and kind == "sequence" else features
            last = self.use(Reshaped(nn.Identity(), how, "same"), (last,), "vector", (features,))
        (features,) = self.shapes[last][1]
        self.use(nn.Linear(features, outputs), (last,), "vector", (outputs,))


def grow_case(seed: int) -> Case:
    """Make the problem of a seed."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _grow(seed, rng)


def _grow(seed: int, rng: random.Random) -> Case:
    samples, outputs = rng.randint(5, 22), rng.randint(2, 4)
    kind = rng.choice(["vector", "sequence", "image", "tokens"])
    x, shape = _inputs(rng, kind, samples)
    growing = _Growing(rng, kind, shape)
    if kind == "tokens":
        growing._tokens(*shape)
    growing.grow(rng.randint(1, 6))
    each_place = growing.shapes[-1][0] == "sequence" and rng.random() < 0.4
    growing.end(outputs, each_place=each_place)
    model = growing.model
    loss, y, smooth = _loss(rng, samples, outputs, growing.shapes[-1][1], each_place)
    _share(rng, model)
    _freeze(rng, model)
    _stir(rng, model)
    if rng.random() < 0.3:
        model, x = model.double(), x.double() if x.is_floating_point() else x
        y = y.double() if y.is_floating_point() else y
    layout, given = _layout(rng, loss, x, y)
    policy = rng.choice(["frozen", "recalibrate", "batch"])
    normalized = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    options = {"batchnorm": policy, "batch_size": rng.choice([None, 3, 7, samples])}

    def loss_of(evaluated: Any) -> Tensor:
        inputs = x.double() if x.is_floating_point() else x
        targets = y.double() if y.is_floating_point() else y
        outputs = evaluated(inputs)
        return _in_dtype(loss, outputs)(outputs, targets).mean()

    return Case(
        seed=seed,
        model=model,
        problem=Problem(model, name=f"seed {seed}", **given),
        options=options,
        loss_of=loss_of,
        smooth=growing.smooth and smooth,
        layout=layout,
        criterion=loss.__name__ if loss is F.mse_loss else f"{loss}, {_stated(loss)}",
        pooled=normalized and policy != "frozen",
        sampled=not (normalized and policy == "batch" and "dict" in layout and _is_mean(loss)),
    )


def _inputs(rng: random.Random, kind: str, samples: int) -> tuple[Tensor, Shape]:
    if kind == "vector":
        shape: Shape = (rng.randint(1, 6),)
    elif kind == "sequence":
        shape = (rng.randint(2, 5), rng.choice([1, 2, 4, 5]))
    elif kind == "image":
        shape = (rng.randint(1, 4), rng.randint(3, 6), rng.randint(3, 6))
    else:
        numbers, places = rng.randint(3, 8), rng.randint(2, 5)
        tokens = torch.randint(numbers, (samples, places))
        tokens[:, 0] = tokens[:, 0].clamp_min(1)  # no sample is padding alone
        return tokens, (numbers, places)
    return torch.randn(samples, *shape), shape


def _loss(
    rng: random.Random, samples: int, outputs: int, shape: Shape, each_place: bool
) -> tuple[Callable[..., Tensor], Tensor, bool]:
    """Give a criterion, targets, and whether it is smooth."""
    if each_place or rng.random() < 0.5:
        return *_classification(rng, samples, outputs, shape[1:]), True
    real = torch.randn(samples, outputs)
    mean = rng.choice(["mean", "none"])
    return rng.choice(
        [
            (nn.MSELoss(reduction=mean), real, True),
            (nn.SmoothL1Loss(), real, False),
            (nn.HuberLoss(reduction=mean, delta=0.5), real, False),
            (nn.BCEWithLogitsLoss(), (real > 0).float(), True),
            (nn.PoissonNLLLoss(), real.abs().round(), True),
            (nn.SoftMarginLoss(), real.sign(), True),
            (F.mse_loss, real, True),
        ]
    )


def _classification(
    rng: random.Random, samples: int, classes: int, places: Shape
) -> tuple[Callable[..., Tensor], Tensor]:
    labels = torch.randint(classes, (samples, *places))
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        options["label_smoothing"] = 0.1
    if rng.random() < 0.3:
        options["weight"] = torch.rand(classes) + 0.2
    if rng.random() < 0.3:
        labels[torch.rand(labels.shape) < 0.3] = -100
        labels[(0,) * labels.dim()] = 0  # one that counts
    return nn.CrossEntropyLoss(**options), labels


def _share(rng: random.Random, model: nn.Module) -> None:
    """Tie weights of two layers of one shape."""
    linear = [m for m in model.modules() if type(m) is nn.Linear]
    pairs = [
        (a, b) for i, a in enumerate(linear) for b in linear[:i] if a.weight.shape == b.weight.shape
    ]
    if pairs and rng.random() < 0.5:
        a, b = rng.choice(pairs)
        a.weight = b.weight


def _freeze(rng: random.Random, model: Grown) -> None:
    """Freeze some tensors, never the last layer's."""
    kept = {id(p) for p in model.layers[-1].parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept and rng.random() < 0.15:
            parameter.requires_grad_(False)


def _stir(rng: random.Random, model: nn.Module) -> None:
    """Give biases, scales and statistics values that are not the initial ones, and modes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            module.training = rng.random() < 0.5
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)


def _layout(
    rng: random.Random, loss: Callable[..., Tensor], x: Tensor, y: Tensor
) -> tuple[str, dict[str, Any]]:
    """Lay out the data as people have them: a name, and what to give a `Problem`."""
    layout = rng.choice(["pair", "dataset", "loader", "batches", "dicts", "one dict"])
    size = rng.randint(2, len(x))
    cuts = list(range(size, len(x), size))
    batches = list(zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True))
    data = {
        "pair": lambda: (x, y),
        "dataset": lambda: TensorDataset(x, y),
        "loader": lambda: DataLoader(TensorDataset(x, y), batch_size=size),
        "batches": lambda: batches,
        "dicts": lambda: [{"x": a, "y": b} for a, b in batches],
        "one dict": lambda: {"x": x, "y": y},
    }[layout]()
    own = _own_loss(loss) if "dict" in layout else {"loss": loss}
    return layout, {"train": data, **own}


def _own_loss(loss: Callable[..., Tensor]) -> dict[str, Any]:
    """Write a criterion as ``loss(model, batch)``, and what a batch counts where that differs."""

    def of_batch(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        values = _in_dtype(loss, outputs := model(batch["x"]))(outputs, batch["y"])
        return values.flatten(1).mean(1) if values.dim() > 1 else values

    if not isinstance(loss, nn.CrossEntropyLoss):
        return {"loss": of_batch}

    def counts(batch: dict[str, Tensor]) -> Tensor:
        counted = batch["y"][batch["y"] >= 0]
        return loss.weight.double()[counted].sum() if loss.weight is not None else counted.numel()

    return {"loss": of_batch, "weight": counts}


def _is_mean(loss: Any) -> bool:
    return bool(getattr(loss, "reduction", "mean") == "mean")


def _stated(loss: nn.Module) -> dict[str, Any]:
    names = ("reduction", "label_smoothing", "weight", "delta", "ignore_index")
    return {name: getattr(loss, name) for name in names if hasattr(loss, name)}


def _in_dtype(loss: Callable[..., Tensor], like: Tensor) -> Callable[..., Tensor]:
    return copy.deepcopy(loss).to(like) if isinstance(loss, nn.Module) else loss
