"""The square root of the covariance in whose coordinates references are fitted."""

import pytest
import torch

from thalweg.sampling import Whitening

TURNED = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double())[0]
SCALES = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 9.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "vectors",
    [TURNED, TURNED[:, :2], torch.eye(6).double(), torch.eye(6).double()[:, [1, 0, 2, 3, 5, 4]]],
    ids=["turned", "leading", "axes", "axes in another order"],
)
def test_coordinates_go_there_and_back(vectors):
    whitening = Whitening(0.7, vectors, SCALES[: vectors.shape[1]])
    rows = torch.eye(6, dtype=torch.float64)
    matrix = whitening.from_coordinates(rows)  # T'
    square = whitening.multiply(whitening.multiply(rows))
    assert torch.allclose(matrix.T @ matrix, square)
    assert torch.allclose(whitening.pulled_back(rows), matrix.T)
    assert torch.allclose(whitening.to_coordinates(matrix), rows)
    assert torch.allclose(whitening.divide(whitening.multiply(rows)), rows)
    assert float(torch.logdet(square)) == pytest.approx(2 * whitening.log_determinant())
