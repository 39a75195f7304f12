"""The check-up on planted truths: rescaled, permuted, from one parent, sharper."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import thalweg as tw
from thalweg.certificates.rise import bound_rise
from thalweg.cli.main import app
from thalweg.errors import NotSymmetric
from thalweg.geometry.scales import perturbation_scales
from thalweg.measurements import checkup, checkup_parts, checkup_verdicts
from thalweg.measurements.checkup import collect
from thalweg.measurements.checkup_aligned import aligned
from thalweg.measurements.checkup_clock import Clock, OutOfTime, ending
from thalweg.measurements.checkup_flatness import curvature, noise
from thalweg.measurements.checkup_layers import debiased_cka, inside
from thalweg.measurements.checkup_plan import OF_ALL, allot, make_plan
from thalweg.measurements.checkup_sizes import SHARES, whole_of
from thalweg.measurements.checkup_statistics import (
    calibration,
    compare_flatness,
    holm,
    linear_cka,
    quantiles,
)
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.checkup_timing import FOR_PLAN
from thalweg.measurements.checkup_verdicts import flatter, same_layers, verdicts
from thalweg.problems import Problem, open_point
from thalweg.run import open_run

SIZES = {"samples": 200, "draws": 20, "seconds": 1000.0, "most": 2000.0}
SIZES |= {"products": 40, "trace_products": 40, "gradients": 40, "method": "graph"}
SIZES |= {"basis": 32, "starts": 14, "memory": 8}
LINE = {"samples": 200, "points": 5, "most": 2000.0}


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double()


def digits(seed):
    """A small problem in float64, where equal functions are equal to many digits."""
    whole = tw.load_problem("digits", train_size=200, test_size=100)
    data = [(x.flatten(1).double(), y) for x, y in (whole.train, whole.test)]
    return Problem(network(seed), nn.CrossEntropyLoss(), *data)


def trained(problem, seed, *, noise=0.0, epochs=60, start=None):
    """Train by gradient descent with momentum, with noise on the weights at every step."""
    model = problem.model
    if start is not None:
        model.load_state_dict(start)
    x, y = problem.train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(50):
            drawn = [
                noise * p.detach().abs() * torch.randn(p.shape, generator=generator).double()
                for p in model.parameters()
            ]
            with torch.no_grad():
                for p, d in zip(model.parameters(), drawn, strict=True):
                    p += d
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            with torch.no_grad():
                for p, d in zip(model.parameters(), drawn, strict=True):
                    p -= d
            optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def rescaled(state, factor=3.7):
    """Multiply one layer and divide the next: ReLU leaves the function as it is."""
    scales = {"0.weight": factor, "0.bias": factor, "2.weight": 1 / factor, "2.bias": 1.0}
    return {name: tensor * scales[name] for name, tensor in state.items()}


def permuted(state, seed):
    """Put the hidden units in another order."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    return {
        "0.weight": state["0.weight"][order],
        "0.bias": state["0.bias"][order],
        "2.weight": state["2.weight"][:, order],
        "2.bias": state["2.bias"],
    }


class Planted:
    """A parent, and what was made of it."""

    def __init__(self, seed):
        self.problem = problem = digits(seed)
        self.a = trained(problem, seed)
        states = {
            "a": self.a,
            "rescaled": rescaled(self.a),
            "permuted": permuted(self.a, seed),
            "copy": trained(digits(seed), seed + 1000, epochs=10, start=self.a),
            "sharp": trained(digits(seed), seed, noise=0.02, epochs=15),
            "sturdy": trained(digits(seed), seed, noise=0.2, epochs=200),
        }
        self.names = list(states)
        points = [open_point(problem, state) for state in states.values()]
        self.subject = Subject(problem, points, self.names)

    @staticmethod
    def few():
        problem = digits(0)
        return Subject(problem, [open_point(problem, problem.model.state_dict())], ["a"])

    @cache  # noqa: B019, a parent lives as long as its test
    def flatness(self, name):
        where = self.subject, self.names.index(name), SIZES
        return noise(*where) | curvature(*where)

    def verdict(self, one, other):
        return flatter(self.flatness(one), self.flatness(other), one, other)

    def line(self, one, other, measure=checkup_parts.line, part="line"):
        from thalweg.measurements.dataset_codec import unpack

        places = self.names.index(one), self.names.index(other)
        sizes = {**LINE, "restarts": 0, "swaps": 0.0, "seconds": 100.0}
        data = unpack(measure(self.subject, *places, sizes))["line"]
        found = verdicts({"pairs": [(0, 1)], part: {(0, 1): data}}, [one, other])
        return found[0].verdict

    def layers(self, one, other):
        first, last = (
            inside(self.subject, self.names.index(name), {"samples": 100}) for name in (one, other)
        )
        return same_layers(first, last, one, other).numbers


def check_planted(seed):
    planted = Planted(seed)
    a, again = planted.flatness("a"), planted.flatness("rescaled")
    for measure in ("average", "loss noise", "eigenvalue", "worst"):
        assert again[measure] == pytest.approx(a[measure], rel=1e-5), measure
    assert again["trace"] != pytest.approx(a["trace"], rel=0.1), "the plain trace changes"
    assert planted.verdict("a", "rescaled").verdict == "no difference seen"
    assert "flatter" not in planted.verdict("a", "permuted").verdict
    assert planted.verdict("sharp", "sturdy").verdict == "sturdy is flatter"
    assert planted.line("a", "copy") == "one basin"
    assert planted.line("a", "permuted") == "a barrier"
    assert planted.line("a", "a") == "one basin"
    assert planted.line("a", "permuted", aligned, "aligned") == "one basin"
    for other in ("rescaled", "permuted"):
        assert planted.layers("a", other) == pytest.approx({"0": 1.0, "1": 1.0}, abs=1e-6), other
    # A control; the bound was 0.97, and is set after 20 seeds gave up to 0.978.
    assert min(planted.layers("a", "sharp").values()) < 0.99


@pytest.mark.parametrize("seed", [0, 3])
def test_planted_truths_are_found(seed):
    check_planted(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_planted_truths_are_found_in_twenty_seeds(seed):
    check_planted(seed)


def test_calibration_of_known_networks():
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.5, 1, 20_000)
    probabilities = np.stack([sure, 1 - sure], 1)
    fair = calibration(probabilities, (generator.random(20_000) > sure).astype(float))
    assert fair["ece"] < 0.02 and fair["excess_low"] < 0 < fair["excess_high"]
    assert fair["ece"] < 1.5 * fair["ece_of_chance"]
    boasting = calibration(probabilities, (generator.random(20_000) > sure - 0.2).astype(float))
    assert boasting["ece_low"] < 0.2 < boasting["ece_high"]
    assert boasting["excess_low"] < 0.2 < boasting["excess_high"]


def test_holm_and_cka_of_known_numbers():
    assert holm([0.01, 0.2]) == [0.02, 0.2]
    x = np.random.default_rng(0).normal(size=(500, 4))
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    assert linear_cka(x, 3 * x @ turned + 1) == pytest.approx(1.0)
    assert linear_cka(x, np.random.default_rng(2).normal(size=(500, 4))) < 0.05


def test_layers_that_have_nothing_in_common():
    draws = [np.random.default_rng(seed).normal(size=(60, 5000)) for seed in (0, 1)]
    first, last = (x @ x.T for x in draws)
    assert abs(debiased_cka(first, last)) < 0.02 < 0.9 < linear_cka(*draws), "bias of wide layers"
    assert debiased_cka(first, 9 * first) == pytest.approx(1.0)


def test_an_interval_of_a_share_of_samples_ends_at_one():
    def told(errors):
        fit = {"test_error": np.array(errors), "weights": np.zeros(1)}
        return checkup_verdicts._fits(fit, "a").numbers["test_error"]

    assert told([1.0] * 30 + [0.0] * 2)[2] == 1.0
    assert told([1.5] * 30 + [0.0] * 2)[2] > 1.5, "errors of another kind may be larger"


def test_quantiles_hold_the_truth():
    draws = np.random.default_rng(0).normal(size=(400, 200))
    held = [low <= 0 <= high for row in draws for _, low, high in quantiles(row, (0.5,)).values()]
    assert 0.93 < np.mean(held) <= 1


PLAN = {
    "seconds": {"value": 1e-3, "gradient": 3e-3, "product": 1.5e-2},
    **{"method": "graph", "minutes": 2.0, "points": 2, "pairs": 1, "weights": 200_000},
    **{"train": 5000, "test": 1000, "parted": True},
}

SLOW = {"seconds": {"value": 0.02, "gradient": 0.06, "product": 0.3}, "train": 1000}


def planned(**changes):
    plan = {**PLAN, **changes}
    return plan | allot(plan, list(SHARES), OF_ALL * 60 * plan["minutes"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train": 10**6, "test": 10**5, "minutes": 1.0},
        {"weights": 11 * 10**6, "train": 1000, "minutes": 15.0}
        | {"seconds": {"value": 0.02, "gradient": 0.06, "product": 0.3}},
        {"points": 1, "pairs": 0},
        {"points": 9, "pairs": 8, "test": 0},
    ],
)
def test_a_plan_keeps_to_the_time(changes):
    plan = planned(**changes)
    sizes = [plan[part] for part in SHARES if plan[part] is not None]
    seconds, most = sum(size["seconds"] for size in sizes), OF_ALL * 60 * plan["minutes"]
    assert seconds <= most and plan["fit"] is not None
    whole = all(plan[part] == whole_of(plan, part) for part in SHARES)
    assert whole or seconds > 0.93 * most, "all parts are whole, or the time is used"
    assert plan["noise"] is not None and plan["curvature"] is not None
    assert 8 * plan["weights"] * 2 * plan["curvature"]["starts"] <= 1.2e9 * 2
    assert (plan["lines"] is None) == (plan["points"] == 1)


def test_what_is_worth_more_is_let_in_first_with_the_least_that_it_needs():
    let_in = {
        minutes: [part for part in SHARES if planned(minutes=minutes, **SLOW)[part] is not None]
        for minutes in (0.1, 3.0, 8.0, 30.0)
    }
    assert let_in[0.1] == ["fit"] and let_in[30.0] == list(SHARES)
    assert let_in[3.0][:3] == ["fit", "lines", "noise"] and "curvature" not in let_in[3.0]
    assert "curvature" in let_in[8.0]


@pytest.fixture
def watch(monkeypatch):
    """A clock of the test's own, which a test moves on."""
    from types import SimpleNamespace

    from thalweg.measurements import checkup_clock

    hand = SimpleNamespace(now=0.0)
    hand.perf_counter = lambda: hand.now
    monkeypatch.setattr(checkup_clock, "time", hand)
    return hand


def test_sizes_become_smaller_where_the_machine_becomes_slower_and_stay_once_decided(watch):
    plan = planned()
    clock = Clock(plan)
    first = clock.sizes("fit")
    assert first["train"] == plan["fit"]["train"]
    with clock.timed("fit", first, 0.5):
        watch.now += 2 * first["seconds"]  # half of it takes four times as long
    with clock.timed("fit", first, 0.5):
        watch.now += 2 * first["seconds"]
    assert clock.slow == pytest.approx(4.0)
    lines, flat = clock.sizes("lines"), clock.sizes("noise")
    assert lines["samples"] * lines["points"] < 5000 * plan["lines"]["points"]
    assert flat["samples"] * flat["draws"] < plan["noise"]["samples"] * plan["noise"]["draws"]
    again = Clock(plan, clock.spent, clock.decided)
    assert again.sizes("noise") == flat and again.sizes("fit") == first
    late = Clock(plan, spent=1000.0)
    assert late.sizes("surface") is None


NAMES = ["a", "b"]


def acted(watch, clock, took, refused=()):
    """Do the parts of a check-up on the clock alone; ``took`` gives seconds a part took."""
    done = []

    def do(part, places, sizes):
        if part == "there":
            return {}
        done.append((part, places, sizes))
        seconds, most = took(part, sizes), sizes["most"] / places_of(part)
        late = seconds > most and part not in ("fit", "inside", "surface")  # these are not ended
        watch.now += most if late else seconds
        answer = {"refused": "late", "late": True} if late else {"samples": sizes.get("samples")}
        return {"refused": "no"} if part in refused else answer

    return collect(NAMES, clock, do), done


def places_of(part):
    return {"surface": 1, "line": 1, "aligned": 1}.get(part, 2)


@pytest.mark.parametrize("speed", [0.3, 0.6, 1.0, 2.0, 4.0])
def test_the_time_is_used_and_never_exceeded_whatever_the_machine_does(watch, monkeypatch, speed):
    monkeypatch.setattr(checkup, "unpack", lambda answer: {"line": answer})
    plan = planned(**SLOW, minutes=15.0)
    clock = Clock(plan)

    def took(part, sizes):
        return speed * sizes["seconds"] / sizes["slow"] / places_of(part)

    parts, done = acted(watch, clock, took)
    assert clock.spent <= 15 * 60
    whole = all(clock.done[part] == whole_of(clock.done, part) for part in SHARES)
    assert whole or clock.spent > 0.75 * 15 * 60
    assert {"fit", "line"} | ({"noise", "curvature"} if speed <= 2 else set()) <= parts.keys()
    calls = [(part, places) for part, places, _ in done]
    assert len(calls) <= 2 * len(set(calls))


def test_a_part_that_ran_out_of_time_is_done_again_and_one_that_cannot_be_is_not(
    watch, monkeypatch
):
    monkeypatch.setattr(checkup, "unpack", lambda answer: {"line": answer})

    def took(part, sizes):
        wrong = 2.1 if part == "curvature" else 0.5
        return wrong * sizes["seconds"] / sizes["slow"] / places_of(part)

    clock = Clock(planned(**SLOW, minutes=30.0))
    parts, done = acted(watch, clock, took, refused=("kernel",))
    assert clock.spent <= 30 * 60
    first, *others = [(places, sizes) for part, places, sizes in done if part == "curvature"]
    assert first[0] == (0,) and [places for places, _ in others] == [(0,), (1,)]
    assert set(parts["curvature"]) == {0, 1} and "refused" not in parts["curvature"][0]
    assert sum(part == "kernel" for part, *_ in done) == 2
    kept = Clock(clock.plan, clock.spent, clock.decided, clock.again)
    _, repeated = acted(watch, kept, lambda part, sizes: took(part, sizes) * 0)
    assert [call[2] for call in repeated if call[0] == "curvature"][-1] == others[-1][1]


def test_the_self_check_is_made_once_and_as_large_as_the_time_allows(monkeypatch):
    from thalweg.measurements import checkup_timing
    from thalweg.risk.self_check import _Check

    made, run = [], _Check.run
    monkeypatch.setattr(_Check, "run", lambda check: made.append(len(check.values)) or run(check))
    # The seconds of a gradient, of sixteen samples at last.
    monkeypatch.setattr(checkup_timing, "_timed", lambda call, most=1: 4e-4)
    subject = Planted.few()
    plan = make_plan(subject, 2.0)
    whole = subject.limited(300, 100)
    assert made == [64] and whole.risk.checked.to_dict() == plan["checked"] and made == [64]
    monkeypatch.setattr(checkup_timing, "_timed", lambda call, most=1: 1.0)
    assert make_plan(Planted.few(), 15.0)["checked"]["samples"] == 5
    assert made == [64, 5]


class Timed(nn.Sequential):
    """A network whose passes take the seconds of a clock of the test's own."""

    def __init__(self, hand, seconds):
        torch.manual_seed(0)
        super().__init__(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
        self.hand, self.seconds = hand, seconds

    def __deepcopy__(self, memo):
        copied = Timed(self.hand, self.seconds)
        copied.load_state_dict(self.state_dict())
        return copied

    def forward(self, x):
        self.hand.now += self.seconds * len(x)
        return super().forward(x)


OPENING = 200  # passes of a sample, of opening the data and of the first gradient


@pytest.mark.parametrize("minutes", [0.1, 2.0, 15.0])
@pytest.mark.parametrize("seconds", [1e-4, 1e-2, 0.1, 10.0])
def test_planning_takes_a_tenth_of_the_time_however_slow_the_network(minutes, seconds, monkeypatch):
    from types import SimpleNamespace

    from thalweg.measurements import checkup_plan, checkup_timing

    hand = SimpleNamespace(now=0.0)
    hand.perf_counter = lambda: hand.now
    for module in (checkup_plan, checkup_timing):
        monkeypatch.setattr(module, "time", hand)
    model, x = Timed(hand, seconds), torch.randn(500, 8)
    data = (x, x[:, :3].argmax(1))
    problem = Problem(model, nn.CrossEntropyLoss(), data, data)
    point = open_point(problem, model.state_dict())
    plan = make_plan(Subject(problem, [point, point], ["a", "b"]), minutes)
    assert hand.now <= FOR_PLAN * 60 * minutes + OPENING * seconds
    if 60 * minutes < 100 * seconds:
        assert plan["checked"] is False
    if 60 * minutes > 10**5 * seconds:
        assert plan["checked"]["samples"] == 64 and plan["seconds"]["value"] < 1.1 * seconds


def test_a_check_that_there_was_no_time_for_is_not_made_later():
    subject = Planted.few()
    subject.take_check(False)
    less = subject.limited(20, 20)
    assert less.risk.checked is None and subject.at(0)[0].checked is None
    there = checkup_parts.there(less)
    assert there["self_check"].startswith("not made: it would have taken too much of the time")
    (verdict,) = verdicts({"there": there}, ["a"])
    assert verdict.verdict == "not checked" and "give more --minutes" in verdict.trust


def test_a_part_that_takes_too_long_is_ended():
    import time

    bar = ending(10.0)(3, "work")
    bar.update()
    bar.last = time.perf_counter()
    with pytest.raises(OutOfTime, match=r"longer than its share .*\(work\)"):
        bar.update()


def test_less_data_for_all_parts_where_the_time_is_short():
    subject = Planted.few()
    less = subject.limited(50, 20)
    assert (less.risk.samples, less.risk.held_out().samples) == (50, 20)
    assert subject.limited(50, 20) is less and subject.limited(10**6, 10**6) is subject
    assert make_plan(subject, 1.0)["fit"]["train"] == 200


def test_a_difference_of_one_measure_is_no_verdict():
    flat = {name: 1.0 for name in ("average", "loss noise", "eigenvalue", "worst")}
    flat |= {f"{name}_each": np.linspace(0.9, 1.1, 9) for name in flat}
    other = flat | {"average": 2.0, "average_each": np.linspace(1.9, 2.2, 9)}
    assert [row["flatter"] for row in compare_flatness(flat, other)].count("first") == 1
    assert flatter(flat, other, "a", "b").verdict == "measures differ"


@pytest.mark.parametrize("chain", [True, False])
def test_the_worst_direction_has_an_upper_bound_where_one_is_proved(chain):
    torch.manual_seed(0)
    x = torch.randn(20, 3, dtype=torch.float64)
    layers = [nn.Linear(3, 4), nn.ReLU() if chain else nn.Softmax(1), nn.Linear(4, 2)]
    model = nn.Sequential(*layers).double()
    problem = Problem(model, nn.CrossEntropyLoss(), (x, (x[:, 0] > 0).long()))
    subject = Subject(problem, [open_point(problem, model.state_dict())], ["a"])
    few = SIZES | {"products": 20, "trace_products": 0, "gradients": 20, "starts": 4}
    flat = curvature(subject, 0, few)
    found = verdicts({"curvature": {0: flat}}, ["a"])[0]
    if not chain:
        assert "worst_most" not in flat and "no upper bound" in found.trust
        assert "at most" not in found.answer
        return
    risk, w = subject.few(0, 20)
    scales = perturbation_scales(risk.space, w, "adaptive")
    proved = bound_rise(risk, w, scales, 0.01 * len(w) ** 0.5).value
    assert flat["worst"] <= flat["worst_most"] == pytest.approx(proved, rel=1e-9)
    assert f"or more and by {proved:.3g} at most, as is proved;" in found.answer


def test_the_worst_step_of_many_weights_is_no_longer_than_one_of_them():
    # A hundredth of all, put into few, told of rises of 1e9 on eleven million weights.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4000), nn.ReLU(), nn.Linear(4000, 2))
    x = torch.randn(20, 3)
    problem = Problem(model, nn.CrossEntropyLoss(), (x, (x[:, 0] > 0).long()))
    subject = Subject(problem, [open_point(problem, model.state_dict())], ["a"])
    few = SIZES | {"products": 10, "trace_products": 0, "gradients": 12, "starts": 2}
    flat = curvature(subject, 0, few)
    weights = 4000 * 6 + 2
    assert flat["worst_radius"] == pytest.approx(weights**-0.5)
    risk, w = subject.few(0, 20)
    largest = bound_rise(risk, w, perturbation_scales(risk.space, w, "adaptive"), 1.0)
    assert flat["worst"] <= flat["worst_most"] == pytest.approx(largest.value, rel=1e-9)
    assert (
        "the worst step of 0.0065 raises it" in verdicts({"curvature": {0: flat}}, ["a"])[0].answer
    )


PROBLEM = """
import torch
from torch import nn
from thalweg import Problem

def make():
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    return Problem(model, nn.CrossEntropyLoss(), (x[:40], y[:40]), (x[40:], y[40:]))
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PROBLEM)
    model = tw.load_problem("mine.py:make").model
    for name in ("a", "b"):
        state = {k: t + 0.1 if t.is_floating_point() else t for k, t in model.state_dict().items()}
        torch.save(state if name == "b" else model.state_dict(), f"{name}.pt")
    return tmp_path


def test_the_command_writes_a_page_and_goes_on(work):
    words = ["inspect", "mine.py:make", "--checkpoint", "a.pt", "--checkpoint", "b.pt"]
    words += ["--minutes", "1", "--out", "r", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["inspect"]
    asked = {verdict["question"] for verdict in found["verdicts"]}
    assert {"Is this your model?", "How good is it?", "Which is flatter?"} <= asked
    assert {"Do they lie in one basin?", "Can they be averaged?", "How degenerate is it?"} <= asked
    page = (work / "r" / "report.html").read_text()
    assert "The check-up" in page and "Do they lie in one basin?" in page
    assert 'id="surface"' in page and 'id="barrier"' in page
    run = open_run("r")
    keys = {path: path.stat().st_mtime_ns for path in run.tasks.glob("*.json")}
    (work / "r" / "summary.json").unlink()
    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert json.loads(again.stdout)["inspect"] == found
    assert {path: path.stat().st_mtime_ns for path in run.tasks.glob("*.json")} == keys


def test_from_python_of_states_vectors_and_one_point(work):
    problem = tw.load_problem("mine.py:make")
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(problem.model)
    found = tw.inspect(problem, {"start": w, "file": "b.pt"}, minutes=0.1)
    assert found["Do they compute the same?"][0].about == "start, file"
    assert "<table>" in found._repr_html_() and "start" in str(found)
    (good,) = tw.inspect(problem, [problem.model.state_dict()], minutes=0.1)["How good"]
    assert good.numbers["train_loss"][0] == pytest.approx(risk.value(w), rel=1e-6)
    with pytest.raises(KeyError, match="How good"):
        found["Why?"]
    with pytest.raises(tw.ThalwegError, match="minutes=0"):
        tw.inspect(problem, [w], minutes=0)


def test_what_is_refused_is_said_and_the_rest_is_measured(monkeypatch):
    # One operator that was said to be asymmetric ended the whole check-up of a ResNet-18.
    def refused(*_):
        raise NotSymmetric("it is not symmetric.\nmore of it")

    monkeypatch.setitem(checkup._OF_A_POINT, "curvature", refused)
    monkeypatch.setitem(checkup._OF_A_POINT, "inside", refused)
    monkeypatch.setattr(checkup_parts, "surface", refused)
    problem = tw.load_problem("digits", network="mlp", width=4, train_size=60, test_size=30)
    start = problem.model.state_dict()
    found = tw.inspect(problem, {"a": start, "b": start}, minutes=0.3)
    for question in ("Do their inner layers", "How does the loss surface"):
        answer = found[question][0]
        assert (answer.verdict, answer.answer) == ("not measured", "it is not symmetric.")
        assert "--minutes" not in answer.trust
    flat = found["How flat is it there?"][0]
    assert flat.answer.startswith("noise of") and "not symmetric" in flat.trust
    assert found["Do they lie in one basin?"][0].numbers["barrier"] == 0
    monkeypatch.setattr(checkup_parts, "fit", refused)
    with pytest.raises(NotSymmetric):  # without it there is no check-up
        tw.inspect(problem, {"a": start}, minutes=0.1)
