"""Named random streams: the same for ever, and unlike one another."""

from __future__ import annotations

import numpy as np
import torch

from thalweg.run.seeds import derive_seed, numpy_generator, torch_generator

NAMES = [(), ("order",), ("noise",), ("noise", 0), ("noise", 1), ("noise", "0"), ("order", "noise")]


def test_a_stream_is_the_same_on_every_machine():
    # sha256(b'[0, "order"]'), its first 8 bytes without the last bit, worked out by sha256sum.
    assert derive_seed(0, "order") == 0xDDC9F22D5B458123 >> 1


def test_streams_differ_by_seed_and_by_name():
    seeds = {derive_seed(seed, *names) for seed in range(50) for names in NAMES}
    assert len(seeds) == 50 * len(NAMES)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_leave_the_global_ones_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for make, draw in [
        (torch_generator, lambda g: torch.randn(5, generator=g).tolist()),
        (numpy_generator, lambda g: g.normal(size=5).tolist()),
    ]:
        assert draw(make(3, "noise")) == draw(make(3, "noise"))
        assert draw(make(3, "noise")) != draw(make(3, "order"))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
