"""Landscapes of known basins: the contract, closed forms, dimensions by dense Hessians, passes."""

from __future__ import annotations

import itertools

import pytest
import torch

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import (
    BasinTree,
    FlatBasins,
    MultifractalField,
    NestedField,
    Noisy,
    Rescaled,
    RuggedField,
    Valley,
    convex_bowl,
)
from thalweg.landscape.testing import LandscapeContract, ParallelContract, SampledContract

F64 = torch.float64


def noise(dims, size, seed=0):
    return size * torch.randn(dims, generator=torch.Generator().manual_seed(seed), dtype=F64)


class TestBowl(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return convex_bowl(6, condition=1e4)

    @pytest.fixture
    def w(self, landscape):
        return landscape.centre + noise(6, 0.5)


class TestFlatBasins(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return FlatBasins(6, flat=2)

    @pytest.fixture
    def w(self, landscape):
        return landscape.centres[0] + noise(6, 0.3)


class TestBasinTree(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return BasinTree(4)

    @pytest.fixture
    def w(self, landscape):
        return landscape.centres[1] + noise(4, 0.06)


class TestRuggedField(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return RuggedField(5)

    @pytest.fixture
    def w(self, landscape):
        return landscape.well(1, 2) + noise(5, 0.1)


class TestValley(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return Valley(7, flat=3)

    @pytest.fixture
    def w(self, landscape):
        return landscape.floor(torch.ones(3)) + noise(7, 0.3)


def nullity(landscape, w):
    hessian = torch.autograd.functional.hessian(lambda v: landscape._values(v[None])[0], w)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert float(eigenvalues.min()) > -1e-9
    return int((eigenvalues < 1e-9 * eigenvalues.max()).sum())


@pytest.mark.parametrize("flat", [0, 1, 5])
def test_bottoms_have_their_dimension(flat):
    basins = FlatBasins(8, count=2, flat=flat)
    w = basins.centres[1] + 0.3 * basins._frames[1].sum(1)
    assert basins.value(w) == pytest.approx(0.0, abs=1e-12) and basins.label(w) == 1
    assert nullity(basins, w) == flat == basins.dimension


@pytest.mark.parametrize("flat", [1, 4])
def test_the_valley_has_its_dimension_and_no_barrier(flat):
    valley = Valley(6, flat=flat)
    ends = [valley.floor(torch.full((flat,), x)) for x in (-2.0, 2.5)]
    assert nullity(valley, ends[0]) == flat == valley.dimension
    along = [valley.floor(torch.full((flat,), x, dtype=F64)) for x in torch.linspace(-2, 2.5, 50)]
    assert max(map(valley.value, along)) < 1e-25
    assert valley.barrier(valley.label(ends[0]), valley.label(ends[1])) == 0.0
    middle = valley.value((ends[0] + ends[1]) / 2)
    assert middle > 1e-3


def test_no_path_of_a_grid_is_lower_than_a_tree_says():
    """Flood the plane: the level at which two leaves join is their barrier."""
    tree = BasinTree(2, heights=(4.0, 2.0, 1.0))
    side, reach = 241, 4.2
    places = torch.linspace(-reach, reach, side, dtype=F64) + 1.0
    grid = torch.stack(torch.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    values = tree.values_and_gradients(grid)[0]
    leaves = [int((grid - centre).square().sum(1).argmin()) for centre in tree.centres]
    joined = flood(values, side, leaves)
    for i, j in itertools.combinations(range(4), 2):
        assert joined[i, j] == pytest.approx(tree.barrier(i, j), abs=0.05)
    assert [tree.barrier(0, j) for j in range(4)] == [0.0, 1.0, 3.0, 3.0]
    assert max(tree.value(centre) for centre in tree.centres) == pytest.approx(0.0, abs=1e-12)
    assert [tree.label(centre) for centre in tree.centres] == [0, 1, 2, 3]
    assert tree.label(torch.tensor([1.0, 1.0])) == -1


def flood(values, side, leaves):
    """Union cells of a square grid from the lowest up, and note when marked cells join."""
    parent, marks, joined = list(range(side * side)), {}, {}

    def find(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    wet = [False] * (side * side)
    marks = {cell: {number} for number, cell in enumerate(leaves)}
    for cell in values.argsort().tolist():
        wet[cell] = True
        x, y = divmod(cell, side)
        for a, b in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            other = a * side + b
            if not (0 <= a < side and 0 <= b < side and wet[other]):
                continue
            one, two = find(cell), find(other)
            if one == two:
                continue
            for i in marks.get(one, ()):
                for j in marks.get(two, ()):
                    joined[min(i, j), max(i, j)] = float(values[cell])
            parent[two] = one
            marks[one] = marks.get(one, set()) | marks.pop(two, set())
    return joined


def test_bands_find_the_passes():
    dims = 12
    tree = BasinTree(dims, heights=(4.0, 2.0, 1.0))
    for i, j in ((0, 1), (1, 2)):
        path = tw.connect(tree, tree.centres[i], tree.centres[j], kind="band", steps=150)
        assert path.highest == pytest.approx(tree.barrier(i, j), rel=0.01)
    field = RuggedField(dims, height=0.7)
    path = tw.connect(field, field.well(0), field.well(1), kind="band", steps=150)
    assert path.highest == pytest.approx(0.7, rel=0.01)
    # Along the diagonal the line is twice as high as one axis after the other.
    path = tw.connect(field, field.well(0, 0), field.well(1, 1), kind="band", bends=21)
    assert path.line_highest == pytest.approx(1.4, rel=1e-3)
    assert path.highest == pytest.approx(0.7, rel=0.01)


def test_the_plain_parts_flat_basins():
    basins = FlatBasins(5, count=4, flat=2, height=3.0)
    w0, w1 = basins.centres[0], basins.centres[3]
    assert float(tw.barrier(basins, w0, w1, points=101).barrier[0]) == basins.barrier(0, 3) == 3.0
    assert basins.label((w0 + basins.centres[1]) / 2) == -1
    distances = torch.cdist(basins.centres, basins.centres) + 10 * torch.eye(4)
    assert float(distances.min()) > 4.4
    assert len({basins.label(centre) for centre in basins.centres}) == 4


def test_wells_of_a_rugged_field():
    field = RuggedField(4, height=2.0, spacing=0.5)
    labels = [
        field.label(field.well(*steps) + noise(4, 0.02)) for steps in ((0,), (1,), (1, 3), (0,))
    ]
    assert labels == [0, 1, 2, 0] and field.barrier(0, 2) == 2.0
    assert field.value(field.well(5, -2)) == pytest.approx(0.0, abs=1e-12)


def test_refusals():
    with pytest.raises(InvalidArgument, match=r"flat=3, count=3; write flat below dims"):
        FlatBasins(3, flat=3)
    with pytest.raises(InvalidArgument, match=r"branching=5; write from 2 to dims"):
        BasinTree(4, branching=5)
    with pytest.raises(InvalidArgument, match="no samples to take a batch of"):
        Valley(3).gradient(torch.zeros(3), torch.tensor([0]))


class TestNestedField(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return NestedField(10)

    @pytest.fixture
    def w(self, landscape):
        return landscape.well(1, 2) + noise(10, 0.1)


class TestMultifractalField(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return MultifractalField(6, rough=3, octaves=3)

    @pytest.fixture
    def w(self, landscape):
        return landscape.well(1, 2) + noise(6, 0.1)


class TestNoisy(LandscapeContract, SampledContract, ParallelContract):
    @pytest.fixture
    def landscape(self):
        return Noisy(RuggedField(5), samples=12, noise=0.4)

    @pytest.fixture
    def w(self, landscape):
        return landscape.known.well(1, 2) + noise(5, 0.1)


class TestRescaled(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return Rescaled(RuggedField(5), (1.0, 10.0))

    @pytest.fixture
    def w(self, landscape):
        return landscape.rescale(landscape.known.well(1, 2) + noise(5, 0.1))


@pytest.mark.parametrize("seed", [0, 1])
def test_batches_have_the_noise_that_is_asked_for(seed):
    field = Noisy(RuggedField(300), samples=50, noise=0.2, seed=seed)
    points = noise(300, 1.0).repeat(40, 1)
    orders = torch.rand(40, 50, generator=torch.Generator().manual_seed(seed)).argsort(1)
    gradients = field.batch_gradients(points, orders[:, :8])
    one = field.gradient(points[3], orders[3, :8])
    assert torch.allclose(gradients[3], one, atol=1e-12)
    spread = (gradients - field.gradient(points[0])).square().mean().sqrt()
    assert float(spread) == pytest.approx(0.2 * (42 / 49 / 8) ** 0.5, rel=0.05)


def test_nested_wells_are_a_tree():
    field = NestedField(14, heights=(2.0, 0.5, 0.1), spacings=(4.0, 1.0, 0.2), per_level=3)
    steps = [(0,), (0,) * 6 + (2,), (0,) * 3 + (1, 0, 0, 5), (1,), (1,) + (0,) * 5 + (3,)]
    labels = [field.label(field.well(*step)) for step in steps]
    heights = [[field.barrier(i, j) for j in labels] for i in labels]
    assert heights[0] == [0.0, 0.1, 0.5, 2.0, 2.0] and heights[3][4] == 0.1
    for i, j, k in itertools.permutations(range(5), 3):
        assert heights[i][j] <= max(heights[i][k], heights[k][j])
    assert max(field.value(field.well(*step)) for step in steps) < 1e-12
    assert field.labels(field.well(*steps[2])) == ((0, 0, 0), (1, 0, 0), (5, 0, 0))
    assert nullity(field, field.well(1) + noise(14, 0.0)) == field.dimension == 5
    path = tw.connect(field, field.well(0), field.well(0, 0, 0, 1, 0, 0, 1), kind="band", bends=21)
    assert path.highest == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("hurst", "intermittency"), [(0.4, 0.0), (0.6, 0.5), (0.6, 0.8)])
def test_differences_of_a_multifractal_have_its_exponents(hurst, intermittency):
    """Fit moments of differences over distances between the shortest and the longest wave."""
    field = MultifractalField(
        1, rough=1, hurst=hurst, intermittency=intermittency, octaves=7, base=3
    )
    z = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=F64)
    f = field.profile(z)
    x = 0.4 * 3.0 ** -torch.arange(1, 6, dtype=F64)
    for q in (1.0, 2.0, 3.0):
        moments = torch.stack([(field.profile(z + r) - f).abs().pow(q).mean() for r in x])
        across = x.log() - x.log().mean()
        slope = float((across * moments.log()).sum() / across.square().sum())
        assert slope == pytest.approx(field.exponent(q), abs=0.1)
    assert field.exponent(1.0) == pytest.approx(hurst)
    bent = field.exponent(4.0) - 4 * hurst
    assert bent == pytest.approx(0.0, abs=1e-9) if intermittency == 0 else bent < -0.2


def test_the_pass_of_a_multifractal():
    field = MultifractalField(3, rough=1, octaves=3)
    ends = [field.well(0), field.well(1)]
    labels = [field.label(end) for end in ends]
    line = tw.barrier(field, *ends, points=2001, test=False)
    assert float(line.barrier[0]) == pytest.approx(field.barrier(*labels), rel=1e-3)
    inner = field.label(field.well(0) + 0.34 * (ends[1] - ends[0]))
    assert inner not in labels
    with pytest.raises(InvalidArgument, match="write labels of lowest points"):
        field.barrier(labels[0], inner)


def test_unlike_layers_have_the_same_labels_and_passes():
    field = NestedField(8, per_level=2)
    layers = Rescaled(field, (1.0, 50.0, 0.1))
    steps = ((0,), (0, 0, 1), (1,))
    labels = [layers.label(layers.rescale(field.well(*step))) for step in steps]
    assert layers.barrier(labels[0], labels[1]) == 0.25 and layers.barrier(*labels[::2]) == 1.0
    w = layers.rescale(field.well(0, 0, 1) + noise(8, 0.05))
    scales = layers.space.layer_scales(layers.rescale(torch.ones(8)))
    assert list(scales.values()) == [1.0, 50.0, pytest.approx(0.1)]
    assert layers.value(w) == pytest.approx(field.value(w / layers._units))
    assert tw.gradient_flow(layers, w, stationary=1e-7).status == "converged"
