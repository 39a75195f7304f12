"""What a network's graph says, against networks whose structure is known."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from thalweg.errors import NotDefined
from thalweg.tracing.layers import found_around, layer_type
from thalweg.tracing.trace import trace


class Net(nn.Module):
    """A convolutional network with functions for layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(12, 5)

    def forward(self, x):
        h = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.dropout(h.view(x.size(0), -1), 0.5, self.training))


class Asking(Net):
    """The same, after a question about shapes."""

    def forward(self, x):
        if x.dim() == 3:
            x = x[:, None]
        return super().forward(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.shift = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return torch.cat([x + torch.tanh(self.inner(x)), x * self.shift], 1)


class Clip(nn.Module):
    """Another network for outliers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.clamp(-3, 3) if bool((x.abs() > 3).any()) else x)


class ByWeights(Clip):
    """Another network for large weights."""

    def forward(self, x):
        return self.layer(x) * (2 if float(self.layer.weight.norm()) > 9 else 1)


class Overwriting(Clip):
    def forward(self, x):
        h = self.layer(x)
        h.relu_()
        return h


def edges(graph):
    return {(read.name, node.name) for node in graph.nodes for read in node.reads}


@pytest.mark.parametrize(("model", "how"), [(Net(), "torch.fx"), (Asking(), "torch.export")])
def test_functions_are_layers_whoever_reads_them(model, how):
    graph = trace(model.eval(), torch.randn(2, 1, 6, 6))
    chain = graph.chain()
    kinds = [type(node.module).__name__ for node in chain]
    known = ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Identity", "Linear"]
    assert (kinds, graph.how) == (known, how)
    assert dict(chain[0].weights) == {"weight": "conv.weight", "bias": "conv.bias"}
    x = torch.randn(4, 1, 6, 6)
    for node in chain:
        x = node.module(x)
    assert x.shape == (4, 5) and chain[-1].shape == (2, 5)
    x = torch.randn(3, 1, 6, 6)
    answer = model(x)
    for node in chain:
        x = node.module(x)
    torch.testing.assert_close(x, answer)


def test_where_a_network_branches():
    graph = trace(Residual(), torch.randn(2, 4))
    assert edges(graph) == {
        ("input", "inner"),
        ("inner", "tanh"),
        ("input", "add"),
        ("tanh", "add"),
        ("input", "mul"),
        ("shift", "mul"),
        ("add", "cat"),
        ("mul", "cat"),
    }
    assert {node.name for node in graph.nodes if node.op == "tensor"} == {"shift"}
    with pytest.raises(NotDefined, match="what input gives is read by inner and add and mul"):
        graph.chain()


@pytest.mark.parametrize("model", [Clip(), ByWeights()])
def test_a_branch_on_values_is_refused(model):
    with pytest.raises(NotDefined, match="branch on values"):
        trace(model, torch.randn(2, 4))


def test_what_is_overwritten_is_no_chain():
    with pytest.raises(NotDefined, match="relu_ writes into what is read elsewhere"):
        trace(Overwriting(), torch.randn(2, 4)).chain()
    in_order = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    assert len(trace(in_order, torch.randn(2, 4)).chain()) == 3


class Steps(nn.Module):
    """Several inputs, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, batch, *, scale=1.0):
        h = self.words(batch["words"]) * batch["mask"][..., None]
        return {"logits": self.layer(h.sum(1)) * scale}


def test_inputs_and_outputs_may_be_nested():
    batch = {"words": torch.randint(0, 5, (2, 3)), "mask": torch.ones(2, 3)}
    model = Steps()
    graph = trace(model, batch, scale=2.0)
    assert [node.op for node in graph.nodes].count("input") == 2
    assert [node.shape for node in graph.outputs] == [(2, 3)]
    seen = {}
    graph.run([batch["words"], batch["mask"]], lambda node, value: seen.update({node: value}))
    torch.testing.assert_close(seen[graph.outputs[0]], model(batch, scale=2.0)["logits"])


def test_transformers_of_torch_are_read_layer_by_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    graph = trace(model, x)
    assert [node.op for node in graph.nodes].count("MultiheadAttention") == 2
    seen = {}
    graph.run([x], lambda node, value: seen.update({node: value}))
    torch.testing.assert_close(seen[graph.outputs[0]], model(x))


class Acting(nn.Identity):
    def forward(self, x):
        return x + 1


class Constructed(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


def test_the_class_that_decides():
    assert layer_type(Constructed()) is nn.Linear
    assert layer_type(Acting()) is Acting
    assert layer_type(nn.MultiheadAttention(4, 1).out_proj) is nn.Linear
    weighted = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert layer_type(weighted) is not nn.Linear


def _instance_forward(model):
    model[0].forward = lambda x: x


@pytest.mark.parametrize(
    ("touch", "words"),
    [
        (lambda m: m[0].register_forward_hook(lambda *_: None), "forward hook"),
        (lambda m: m[0].register_forward_pre_hook(lambda *_: None), "forward hook"),
        (_instance_forward, "a forward of its own"),
        (lambda m: nn.utils.parametrizations.spectral_norm(m[0]), "parametrized"),
        (lambda m: prune.l1_unstructured(m[0], "weight", 3), "forward hook"),
    ],
)
def test_what_acts_from_outside_is_found_and_named(touch, words):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert not found_around(model)
    touch(model)
    assert words in found_around(model)["0"]


def test_a_run_holds_nothing_of_what_it_has_shown():
    graph, values = trace(Net(), torch.ones(2, 1, 6, 6)), []

    def see(_, value):
        values.append(value)

    seen = weakref.ref(see)
    gc.collect()
    gc.disable()
    try:
        graph.run([torch.ones(2, 1, 6, 6)], see)
        assert len(values) > 3
        del see
        assert seen() is None
    finally:
        gc.enable()
