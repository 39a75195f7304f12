"""A network of timm, measured as it is made: the library is not in the development environment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg as tw

timm = pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_a_network_of_timm_is_measured_and_its_file_opened(name, tmp_path):
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=3, **size).eval()
    x = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = torch.arange(24) % 3
    torch.save({"state_dict": model.state_dict(), "epoch": 7, "arch": name}, tmp_path / "a.pth")
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, y))
    point = tw.open_point(problem, tmp_path / "a.pth")
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen")
    w = point.load_into(risk)
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(x), y))
    assert risk.value(w) == pytest.approx(expected, rel=1e-5)
    hessian = risk.hessian(w)
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(2))
    u = torch.randn(len(w), generator=torch.Generator().manual_seed(3))
    there, back = float(u @ (hessian @ v)), float(v @ (hessian @ u))
    assert there == pytest.approx(back, rel=1e-2, abs=1e-3 * float((hessian @ v).norm()))
