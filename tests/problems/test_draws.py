"""Fixed random numbers: their distribution, and that nothing but sample and call decides them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.func import grad, vmap

from thalweg.errors import DependsOnBatches, InvalidProblem
from thalweg.problems.draws import (
    DrawnSamples,
    FixedDraws,
    Layout,
    find_layouts,
    sample_keys,
)
from thalweg.problems.tensor_samples import TensorSamples

N = 4000
KEYS = sample_keys("train", torch.arange(N))
ROWS = [Layout(0, 1)] * 9
P = torch.tensor([0.1, 0.2, 0.7]).expand(N, 3)


def drawn(make, keys=KEYS, layouts=ROWS):
    with FixedDraws(keys, layouts):
        return make(len(keys))


NORMAL = {
    "randn": lambda n: torch.randn(n, 2),
    "randn, a tuple": lambda n: torch.randn((n, 2), dtype=torch.float64),
    "randn, by name": lambda n: torch.randn(size=(n, 2)),
    "randn, own generator": lambda n: torch.randn(n, 2, generator=torch.Generator()),
    "randn_like": lambda n: torch.randn_like(torch.empty(n, 2)),
    "normal": lambda n: (torch.normal(3.0, 2.0, (n, 2)) - 3) / 2,
    "normal of tensors": lambda n: torch.normal(torch.full((n, 2), 3.0), torch.ones(2)) - 3,
    "normal_": lambda n: (torch.empty(n, 2).normal_(1, 0.5) - 1) / 0.5,
    "log_normal_": lambda n: torch.empty(n, 2).log_normal_(0, 1).log(),
    "a distribution": lambda n: torch.distributions.Normal(torch.zeros(n, 2), 1.0).rsample(),
}
UNIFORM = {
    "rand": lambda n: torch.rand(n, 2),
    "rand_like": lambda n: torch.rand_like(torch.empty(n, 2)),
    "uniform_": lambda n: (torch.empty(n, 2).uniform_(-2, 2) + 2) / 4,
    "exponential_": lambda n: (-torch.empty(n, 2).exponential_(3.0) * 3).exp(),
    "a distribution": lambda n: torch.distributions.Uniform(0.0, torch.ones(n, 2)).rsample(),
}


@pytest.mark.parametrize(
    ("make", "law"),
    [(make, "norm") for make in NORMAL.values()] + [(make, "uniform") for make in UNIFORM.values()],
)
def test_numbers_have_their_distribution(make, law) -> None:
    numbers = drawn(make).double()
    assert stats.kstest(numbers.flatten().numpy(), law).pvalue > 1e-3
    # Neighbours, in a sample and of a sample, are not correlated: 4 standard errors.
    correlations = [
        torch.corrcoef(numbers.T)[0, 1],
        torch.corrcoef(torch.stack([numbers[1:, 0], numbers[:-1, 0]]))[0, 1],
    ]
    assert all(abs(float(c)) < 4 / N**0.5 for c in correlations)


@pytest.mark.parametrize(
    ("make", "shares"),
    [
        (lambda n: torch.randint(3, (n,)), [1 / 3, 1 / 3, 1 / 3]),
        (lambda n: torch.randint(0, 3, size=(n,)), [1 / 3, 1 / 3, 1 / 3]),
        (lambda n: torch.randint_like(torch.empty(n), 1, 3), [0, 0.5, 0.5]),
        (lambda n: torch.bernoulli(torch.full((n,), 0.3)), [0.7, 0.3]),
        (lambda n: torch.full((n,), 0.3).bernoulli(), [0.7, 0.3]),
        (lambda n: torch.empty(n).bernoulli_(0.3), [0.7, 0.3]),
        (lambda n: torch.multinomial(P[:n], 1)[:, 0], [0.1, 0.2, 0.7]),
        (lambda n: torch.multinomial(P[:n], 2, True)[:, 1], [0.1, 0.2, 0.7]),
        (lambda n: torch.multinomial(P[:n], 2)[:, 0], [0.1, 0.2, 0.7]),
        (lambda n: torch.distributions.Categorical(P[:n]).sample(), [0.1, 0.2, 0.7]),
        (lambda n: F.dropout(torch.ones(n), 0.3), [0.3, 0.7]),
        (lambda n: F.dropout2d(torch.ones(n, 1, 2, 2), 0.3)[:, 0, 0, 1], [0.3, 0.7]),
        (lambda n: nn.Dropout(0.3, inplace=True)(torch.ones(n)), [0.3, 0.7]),
        (lambda n: F.gumbel_softmax(P[:n].log(), hard=True).argmax(1), [0.1, 0.2, 0.7]),
    ],
)
def test_choices_have_their_shares(make, shares) -> None:
    chosen = drawn(make).round().long()  # 1 / 0.7 of what a dropout keeps
    counts = torch.bincount(chosen, minlength=len(shares)).double() / N
    for count, share in zip(counts.tolist(), shares, strict=True):
        assert abs(count - share) <= 4 * (share * (1 - share) / N) ** 0.5


def test_a_permutation_and_dropouts_that_do_nothing() -> None:
    order = drawn(lambda n: torch.randperm(7), layouts=[None])
    assert sorted(order.tolist()) == list(range(7))
    x = torch.ones(3)
    assert drawn(lambda n: F.dropout(x, 0.5, training=False)) is x
    assert drawn(lambda n: F.dropout2d(x, 0.0)) is x
    assert bool((drawn(lambda n: F.dropout(x, 1.0), layouts=[None]) == 0).all())
    kept = drawn(lambda n: F.dropout3d(torch.ones(n, 2, 2, 2, 2), 0.5))
    assert bool((kept.flatten(2).amax(2) == kept.flatten(2).amin(2)).all())


def several(n, x=None):
    x = torch.zeros(n, 3) if x is None else x
    return torch.cat([torch.randn_like(x), torch.rand(n, 2), torch.normal(x, 1.0)], 1)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_batch_and_no_order_changes_a_samples_numbers(data) -> None:
    whole = drawn(several, KEYS[:20])
    indices = torch.tensor(data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=12)))
    assert torch.equal(drawn(several, KEYS[indices]), whole[indices])
    torch.manual_seed(data.draw(st.integers(0, 5)))
    assert torch.equal(drawn(several, KEYS[:20]), whole)


def test_calls_streams_and_places_differ() -> None:
    two = drawn(lambda n: torch.stack([torch.randn(n), torch.randn(n)]))
    other = sample_keys("test", torch.arange(N))
    one = drawn(lambda n: torch.randn(n))
    assert torch.equal(two[0], one)
    for numbers in (two[1], drawn(lambda n: torch.randn(n), other)):
        assert abs(float(torch.corrcoef(torch.stack([one, numbers]))[0, 1])) < 4 / N**0.5


def test_samples_lie_where_they_are_said_to() -> None:
    plain = drawn(lambda n: torch.rand(n, 6), KEYS[:5])
    second = drawn(lambda n: torch.rand(2, n, 3), KEYS[:5], [Layout(1, 1)])
    assert torch.equal(second.movedim(1, 0).reshape(5, 6), plain)
    together = drawn(lambda n: torch.rand(2 * n, 3), KEYS[:5], [Layout(0, 2)])
    assert torch.equal(together.reshape(5, 6), plain)
    apart = drawn(lambda n: torch.rand(2 * n, 3), KEYS[:5], [Layout(0, 2, apart=True)])
    assert torch.equal(apart.reshape(2, 5, 3).movedim(1, 0).reshape(5, 6), plain)
    shared = [drawn(lambda n: torch.rand(4, 3), keys, [None]) for keys in (KEYS[:5], KEYS[2:4])]
    assert torch.equal(*shared)
    of_batch = [drawn(lambda n: torch.rand(4, 3), keys, None) for keys in (KEYS[:1], KEYS[1:2])]
    assert not torch.equal(*of_batch)


def test_where_samples_lie_is_found_out_from_two_batches() -> None:
    small = [torch.Size(s) for s in ((5, 3), (2, 5, 3), (10, 3), (4, 4), (5, 5))]
    large = [torch.Size(s) for s in ((7, 3), (2, 7, 3), (14, 3), (4, 4), (7, 5))]
    expected = [Layout(0, 1), Layout(1, 1), Layout(0, 2), None, Layout(0, 1)]
    assert find_layouts(small, large, (5, 7)) == expected
    for a, b in (
        ([small[0]], large[:2]),
        ([small[0]], [torch.Size((8, 3))]),
        ([small[4]], [torch.Size((7, 7))]),
        ([small[0]], [torch.Size((7,))]),
    ):
        with pytest.raises(DependsOnBatches, match=r"draws? random"):
            find_layouts(a, b, (5, 7))


def test_numbers_that_belong_to_no_sample_are_refused() -> None:
    with pytest.raises(DependsOnBatches, match=r"draws random numbers 2 times .* 1 times"):
        drawn(lambda n: (torch.rand(n), torch.rand(n)), layouts=ROWS[:1])
    with pytest.raises(DependsOnBatches, match=r"shape \(3,\) for 4000 samples"):
        drawn(lambda n: torch.rand(3))
    with pytest.raises(InvalidProblem, match=r"by torch.poisson, which cannot be held fixed"):
        drawn(lambda n: torch.poisson(torch.ones(n)))


def test_derivatives_and_batches_of_models_leave_them_as_they_are() -> None:
    def loss(w, keys):
        with FixedDraws(keys, ROWS):
            return ((torch.randn_like(keys.double() * w) * w.exp()).square()).mean()

    w, keys = torch.tensor(0.3, dtype=torch.float64), KEYS[:6]
    value = loss(w, keys)
    assert float(grad(loss)(w, keys)) == pytest.approx(2 * float(value))
    assert float(grad(grad(loss))(w, keys)) == pytest.approx(4 * float(value))
    both = vmap(loss, (None, 0))(w, keys.reshape(2, 3))
    assert torch.equal(both, torch.stack([loss(w, keys[:3]), loss(w, keys[3:])]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.7},
        {"attn_mask": torch.randn(6, 6, generator=torch.Generator().manual_seed(1))},
        {"enable_gqa": True},
    ],
)
def test_attention_with_dropout_is_torchs_on_average(options) -> None:
    generator = torch.Generator().manual_seed(3)
    heads = 2 if "enable_gqa" in options else 4
    q, k, v = (torch.randn(2, n, 6, 3, generator=generator) for n in (4, heads, heads))
    if "attn_mask" in options:
        options["attn_mask"].fill_diagonal_(1)
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    assert torch.equal(
        drawn(lambda n: F.scaled_dot_product_attention(q, k, v, **options)), expected
    )

    def attend(n: int) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.2, **options)

    found = torch.stack(
        [drawn(attend, sample_keys("train", torch.tensor([i])), None) for i in range(400)]
    )
    stderr = found.std(0) / 20
    assert float(((found.mean(0) - expected).abs() / (stderr + 1e-6)).max()) < 5


def test_samples_carry_their_keys() -> None:
    samples = DrawnSamples(TensorSamples((torch.arange(8.0), torch.arange(8))), "train")
    assert len(samples) == 8 and samples.draws == "fixed for each sample"
    batch = samples.take(torch.tensor([5, 2]))
    assert torch.equal(batch.keys, KEYS[[5, 2]]) and batch.batch[1].tolist() == [5, 2]
    assert torch.equal(samples.slice(3, 6).keys, KEYS[3:6])
    assert samples.fingerprint != DrawnSamples(samples, "test").fingerprint
