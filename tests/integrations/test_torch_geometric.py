"""Graphs of PyTorch Geometric, measured in the batches that its own loader makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw

pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool


class Classifier(nn.Module):
    """Two graph convolutions and the mean over the nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(3, 6), GCNConv(6, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, data: Any) -> Tensor:
        hidden = torch.tanh(self.first(data.x, data.edge_index))
        hidden = torch.tanh(self.second(hidden, data.edge_index))
        return self.last(global_mean_pool(hidden, data.batch))


def graphs(count: int) -> list[Data]:
    """Make rings of three to eight nodes; the class is that of the mean of the first feature."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        nodes = 3 + i % 6
        x = torch.randn(nodes, 3, generator=generator)
        around = torch.arange(nodes)
        edges = torch.stack([around, (around + 1) % nodes])
        edges = torch.cat([edges, edges.flip(0)], dim=1)
        made.append(Data(x=x, edge_index=edges, y=(x[:, :1].mean(0) > 0).long()))
    return made


def each(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch), batch.y, reduction="none")


def mean(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch), batch.y)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier()


@pytest.mark.parametrize("loss", [each, mean])
def test_the_risk_is_the_mean_over_all_graphs_however_they_are_batched(model, loss):
    made = graphs(22)
    loader = DataLoader(made, batch_size=8)  # of 8, 8 and 6 graphs
    count = None if loss is each else lambda batch: float(batch.num_graphs)
    problem = tw.Problem(model, loss, tw.Batches(loader), weight=count)
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    assert "batches as given" in str(risk.described["data"])
    whole = Batch.from_data_list(made)
    whole.x = whole.x.double()
    expected = mean(model.double(), whole)
    w = risk.space.pack(model)
    assert risk.value(w) == pytest.approx(float(expected.detach()), rel=1e-12)
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    by_hand = torch.cat([slope.flatten() for slope in slopes])
    torch.testing.assert_close(risk.gradient(w), by_hand, rtol=1e-9, atol=1e-12)
    v = torch.randn(len(w), dtype=w.dtype, generator=torch.Generator().manual_seed(1))
    step = 1e-6 * v
    differences = (risk.gradient(w + step) - risk.gradient(w - step)) / 2e-6
    torch.testing.assert_close(risk.hessian(w) @ v, differences, rtol=1e-5, atol=1e-7)


def test_a_training_on_graphs_goes_down_and_is_measured(model):
    problem = tw.Problem(model, each, tw.Batches(DataLoader(graphs(48), batch_size=16)))
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(problem.model)
    result = tw.train(risk, w, epochs=60, lr=0.5)
    assert risk.value(result.w) < 0.5 * risk.value(w)
    assert tw.trace(risk.hessian(result.w), rtol=0.2, max_products=60).value > 0
