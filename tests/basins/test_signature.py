"""Signatures: the same descents as `train`'s, what is compared with what, and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.basins.many import descend_from
from thalweg.basins.signature import KINDS, Design, Signature, signature
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import Noisy, RuggedField, convex_bowl

SMALL = Design(parents=3, copies=2, levels=3, generations=2, scale=0.1)
RECIPE = {"lr": 0.1, "momentum": 0.9, "steps": 40, "batch_size": None, "schedule": "cosine"}


def starts(count, dims, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, generator=generator, dtype=torch.float64)


def test_descents_at_once_are_those_of_train():
    field = RuggedField(6, spacing=2.0)
    points = starts(4, 6)
    halfway, ends = descend_from(field, points, RECIPE, seed=0)
    for i, point in enumerate(points):
        one = tw.train(field, point, **RECIPE, every=20)
        assert torch.allclose(ends[i], one.w, atol=1e-12)
        assert torch.allclose(halfway[i], dict(one.snapshots)[20], atol=1e-12)


def test_batches_are_epochs_of_all_samples():
    field = Noisy(convex_bowl_at_zero(), samples=6, noise=1.0)
    plain = {"lr": 1e-3, "momentum": 0.0, "schedule": "constant", "batch_size": 2}
    # In a slope that hardly changes, an epoch's noise adds up to nothing, and a part's does not.
    there = starts(3, 4)
    whole = descend_from(field, there, {**plain, "steps": 3}, seed=1)[1]
    part = descend_from(field, there, {**plain, "steps": 2}, seed=1)[1]
    still = descend_from(field.known, there, {**plain, "steps": 3}, seed=1)[1]
    assert float((whole - still).norm()) < 0.02 * float((part - still).norm())


def convex_bowl_at_zero():
    return RuggedField(4, spacing=100.0)


def test_a_network_and_a_field_go_through_one_protocol():
    problem = tw.load_problem("digits", network="mlp", widths=(6,), train_size=100)
    risk = tw.EmpiricalRisk(problem)
    seeds = [
        tw.load_problem("digits", network="mlp", widths=(6,), seed=seed).model for seed in range(3)
    ]
    first = torch.stack([risk.space.pack(model) for model in seeds])
    found = signature(risk, first, training={"steps": 30, "batch_size": 50}, design=SMALL, seed=1)
    again = signature(
        RuggedField(6), starts(3, 6), training={**RECIPE, "lr": 0.02}, design=SMALL, seed=1
    )
    assert found.columns.keys() == again.columns.keys()
    assert np.array_equal(found.columns["kind"], again.columns["kind"])
    for column in found.columns.values():
        assert len(column) == len(found.columns["kind"])
    assert 0 < found.unit < 3 and found.profile().sizes["scale"] == 3
    # A line of the table is a line between two networks.
    copy = Signature.from_xarray(found.to_xarray())
    assert copy.design == SMALL and copy.unit == found.unit
    assert np.array_equal(copy.columns["barrier"], found.columns["barrier"])


def test_pairs_are_what_the_design_says():
    found = signature(RuggedField(5), starts(3, 5), training={**RECIPE, "lr": 0.02}, design=SMALL)
    counts = {kind: len(found.pairs(kind)["kind"]) for kind in KINDS}
    # 3 parents, 3 scales, 2 copies; disjoint pairs; 3 pairs of parents.
    assert counts == {
        "early child": 18,
        "child": 18,
        "sibling": 9,
        "cousin": 9,
        "descendant": 18,
        "parents": 3,
    }
    assert SMALL.scales == pytest.approx((0.1, 0.1 * 2**0.5, 0.2))
    assert np.isnan(found.pairs("sibling")["step"]).all()


def test_bowls_take_all_back_and_steps_of_a_line_of_descent_are_as_long_as_one():
    bowl = convex_bowl(30, condition=1.0)
    deep = {**RECIPE, "lr": 0.5, "steps": 200}
    found = signature(bowl, bowl.centre + starts(3, 30), training=deep, design=SMALL)
    profile = found.profile()
    assert (profile.returned == 1).all() and (profile.returned_early == 1).all()
    assert float(profile.kept.max()) < 0.05 and float(profile.child_barrier.max()) <= 1e-9
    # Where nothing moves, distances are those of the noise alone.
    flat = RuggedField(400, flat=399, spacing=50.0)
    design = Design(parents=3, copies=4, levels=4, scale=0.1)
    found = signature(flat, starts(3, 400), training={**RECIPE, "lr": 1.0}, design=design)
    profile = found.profile()
    assert profile.kept.values == pytest.approx(1.0, abs=0.05)
    one, many = profile.sibling_distance.values[1:], profile.cousin_distance.values[:-1]
    assert many / one == pytest.approx(np.ones(3), abs=0.08)


def test_refusals():
    with pytest.raises(InvalidArgument, match=r"write \(3, W\), one for each parent"):
        signature(RuggedField(3), starts(2, 3), design=SMALL)
    with pytest.raises(InvalidArgument, match="training has 'epochs'; write some of lr"):
        signature(RuggedField(3), starts(3, 3), training={"epochs": 2}, design=SMALL)
    with pytest.raises(InvalidArgument, match="write a training that lowers it"):
        signature(RuggedField(3), torch.zeros(3, 3).double(), training=RECIPE, design=SMALL)
    with pytest.raises(InvalidArgument, match="an even number of copies"):
        Design(copies=3)
