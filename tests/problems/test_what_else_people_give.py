"""Tables, arrays, streams, unfinished models: taken where they have one meaning, else refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import thalweg as tw
from evaluation_models import LABELS, VECTORS, chain
from thalweg.errors import InvalidProblem

CRITERION = nn.CrossEntropyLoss()


def value_of(data: object, model: nn.Module | None = None) -> float:
    torch.manual_seed(0)
    model = chain() if model is None else model
    risk = tw.EmpiricalRisk(tw.Problem(model, CRITERION, data))
    return risk.value(risk.space.pack(model))


def test_tables_and_arrays_are_their_numbers():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    expected = value_of((VECTORS, LABELS))
    x, y = VECTORS.numpy(), LABELS.numpy()
    for table in (
        (x, y),
        (pandas.DataFrame(x), pandas.Series(y)),
        (xarray.DataArray(x, dims=("sample", "feature")), xarray.DataArray(y, dims="sample")),
    ):
        assert value_of(table) == expected


def test_what_is_no_table_of_numbers_is_refused():
    pandas, sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    with pytest.raises(InvalidProblem, match=r"hold a DataFrame of object where a tensor"):
        value_of((pandas.DataFrame({"a": ["x"] * 24}), LABELS))
    with pytest.raises(InvalidProblem, match=r"csr_matrix where .*\(x\.toarray\(\)\)"):
        value_of((sparse.csr_matrix(VECTORS.numpy()), LABELS))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(list(zip(VECTORS, LABELS, strict=True)))


def test_a_stream_of_samples_is_read_in_batches():
    with pytest.raises(InvalidProblem, match="DataLoader"):
        value_of(Stream())
    assert value_of(DataLoader(Stream(), batch_size=7)) == pytest.approx(
        value_of((VECTORS, LABELS)), rel=1e-6
    )


def test_class_numbers_beyond_the_outputs_are_named():
    with pytest.raises(InvalidProblem, match=r"from 3 to 5, .* of the classes 0 to 2"):
        value_of((VECTORS, LABELS + 3))


def test_a_model_without_numbers_is_refused():
    with pytest.raises(InvalidProblem, match="meta device"):
        value_of((VECTORS, LABELS), chain().to("meta"))


def test_a_criterion_of_three_is_told_how_to_be_written():
    with pytest.raises(InvalidProblem, match=r"criterion\(\*model\(\*batch\)\)"):
        tw.Problem(chain(), nn.TripletMarginLoss(), (VECTORS, VECTORS, VECTORS)).samples("train")


def test_losses_that_are_not_finite_are_said_at_once(caplog):
    x = VECTORS.clone()
    x[3] = torch.inf
    with caplog.at_level(logging.WARNING, "thalweg"):
        assert np.isnan(value_of((x, LABELS)))
    assert "1 of the 24 losses" in caplog.text and "infinite" in caplog.text
    caplog.clear()
    value_of((VECTORS, LABELS))
    assert not caplog.text


class WithSlots(nn.Module):
    """Whose copies lack what stands in its slots."""

    __slots__ = ("factor",)

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)
        object.__setattr__(self, "factor", 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.line(x)


def test_a_copy_that_fails_is_not_the_model():
    torch.manual_seed(0)
    model = WithSlots()
    with torch.no_grad():
        expected = CRITERION(model(VECTORS), LABELS).item()
    assert value_of((VECTORS, LABELS), model) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_an_exported_program_is_measured():
    torch.manual_seed(0)
    plain = chain()
    program = torch.export.export(plain, (VECTORS,), dynamic_shapes=({0: torch.export.Dim("n")},))
    expected = value_of((VECTORS, LABELS), plain)
    assert value_of((VECTORS, LABELS), program.module()) == pytest.approx(expected, rel=1e-6)
