"""Orders of units: copies with known orders, all orders of small networks, trained digits."""

from __future__ import annotations

import copy
import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import thalweg as tw
from aligned_models import GPT, LABELS, OURS, THEIRS, TOKENS, VECTORS, stirred
from thalweg.connectivity import matching
from thalweg.connectivity.activation_matching import correlate_activations, match_activations
from thalweg.connectivity.distance_bound import distance_bound
from thalweg.connectivity.matching import Placement
from thalweg.connectivity.midpoint import Midpoint
from thalweg.connectivity.symmetries import exchange, find_symmetries
from thalweg.errors import InvalidArgument, InvalidWeights, NotDefined, SelfCheckFailed
from thalweg.problems import MLP
from thalweg.tracing.units import Exchange, Units

CASES = OURS | THEIRS


def made(name, seed=0):
    make, x, sizes = CASES[name]
    torch.manual_seed(seed)
    model = stirred(make(), seed)
    return tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, LABELS))), sizes


def moved_copy(risk, seed=1):
    """Give the network's own point with its units in random order, as a state, and its outputs."""
    rng = np.random.default_rng(seed)
    w = risk.space.pack(risk.problem.model)
    symmetries = find_symmetries(risk, w)
    placement = Placement.start(symmetries, symmetries.state(w, risk.fixed()))
    for block in [*symmetries.blocks, *(heads.whole for heads in symmetries.heads)]:
        placement.move(block, rng.permutation(block.size))
    state = placement.state
    named = risk.space.unpack(torch.from_numpy(state[: risk.space.size]).float())
    statistics = {name: t.float() for name, t in symmetries.statistics(state).items()}
    copied = copy.deepcopy(risk.problem.model)
    copied.load_state_dict(named | statistics, strict=False)  # a tied tensor has two names
    return copied.state_dict(), placement


def outputs(model, state, x):
    with torch.no_grad():
        return functional_call(model, state, (x,), tie_weights=False)


@pytest.mark.parametrize("name", CASES)
def test_a_permuted_copy_is_undone_exactly(name):
    risk, sizes = made(name)
    model, x = risk.problem.model, CASES[name][1]
    state, placement = moved_copy(risk)
    # The copy is one: other weights, the same function, by the model itself.
    w = risk.space.pack(model)
    there = outputs(model, state, x)
    torch.testing.assert_close(there, outputs(model, model.state_dict(), x), rtol=1e-4, atol=1e-5)
    found = tw.align(risk, w, tw.open_point(risk.problem, state), restarts=1, steps=0)
    assert sorted(map(len, found.permutations.values())) == sorted(sizes)
    assert not torch.equal(risk.space.pack(state), w) and found.unaligned > 0.1
    assert torch.equal(found.w, w) and found.cost == 0.0 == found.bound
    assert found.difference < 1e-6 and not found.left
    for block, order in placement.orders.items():
        assert np.array_equal(order[found.permutations[block]], np.arange(len(order)))
    for buffer, tensor in found.statistics.items():
        assert torch.equal(tensor.float(), model.state_dict()[buffer])


def test_no_order_is_given_that_is_farther_than_the_given_one(monkeypatch):
    """Networks that are wrong and sure of it: the mean of two far ones has the lower loss."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(30, 6)
    with torch.no_grad():
        model[2].weight.mul_(8.0)
        wrong = model(x).argmin(1)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, wrong)))
    w = risk.space.pack(model)
    sibling = w + 0.01 * torch.randn(len(w))
    far = {"0": np.arange(8)[::-1].copy()}
    module = sys.modules["thalweg.connectivity.order_search"]
    monkeypatch.setattr(module, "match_activations", lambda *_: far)
    monkeypatch.setattr(module, "match_weights", lambda *_, **__: 0.0)
    found = tw.align(risk, w, sibling, restarts=0, steps=0)
    assert found.losses["activations"] < found.losses["unaligned"]
    assert found.cost == found.unaligned and torch.equal(found.w, sibling)
    swapped = tw.align(risk, w, sibling, restarts=2, steps=200)
    assert swapped.cost <= swapped.unaligned


def test_the_bar_of_a_search_is_full_at_its_end(digits):
    risk, points = digits
    bars = []

    class Counted:
        def __init__(self, total, label):
            self.total, self.label, self.done, self.updates = total, label, 0, 0
            bars.append(self)

        def update(self, n=1):
            self.done, self.updates = self.done + n, self.updates + 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    tw.align_all(risk, points[:3], steps=60, restarts=0, progress=Counted)
    (bar,) = bars
    assert "evaluations" in bar.label
    assert bar.done == bar.total == 120 and bar.updates > 10


@pytest.mark.parametrize("by_hand", [False, True])
def test_maps_of_heads_are_undone(by_hand):
    torch.manual_seed(3)
    model = stirred(GPT(by_hand=by_hand, tied=False), 3)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (TOKENS, LABELS)))
    w = risk.space.pack(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for block, head in itertools.product(range(2), range(2)):
        rows = slice(4 * head, 4 * head + 4)
        qk, vo = (torch.eye(4) + 0.3 * torch.randn(4, 4, generator=generator) for _ in range(2))
        for part, matrix in enumerate((qk, torch.linalg.inv(qk).T, vo)):
            for kind in ("weight", "bias"):
                tensor = state[f"blocks.{block}.qkv.{kind}"]
                there = slice(8 * part + rows.start, 8 * part + rows.stop)
                tensor[there] = matrix @ tensor[there]
        out = state[f"blocks.{block}.out.weight"]
        out[:, rows] = out[:, rows] @ torch.linalg.inv(vo)
    here = outputs(model, model.state_dict(), TOKENS)
    torch.testing.assert_close(outputs(model, state, TOKENS), here, rtol=1e-4, atol=1e-5)
    found = tw.align(risk, w, risk.space.pack(state), restarts=0, steps=0)
    assert found.unaligned > 1
    assert found.cost < 1e-9 * float(w @ w) and found.difference < 1e-6
    assert all(len(heads) == 2 for heads in found.maps.values()) and len(found.maps) == 2


def test_the_bound_is_below_all_orders_and_the_search_finds_the_best():
    risks = [
        tw.EmpiricalRisk(
            tw.Problem(
                stirred(MLP(6, (3, 3), 3, seed=s), s), nn.CrossEntropyLoss(), (VECTORS, LABELS)
            )
        )
        for s in (0, 1)
    ]
    w0, w1 = (risk.space.pack(risk.problem.model) for risk in risks)
    symmetries = find_symmetries(risks[0], w0)
    first, second = (symmetries.state(w, {}) for w in (w0, w1))
    costs = []
    for orders in itertools.product(itertools.permutations(range(3)), repeat=2):
        state = second.copy()
        for block, order in zip(symmetries.blocks, orders, strict=True):
            exchange(state, block.uses, np.array(order))
        costs.append(matching.distance(symmetries, first, state))
    found = tw.align(risks[0], w0, w1, steps=0)
    by_cost = tw.align(risks[0], w0, w1, steps=0, restarts=40)
    assert found.bound == pytest.approx(distance_bound(symmetries, first, second))
    assert 0 < found.bound <= min(costs) <= by_cost.cost <= by_cost.unaligned
    assert found.unaligned == pytest.approx(costs[0]) and max(costs) > min(costs)
    best = min(
        matching.match_weights(
            symmetries, first, matching.random_start(symmetries, second, rng), rng
        )
        for rng in (np.random.default_rng(s) for s in range(20))
    )
    assert best == pytest.approx(min(costs))


def test_one_hidden_layer_is_an_assignment_and_the_bound_is_reached():
    ends = [stirred(MLP(6, (9,), 3, seed=s), s) for s in (0, 1)]
    risk = tw.EmpiricalRisk(tw.Problem(ends[0], nn.CrossEntropyLoss(), (VECTORS, LABELS)))
    w0, w1 = (risk.space.pack(model) for model in ends)
    symmetries = find_symmetries(risk, w0)
    first, second = (symmetries.state(w, {}) for w in (w0, w1))
    placement = Placement.start(symmetries, second)
    cost = matching.match_weights(symmetries, first, placement, np.random.default_rng(0))
    assert cost == pytest.approx(tw.align(risk, w0, w1, steps=0).bound)


@pytest.fixture(scope="module")
def digits():
    """Networks of 12 and 12 units, trained from three starts on 300 digits."""
    problem = tw.load_problem("digits", network="mlp", widths=(12, 12), train_size=300)
    risk = tw.EmpiricalRisk(problem)
    starts = [risk.space.pack(MLP(64, (12, 12), 10, seed=s)) for s in range(3)]
    return risk, [tw.train(risk, w, epochs=40, lr=0.05, seed=s).w for s, w in enumerate(starts)]


def barrier(risk, w0, w1):
    return float(tw.barrier(risk, w0, w1, points=11, test=False).barrier[0])


def test_swaps_lower_the_barrier_below_both_matchings(digits):
    risk, (w0, w1, _) = digits
    found = tw.align(risk, w0, w1, steps=600, restarts=5)
    losses = found.losses
    assert losses["aligned"] < min(losses["weights"], losses["activations"]) < losses["unaligned"]
    assert losses["aligned"] == pytest.approx(risk.value((w0 + found.w) / 2), rel=1e-5)
    assert barrier(risk, w0, found.w) < 0.5 * barrier(risk, w0, w1)
    assert risk.value(found.w) == pytest.approx(risk.value(w1), rel=1e-4)
    assert found.bound < found.cost < found.unaligned and 0 < found.gap < 1
    again = tw.align(risk, w0, w1, steps=600, restarts=5)
    assert torch.equal(again.w, found.w)


def test_matching_by_activations_takes_statistics_from_the_data():
    """Weights say nothing of batch-norm statistics: what a model kept of others is not asked."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, torch.arange(200) % 3)))
    w = risk.space.pack(stirred(model, 0))
    symmetries = find_symmetries(risk, w)
    state = symmetries.state(w, risk.fixed())
    order = np.random.default_rng(0).permutation(8)
    placement = Placement.start(symmetries, state)
    placement.move(symmetries.blocks[0], order)
    spoilt = placement.state.copy()
    spoilt[symmetries.weights : symmetries.weights + 8] = 1e3  # means that silence all units
    correlations = correlate_activations(symmetries, state, spoilt)
    (found,) = match_activations(correlations).values()
    assert np.array_equal(order[found], np.arange(8))


def test_several_networks_have_one_order(digits):
    risk, points = digits
    three = tw.align_all(risk, points, steps=150, restarts=2)
    assert torch.equal(three[0].w, points[0]) and three[0].cost == 0.0
    mean = sum(one.w for one in three) / 3
    assert risk.value(mean) < 0.5 * risk.value(sum(points) / 3)
    # By way of the first or directly: orders composed move the second's units onto the third's.
    symmetries = find_symmetries(risk, points[0])
    second, third = (symmetries.state(w, {}) for w in points[1:])
    there = third.copy()
    for block in symmetries.blocks:
        back = np.argsort(three[1].permutations[block.name])
        exchange(there, block.uses, three[2].permutations[block.name][back])
    direct = matching.distance(symmetries, second, there)
    by_the_first = float((three[1].w - three[2].w).double().square().sum())
    assert direct == pytest.approx(by_the_first, rel=1e-5)


def test_frozen_weights_stay_and_hold_their_units():
    model = stirred(MLP(6, (8, 5), 3), 0)
    model.linear1.weight.requires_grad_(False)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (VECTORS, LABELS)))
    w = risk.space.pack(model)
    found = tw.align(
        risk, w, torch.randn(len(w), generator=torch.Generator().manual_seed(0)), steps=0
    )
    assert list(found.permutations) == ["linear2"]


def test_what_the_structure_suggests_is_tried(monkeypatch):
    risk, _ = made("mlp")
    found = Units.exchanges

    def with_a_wrong_one(units):
        uses = (np.arange(72).reshape(12, 6).T.copy(),)  # inputs, which may not change places
        return [*found(units), Exchange((1001, 1002), uses)]

    monkeypatch.setattr(Units, "exchanges", with_a_wrong_one)
    symmetries = find_symmetries(risk, risk.space.pack(risk.problem.model))
    assert symmetries.left == ["linear1 (2)"]
    assert [block.size for block in symmetries.blocks] == [12, 9]


def test_another_function_is_never_given(monkeypatch):
    risk, _ = made("mlp")
    w = risk.space.pack(risk.problem.model)

    def by_halves(state, uses, order):
        exchange(state, uses[:1], order)

    def first_of(midpoint, symmetries, starts, *rest, **options):
        return starts[0]  # of weights

    monkeypatch.setattr(matching, "exchange", by_halves)
    monkeypatch.setattr(
        importlib.import_module("thalweg.connectivity.order_search"), "refine", first_of
    )
    # The unmoved one, which computes the same, would be lower.
    monkeypatch.setattr(Midpoint, "loss", lambda *_: 0.0)
    with pytest.raises(SelfCheckFailed, match="changed the function"):
        tw.align(risk, w, w.flip(0).contiguous(), restarts=0, steps=0)


def test_refusals():
    problem = tw.Problem(nn.Linear(6, 3), nn.CrossEntropyLoss(), (VECTORS, LABELS))
    w = tw.EmpiricalRisk(problem).space.pack(problem.model)
    with pytest.raises(NotDefined, match="no units of this network may change places"):
        tw.align(problem, w, w)
    risk, _ = made("mlp")
    w = risk.space.pack(risk.problem.model)
    with pytest.raises(InvalidArgument, match="restarts=-1"):
        tw.align(risk, w, w, restarts=-1)
    with pytest.raises(InvalidArgument, match="1 points"):
        tw.align_all(risk, [w])
    with pytest.raises(InvalidWeights, match="w1: "):
        tw.align(risk, w, w * torch.nan)


@pytest.mark.slow
def test_ten_pairs_of_digits_networks():
    """The benchmark judges: medians of the ratios to weight matching and to the best of all."""
    script = Path(__file__).parents[2] / "benchmarks" / "alignment.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_activations_in_pieces_give_the_same_correlations(monkeypatch):
    problem = tw.load_problem("digits", network="mlp", widths=(6, 5), train_size=90)
    risk = tw.EmpiricalRisk(problem)
    first, second = (
        tw.load_problem("digits", network="mlp", widths=(6, 5), seed=seed).model for seed in (0, 1)
    )
    points = [risk.space.pack(model) for model in (first, second)]
    symmetries = find_symmetries(risk, points[0])
    states = [symmetries.state(w, risk.fixed()) for w in points]
    module = sys.modules["thalweg.connectivity.activation_matching"]
    whole = module.correlate_activations(symmetries, *states)
    monkeypatch.setattr(module, "_HELD", (6 + 5) * 7)  # seven samples at once
    pieces = [
        stop - start for start, stop in module._bounds(symmetries, _watched(module, symmetries))
    ]
    assert pieces == [7] * 12 + [6]
    parts = module.correlate_activations(symmetries, *states)
    assert whole.keys() == parts.keys()
    for name, correlations in whole.items():
        np.testing.assert_allclose(correlations, parts[name], rtol=0, atol=1e-12)


def _watched(module, symmetries):
    return {node for node, *_ in module._watched(symmetries)}
