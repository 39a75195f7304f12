"""Models grown at random: graphs of layers, some shared, some frozen, in modes of their own."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

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


class Shift(nn.Module):
    """A vector a sample, added to all places of a sequence or pixels of an image."""

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        if x.dim() == 4:
            return x + v[:, :, None, None]
        return x + (v[:, None] if x.dim() == 3 else v)


class Scale(nn.Module):
    """A buffer that every value is multiplied by."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


class Grown(nn.Module):
    """
    A graph of modules: values are the inputs, then what each of ``uses`` makes of earlier ones.

    The last one is the output.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.layers = nn.ModuleList()
        self.uses: list[tuple[int, tuple[int, ...]]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        values = list(inputs)
        for layer, sources in self.uses:
            values.append(self.layers[layer](*[values[i] for i in sources]))
        return values[-1]

    def extra_repr(self) -> str:
        return "\n".join(
            f"value {i + self.inputs} = layer {layer} of {sources}"
            for i, (layer, sources) in enumerate(self.uses)
        )


class Growing:
    """One model on its way: values with their kinds and shapes, and the modules between them."""

    def __init__(
        self, rng: random.Random, inputs: list[tuple[str, Shape]], *, ragged: bool = False
    ) -> None:
        self.rng, self.model, self.smooth, self.ragged = rng, Grown(len(inputs)), True, ragged
        self.shapes = list(inputs)

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
        known = [i for i, (kind, _) in enumerate(self.shapes) if kind != "tokens"]
        return known[-1] if self.rng.random() < 0.75 else self.rng.choice(known)

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
        uses = [used for used, _ in self.model.uses]
        return self.model.inputs + uses.index(layer)

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
        choice = self.rng.choice([0, 1, 2, 3, 5, 6, 8] if self.ragged else range(9))
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

    def embed(self, numbers: int, places: int) -> None:
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
        self._gather()
        last = len(self.shapes) - 1
        kind, shape = self.shapes[last]
        if each_place:
            layer = nn.Linear(shape[1], outputs)
            self.use(Reshaped(layer, "same", "turn"), (last,), "classes", (outputs, shape[0]))
            return
        if kind != "vector":
            ways = ["mean"] + ["flatten"] * (not self.ragged)
            how = self.rng.choice(ways + ["last", "largest"] * (kind == "sequence"))
            self.smooth &= how != "largest"
            features = {"flatten": torch.Size(shape).numel(), "mean": shape[0]}.get(how, shape[-1])
            features = shape[-1] if how == "mean" and kind == "sequence" else features
            last = self.use(Reshaped(nn.Identity(), how, "same"), (last,), "vector", (features,))
        (features,) = self.shapes[last][1]
        self.use(nn.Linear(features, outputs), (last,), "vector", (outputs,))

    def _gather(self) -> None:
        """Let a second input count: its features beside, or on, the last value."""
        if self.model.inputs == 1:
            return
        last = len(self.shapes) - 1
        (wanted,) = self.shapes[1][1]
        features = self.shapes[last][1][-1 if self.shapes[last][0] != "image" else 0]
        moved = self.use(nn.Linear(wanted, features), (1,), "vector", (features,))
        self.use(Shift(), (last, moved), *self.shapes[last])


def share(rng: random.Random, model: nn.Module) -> None:
    """Tie weights of two layers of one shape."""
    linear = [m for m in model.modules() if type(m) is nn.Linear]
    pairs = [
        (a, b) for i, a in enumerate(linear) for b in linear[:i] if a.weight.shape == b.weight.shape
    ]
    if pairs and rng.random() < 0.5:
        a, b = rng.choice(pairs)
        a.weight = b.weight


def freeze(rng: random.Random, model: Grown) -> None:
    """Freeze some tensors, never the last layer's."""
    kept = {id(p) for p in model.layers[-1].parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept and rng.random() < 0.15:
            parameter.requires_grad_(False)


def stir(rng: random.Random, model: nn.Module) -> None:
    """Give biases, scales and statistics values that are not the initial ones, and modes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            module.training = rng.random() < 0.5
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
