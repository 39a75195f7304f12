"""Directions against hand-computed norms, cosines and variances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thalweg.errors import InvalidArgument
from thalweg.geometry.directions import cosines, not_orthogonal, random_directions
from thalweg.geometry.points_plane import through_points
from thalweg.geometry.principal import principal_directions
from thalweg.geometry.projection import project
from thalweg.landscape import ParameterSpace


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 2),
            nn.Flatten(),
            nn.Linear(24, 5),
        )


def start(model: nn.Module | None = None) -> tuple[ParameterSpace, Tensor]:
    model = model or network()
    space = ParameterSpace.of(model)
    return space, space.pack(model)


def worst(directions: Tensor) -> float:
    unit = directions.double() / directions.double().norm(dim=0)
    return float((unit.T @ unit).fill_diagonal_(0.0).abs().max())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("orthogonal", [True, False])
def test_every_filter_has_the_norm_of_its_own(count: int, orthogonal: bool) -> None:
    space, w = start()
    wanted = space.filter_norms(w)
    for direction in random_directions(space, w, count, orthogonal=orthogonal).T:
        norms = space.filter_norms(direction)
        for name in wanted:
            torch.testing.assert_close(norms[name], wanted[name], rtol=1e-5, atol=0)
    assert len(wanted["3.weight"]) == 6, "a transposed convolution's filters are outputs"


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("normalize", ["filter", "layer", None])
def test_directions_are_orthogonal_after_scaling(normalize: str | None, count: int) -> None:
    space, w = start()
    kinds = ("weight", "bias", "norm")
    for seed in range(5):
        directions = random_directions(space, w, count, normalize=normalize, seed=seed, kinds=kinds)
        assert worst(directions) < 1e-6


def test_without_orthogonalization_they_are_independent_gaussians() -> None:
    space, w = start()
    drawn = random_directions(space, w, 2, normalize=None, orthogonal=False)[space.mask("weight")]
    n = len(drawn)
    assert 1e-6 < worst(drawn) < 4 / math.sqrt(n)
    assert abs(float(drawn.mean())) < 4 / math.sqrt(2 * n)
    assert abs(float(drawn.var()) - 1) < 4 * math.sqrt(2 / (2 * n))
    kept = random_directions(space, w, 2, normalize=None)
    torch.testing.assert_close(kept[space.mask("weight"), 0], drawn[:, 0])


def test_biases_and_norms_are_left_out_unless_named() -> None:
    space, w = start()
    directions = random_directions(space, w)
    assert not directions[space.mask("bias", "norm")].any()
    assert directions[space.mask("weight")].all()


def test_named_biases_and_norms_are_scaled_as_one_group_a_layer() -> None:
    space, w = start()
    direction = random_directions(space, w, 1, kinds=("bias", "norm"))[:, 0]
    assert not direction[space.mask("weight")].any()
    for layer, entries in space.layers.items():
        for kind in ("bias", "norm"):
            part = entries.start + space.mask(kind)[entries].nonzero().flatten()
            assert float(direction[part].norm()) == pytest.approx(float(w[part].norm()), rel=1e-5)
        assert layer
    bias = space.parameters[1]
    ratios = direction[bias.slice].abs() / w[bias.slice].abs()
    assert float(ratios.std()) > 0.1, "entries are not rescaled one by one"


def test_layer_scaling_is_not_filter_scaling() -> None:
    space, w = start()
    direction = random_directions(space, w, 1, normalize="layer")[:, 0]
    kernel = space.parameters[0]
    assert float(direction[kernel.slice].norm()) == pytest.approx(
        float(w[kernel.slice].norm()), rel=1e-5
    )
    norms, own = space.filter_norms(direction)["0.weight"], space.filter_norms(w)["0.weight"]
    assert float((norms / own - 1).abs().max()) > 0.01


@given(st.integers(0, 2**40), st.integers(2, 3))
@settings(max_examples=15, deadline=None)
def test_filters_of_one_entry_are_made_up_for_by_the_others(seed: int, count: int) -> None:
    space, w = start(nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 40), nn.Linear(40, 3)))
    directions = random_directions(space, w, count, seed=seed)
    assert worst(directions) < 1e-6
    for direction in directions.T:
        for name, norms in space.filter_norms(direction).items():
            torch.testing.assert_close(norms, space.filter_norms(w)[name], rtol=1e-5, atol=0)


def tiny(hidden: Sequence[float], out: Sequence[float]) -> tuple[ParameterSpace, Tensor]:
    """Give a network of one input and one output, by its weights."""
    width = len(hidden)
    model = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).double()
    space = ParameterSpace.of(model)
    w = space.pack(model)
    w[:width] = torch.tensor(hidden, dtype=torch.float64)
    w[2 * width : 3 * width] = torch.tensor(out, dtype=torch.float64)
    return space, w


@pytest.mark.parametrize(
    ("hidden", "out"),
    [
        ([3.0, 4.0], [2.0, 2.0]),  # 16 - 9 < 8: a right angle, though 16 + 9 > 8
        ([3.0, 4.0], [1.0, 1.0]),  # 16 - 9 > 2: none
        ([1.0, 1.0], [1e-3, 0.0]),
        ([5.0, 0.1], [0.5, -0.5]),
        ([2.0], [1.0]),
        ([1.0, 1.0, 1.0], [0.1, 0.1, 0.1]),
        ([6.0, 3.0, 2.0, 1.0], [3.0, 4.0, 0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("seed", range(6))
def test_networks_of_one_input_come_as_near_to_a_right_angle_as_they_can(
    hidden: list[float], out: list[float], seed: int
) -> None:
    space, w = tiny(hidden, out)
    directions = random_directions(space, w, seed=seed)
    for direction in directions.T:
        for name, norms in space.filter_norms(direction).items():
            torch.testing.assert_close(norms, space.filter_norms(w)[name], rtol=1e-12, atol=0)
    # Filters of one entry contribute their squares with a sign each; those of more, whatever lies
    # between minus and plus their squares.
    signed = [
        abs(sum(sign * h**2 for sign, h in zip(signs, hidden, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(hidden))
    ]
    squares = sum(h**2 for h in hidden)
    room = sum(o**2 for o in out) if len(out) > 1 else 0.0
    least = min(signed) if room else min(abs(s - out[0] ** 2) for s in signed)
    wanted = max(0.0, least - room) / (squares + sum(o**2 for o in out))
    assert abs(cosines(directions)[0]) == pytest.approx(wanted, abs=1e-12)
    first = random_directions(space, w, 1, seed=seed)[:, 0]
    torch.testing.assert_close(directions[:, 0], first, rtol=1e-14, atol=0)  # stays as drawn


def test_one_dimension_of_a_network_of_one_input_is_its_filters_norms() -> None:
    space, w = tiny([3.0, -4.0], [0.6, 0.8])
    direction = random_directions(space, w, 1)[:, 0]
    assert direction.abs()[:2].tolist() == pytest.approx([3.0, 4.0])
    assert not direction[2:4].any() and not direction[6:].any()
    assert float(direction[4:6].norm()) == pytest.approx(1.0)


@given(st.integers(0, 2**40), st.integers(1, 60), st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_filters_of_one_entry_change_few_signs(seed: int, width: int, count: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed % 1000)
        model = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2))
    space, w = start(model)
    if count == 3 and width == 1:
        return  # three weights that can move, and signs alone
    directions = random_directions(space, w, count, seed=seed)
    for direction in directions.T:
        for name, norms in space.filter_norms(direction).items():
            torch.testing.assert_close(norms, space.filter_norms(w)[name], rtol=1e-5, atol=0)
    if width >= 16:  # with fewer signs some three directions are left a degree off
        assert max(map(abs, cosines(directions))) < (1e-6 if width >= 24 else 0.05)
        plain = random_directions(space, w, count, seed=seed, orthogonal=False)
        turned = (directions[:width] * plain[:width] < 0).sum(0)
        assert int(turned[0]) == 0 and int(turned.max()) <= width // 2 + (width < 24)


def test_what_is_not_orthogonal_is_said(caplog: pytest.LogCaptureFixture) -> None:
    space, w = tiny([3.0, 4.0], [1.0, 1.0])
    directions = random_directions(space, w)
    assert "a cosine of" in caplog.text and "normalize='layer'" in caplog.text
    assert "0.19" in not_orthogonal(directions)  # (16 - 9 - 2) / (16 + 9 + 2) = 0.185
    caplog.clear()
    assert max(map(abs, cosines(random_directions(space, w, normalize="layer")))) < 1e-12
    assert not caplog.text


def test_complex_filters_move_as_pairs_of_reals() -> None:
    layers = [nn.Linear(*sizes, dtype=torch.complex64) for sizes in ((3, 4), (2, 3))]
    space, w = start(nn.Sequential(*layers))
    for count in (2, 3):
        directions = random_directions(space, w, count)
        for direction in directions.T:
            for name, norms in space.filter_norms(direction).items():
                torch.testing.assert_close(norms, space.filter_norms(w)[name], rtol=1e-5, atol=0)
        assert worst(directions) < 1e-6


def test_more_directions_than_weights_are_refused() -> None:
    space, w = start(nn.Linear(1, 1))
    with pytest.raises(InvalidArgument, match=r"2 directions .* fewer dims"):
        random_directions(space, w)
    assert random_directions(space, w, 1).shape == (2, 1)
    w = torch.tensor([2.0, 0.0, 0.0, 0.0])
    with pytest.raises(InvalidArgument, match="too few weights are not zero"):
        random_directions(ParameterSpace.of(nn.Linear(1, 2)), w)


def test_a_zero_filter_stays_zero_and_zero_weights_are_refused() -> None:
    space, w = start(nn.Linear(4, 3))
    w[4:8] = 0.0
    directions = random_directions(space, w)
    assert not directions[4:8].any() and bool(directions.isfinite().all())
    with pytest.raises(InvalidArgument, match="normalize=None"):
        random_directions(space, torch.zeros_like(w))


def test_seeds_repeat_and_differ() -> None:
    space, w = start()
    one, same, other = (random_directions(space, w, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert abs(float(torch.cosine_similarity(one[:, 0], other[:, 0], dim=0))) < 0.2
    assert torch.equal(random_directions(space, w, 3, seed=1)[:, 0], one[:, 0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "positive number"),
        ({"normalize": "filters"}, "'filter', 'layer' or None"),
        ({"kinds": ("biases",)}, "'weight', 'bias', 'norm'"),
        ({"kinds": "weight"}, "tuple"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    space, w = start(nn.Linear(2, 2))
    with pytest.raises(InvalidArgument, match=words):
        random_directions(space, w, **options)


@given(st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_points_lie_where_their_coordinates_say(seed: int) -> None:
    points = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plane = through_points(*points)
    found = plane.origin + plane.coordinates @ plane.directions.T
    torch.testing.assert_close(found, points)
    gram = plane.directions.T @ plane.directions
    torch.testing.assert_close(gram, torch.eye(2, dtype=gram.dtype) * gram[0, 0])
    distances = torch.cdist(plane.coordinates, plane.coordinates) * gram[0, 0].sqrt()
    torch.testing.assert_close(distances, torch.cdist(points, points))


def test_points_that_span_no_plane_are_refused() -> None:
    w = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(InvalidArgument, match="same point"):
        through_points(w, w)
    with pytest.raises(InvalidArgument, match="on the line"):
        through_points(w, 2 * w, 3.1 * w)
    with pytest.raises(InvalidArgument, match="one space"):
        through_points(w, w.double())
    assert through_points(w, 2 * w).coordinates.tolist() == [[0.0], [1.0]]


def test_principal_directions_match_the_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    points = torch.randn(12, 5, generator=generator, dtype=torch.float64) * spread + 7.0
    found = principal_directions(points, 3)
    _, values, rows = torch.linalg.svd(points - points.mean(0))
    torch.testing.assert_close(found.explained_variance, values[:3] ** 2 / 11)
    torch.testing.assert_close(found.explained_variance_ratio, (values**2 / (values**2).sum())[:3])
    torch.testing.assert_close((rows[:3] @ found.directions).abs(), torch.eye(3).double())
    assert bool(((points[-1] - points[0]) @ found.directions >= 0).all())
    seen = project(points, found.mean, found.directions)
    assert seen.variance_share == pytest.approx(float(found.explained_variance_ratio.sum()))


def test_more_components_than_the_points_span_are_refused() -> None:
    points = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 1.0], [2.0, 4.0, 1.0]])
    with pytest.raises(InvalidArgument, match="span 1 dim"):
        principal_directions(points, 2)


def test_projection_on_skew_directions_finds_the_coordinates() -> None:
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(40, 2, generator=generator)
    directions[:, 1] += 2 * directions[:, 0]
    origin, coordinates = torch.randn(40, generator=generator), torch.tensor([[0.5, -2.0], [3, 1]])
    seen = project(origin + coordinates @ directions.T, origin, directions)
    torch.testing.assert_close(seen.coordinates, coordinates.double(), rtol=1e-5, atol=1e-5)
    assert float(seen.distances.max()) < 1e-5 and seen.variance_share == pytest.approx(1.0)
    assert math.isnan(project(origin[None], origin, directions).variance_share)
    with pytest.raises(InvalidArgument, match="linearly dependent"):
        project(origin[None], origin, directions[:, [0, 0]])
