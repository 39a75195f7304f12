"""A trace is of one batch: what depends on the values of that batch must not stand for others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg.curvature import vector_products
from thalweg.curvature.linearize import TracedMap, stored_bytes, trace_linear
from thalweg.curvature.operators import Hessian
from thalweg.errors import NotDefined

# The tracer uses it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def words() -> tuple[nn.Module, dict[str, Tensor]]:
    """A network on words, and targets of which each batch ignores another number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    tokens, targets = torch.randint(9, (12, 6)), torch.randint(3, (12, 6))
    for sample, row in enumerate(targets):
        row[: sample // 3] = -100
    return model, {"x": tokens, "y": targets}


def mean_of_counted(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]).flatten(0, 1), batch["y"].flatten())


@pytest.mark.parametrize(
    "count",
    [
        lambda batch: (batch["y"] >= 0).sum(),
        lambda batch: batch["y"][batch["y"] >= 0].numel(),
        lambda batch: len(torch.nonzero(batch["y"] >= 0)),
        lambda batch: float((batch["y"] >= 0).sum()),
    ],
    ids=["tensor", "condition", "nonzero", "number"],
)
def test_batches_of_unlike_weights_keep_theirs(count: Callable[[dict[str, Tensor]], float]) -> None:
    model, data = words()
    problem = tw.Problem(model, loss=mean_of_counted, train=data, weight=count)
    risk = tw.EmpiricalRisk(problem, batch_size=12)
    w = risk.space.pack(model)
    v = torch.randn(len(w), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ahead, behind = risk.gradient(w + 1e-5 * v), risk.gradient(w - 1e-5 * v)
    for method in (None, "graph", "recompute", "trace"):
        op = risk.hessian(w, method=method)
        torch.testing.assert_close(op @ v, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)
        assert len(op._functions.bounds) > 1


@pytest.mark.parametrize(
    "function",
    [
        lambda v, c: (v[0] * c[0][c[0] > 0].numel(),),
        lambda v, c: (v[0] * len(torch.nonzero(c[0])),),
        lambda v, c: (v[0] * torch.masked_select(c[0], c[0] > 0).sum(),),
        lambda v, c: (v[0] * len(c[0].unique()),),
    ],
)
def test_shapes_that_depend_on_values_are_not_traced(function: Callable[..., Tensor]) -> None:
    with pytest.raises(NotDefined, match="depends on values"):
        trace_linear(function, (torch.randn(3),), (torch.tensor([0.0, 1.0, 2.0]),))


def test_places_by_number_are_traced() -> None:
    v, c = (torch.randn(3),), (torch.tensor([2, 0]),)
    traced = trace_linear(lambda v, c: (v[0][c[0]],), v, c)
    other = torch.tensor([1, 1])
    assert torch.equal(traced.apply(*v, *traced.prepare(other))[0], v[0][other])


def test_a_trace_that_is_right_of_its_own_batch_alone_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = torch.randn(12, 3, dtype=torch.float64), torch.randint(2, (12,))

    def built_in(
        function: Callable[..., Tensor], direction: object, constants: object
    ) -> TracedMap:
        return TracedMap(lambda *others: (), lambda *v: function(v, constants))

    def operator(method: str) -> Hessian:
        risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), data), batch_size=11)
        return risk.hessian(risk.space.pack(model), method=method)

    v = torch.ones(26, dtype=torch.float64)
    expected = operator("graph") @ v
    monkeypatch.setattr(vector_products, "trace_linear", built_in)
    traced = operator("trace")
    assert len(traced._functions.bounds) > 1
    torch.testing.assert_close(traced @ v, expected, rtol=1e-10, atol=1e-12)


def test_zeros_that_torch_does_not_store_take_no_bytes() -> None:
    zeros = torch._efficientzerotensor((5,), dtype=torch.float64)
    assert stored_bytes([zeros, torch.ones(2, dtype=torch.float64)]) == 16


def test_steps_of_a_trace_note_their_shapes_in_one_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode made for each step takes as long as the trace itself."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a step makes a mode of its own")

    monkeypatch.setattr("torch.fx.experimental.proxy_tensor.FakeTensorMode", refuse)
    matrix, v = torch.randn(3, 3), torch.randn(3)
    traced = trace_linear(lambda d, c: (torch.tanh(c[0]) @ d[0],), (v,), (matrix,))
    other = torch.randn(3, 3)
    (product,) = traced.apply(2 * v, *traced.prepare(other))
    torch.testing.assert_close(product, torch.tanh(other) @ (2 * v))
