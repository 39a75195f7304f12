"""The user's own model is looked at, and so are torch's generators, without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.problems.untouched import Untouched


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y + torch.randn_like(y)


def test_the_same_seed_draws_the_same_and_the_users_generator_stays() -> None:
    model, x = Noisy(), torch.randn(4, 3)
    look = Untouched(model)
    before = torch.get_rng_state()
    first, second, other = (look(lambda m, b: m(b), x, seed=seed) for seed in (1, 1, 2))
    assert look.drew
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(model(x), first)


def test_generators_of_devices_that_the_model_is_not_on_are_not_seeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would not be put back; and torch keeps a stack of calls for each seed that waits."""

    def refuse(*_: Any) -> None:
        raise AssertionError("another device was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.mps, "manual_seed", refuse)
    monkeypatch.setattr(torch.xpu, "manual_seed_all", refuse)
    look = Untouched(nn.Linear(3, 2))
    look(lambda model, batch: model(batch), torch.randn(4, 3), seed=1)
    assert not look.drew
