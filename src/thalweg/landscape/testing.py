"""
The contracts of landscapes, as tests: whoever writes one runs them against it.

Subclass the contract of each protocol that the class has in a pytest file, and define the fixtures
``landscape`` and ``w``, a point where the function is smooth and not flat. Give a landscape of
float64 where there is a choice: differences then judge to ten digits.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from thalweg.landscape.differences import Difference, difference
from thalweg.landscape.protocols import (
    Batched,
    Curved,
    Described,
    Drawable,
    Landscape,
    LeastSquares,
    LinearOperator,
    Parallel,
    Placed,
    Remakeable,
    Sampled,
    Scored,
    Stateful,
    Stepped,
    Trainable,
    members,
    provenance_of,
    words_of,
)
from thalweg.run.seeds import torch_generator

# Relative: of sums taken in another order, and of differences that may judge.
_SUMS = {torch.float32: 1e-4, torch.float64: 1e-10}
_JUDGED = {torch.float32: 5e-2, torch.float64: 1e-5}
_STEP = {torch.float32: 5e-2, torch.float64: 2e-3}
# A kink within reach of a direction's steps leaves it undecided; so many must decide.
_DIRECTIONS, _DECIDED = 12, 3


class LandscapeContract:
    """What every instrument asks of a `Landscape`."""

    def test_has_the_members(self, landscape: Landscape) -> None:
        """`isinstance` finds the protocol's members."""
        _has(landscape, Landscape)

    def test_w_is_a_point_of_the_space(self, landscape: Landscape, w: Tensor) -> None:
        """The space has the size of ``w``, and its names cover it."""
        assert landscape.space.size == len(w)
        assert sum(part.numel() for part in landscape.space.unpack(w).values()) == len(w)

    def test_the_value_is_a_finite_float(self, landscape: Landscape, w: Tensor) -> None:
        """Not a tensor that holds a graph, nor NaN."""
        value = landscape.value(w)
        assert type(value) is float and abs(value) < float("inf")

    def test_the_value_moves_with_w(self, landscape: Landscape, w: Tensor) -> None:
        """A function of other weights than these would stay where it is."""
        assert any(landscape.value(w + direction) != landscape.value(w) for direction in _around(w))

    def test_the_value_is_a_function_of_w_alone(self, landscape: Landscape, w: Tensor) -> None:
        """Twice the same, to the last bit, whatever was evaluated in between."""
        before = landscape.value(w)
        assert landscape.value(w) == before
        landscape.gradient(w)
        assert landscape.value(w) == before
        for direction in _around(w, 1):
            landscape.value(w + direction)
            landscape.gradient(w - direction)
        assert landscape.value(w) == before

    def test_w_is_not_changed(self, landscape: Landscape, w: Tensor) -> None:
        """Neither by the value nor by the gradient; and it gets no gradient of its own."""
        given = w.clone()
        landscape.value(given)
        landscape.gradient(given)
        assert torch.equal(given, w) and given.grad is None and not given.requires_grad

    def test_the_gradient_is_a_vector_like_w(self, landscape: Landscape, w: Tensor) -> None:
        """Of shape (W,), without a graph, in the dtype and on the device that are stated."""
        gradient = landscape.gradient(w)
        assert gradient.shape == w.shape and not gradient.requires_grad
        if isinstance(landscape, Placed):
            assert (gradient.dtype, gradient.device) == (landscape.dtype, landscape.device)

    def test_the_gradient_is_the_callers_to_keep(self, landscape: Landscape, w: Tensor) -> None:
        """The next call gives another tensor, and the same at the same point."""
        gradient = landscape.gradient(w)
        kept = gradient.clone()
        for direction in _around(w, 1):
            landscape.gradient(w + direction)
        assert torch.equal(gradient, kept)
        assert torch.equal(landscape.gradient(w), kept)

    def test_the_gradient_is_the_values(self, landscape: Landscape, w: Tensor) -> None:
        """Along random directions, and along itself, it is the slope that differences see."""
        gradient = landscape.gradient(w).double().cpu()
        _judge(
            lambda v: _slope(landscape.value, w, v, landscape),
            lambda v: gradient @ v.double().cpu(),
            w,
            along=gradient,
            dtype=_dtype(landscape, w),
        )

    def test_either_precision_is_taken(self, landscape: Landscape, w: Tensor) -> None:
        """A point of float32 is the same point, rounded."""
        rounded = w.float()
        there = landscape.value(rounded)
        _close(there, landscape.value(rounded.double()), torch.float32)

    def test_what_is_no_point_is_refused(self, landscape: Landscape, w: Tensor) -> None:
        """Another shape or integers raise a ValueError: ``space.check(w)`` does it."""
        for wrong in (w[:-1], torch.cat([w, w]), w[None], w.long()):
            _refuses(landscape.value, wrong)
            _refuses(landscape.gradient, wrong)

    def test_words_are_plain(self, landscape: Landscape) -> None:
        """What a landscape says of itself can be written into a file."""
        if isinstance(landscape, Described):
            _is_plain(words_of(landscape))


class BatchedContract:
    """What training in mini-batches asks of a `Batched` landscape."""

    def test_has_samples(self, landscape: Batched) -> None:
        """`isinstance` finds the members, and their number is one."""
        _has(landscape, Batched)
        assert isinstance(landscape.samples, int) and landscape.samples > 0

    def test_the_batch_of_all_gives_the_gradient(self, landscape: Batched, w: Tensor) -> None:
        """In any order."""
        order = torch.randperm(landscape.samples, generator=torch_generator(0, "order"))
        _close(landscape.gradient(w, order), landscape.gradient(w), _dtype(landscape, w))

    def test_batches_average_to_the_gradient(self, landscape: Batched, w: Tensor) -> None:
        """Weighted by their sizes; unless batch statistics tie a batch's samples together."""
        if provenance_of(landscape).pooled:
            return
        order = torch.randperm(landscape.samples, generator=torch_generator(1, "order"))
        mean = sum(
            landscape.gradient(w, batch).double() * (len(batch) / landscape.samples)
            for batch in order.tensor_split(min(3, len(order)))
        )
        _close(torch.as_tensor(mean), landscape.gradient(w), _dtype(landscape, w))

    def test_a_batch_of_few_is_their_own(self, landscape: Batched, w: Tensor) -> None:
        """The gradients of two samples are not the same, and the value stays what it was."""
        before = landscape.value(w)
        last = landscape.samples - 1
        first, second = (landscape.gradient(w, torch.tensor([i])) for i in (0, last))
        assert landscape.samples == 1 or not torch.equal(first, second)
        assert landscape.value(w) == before


class ParallelContract(BatchedContract):
    """What descents from many points ask of a `Parallel` landscape."""

    def test_each_point_has_its_own_batch(self, landscape: Parallel, w: Tensor) -> None:
        """Gradients at two points are those that each has alone, over its own samples."""
        _has(landscape, Parallel)
        points, batches = torch.stack([w, 1.1 * w]), torch.tensor([[0], [landscape.samples - 1]])
        gradients = landscape.batch_gradients(points, batches)
        for gradient, point, batch in zip(gradients, points, batches, strict=True):
            _close(gradient, landscape.gradient(point, batch), _dtype(landscape, w))


class SampledContract(BatchedContract):
    """What statistics over samples ask of a `Sampled` landscape."""

    def test_has_sample_losses(self, landscape: Sampled, w: Tensor) -> None:
        """`isinstance` finds the members; one number a sample, finite, without a graph."""
        _has(landscape, Sampled)
        losses = landscape.sample_losses(w)
        assert losses.shape == (landscape.samples,) and not losses.requires_grad
        assert bool(torch.isfinite(losses).all())

    def test_sample_losses_average_to_the_value(self, landscape: Sampled, w: Tensor) -> None:
        """Their plain mean is the value."""
        mean = landscape.sample_losses(w).double().mean()
        _close(mean, landscape.value(w), _dtype(landscape, w))

    def test_a_samples_gradient_is_its_losss(self, landscape: Sampled, w: Tensor) -> None:
        """The gradient over a few samples is the slope of the mean of their losses."""
        if provenance_of(landscape).pooled:
            return
        batch = torch.arange(landscape.samples)[:: max(1, landscape.samples // 3)]
        gradient = landscape.gradient(w, batch).double().cpu()
        _judge(
            lambda v: _slope(
                lambda at: landscape.sample_losses(at).cpu()[batch].double().mean(), w, v, landscape
            ),
            lambda v: gradient @ v.double().cpu(),
            w,
            along=gradient,
            dtype=_dtype(landscape, w),
        )


class TrainableContract:
    """What training asks of a `Trainable` landscape, one with samples."""

    def test_a_step_tells_what_gradient_gives(self, landscape: Trainable, w: Tensor) -> None:
        """`batch_gradient` gives the batch's gradient, in one pass."""
        _has(landscape, Trainable)
        batch = torch.tensor([0])
        loss, wrong, gradient = landscape.batch_gradient(w, batch)
        assert loss.dim() == 0 and bool(torch.isfinite(loss)) and gradient.shape == w.shape
        assert wrong is None or 0 <= int(wrong) <= len(batch)
        _close(gradient.clone(), landscape.gradient(w, batch), _dtype(landscape, w))

    def test_a_step_tells_its_loss(self, landscape: Trainable, w: Tensor) -> None:
        """The loss of the batch of all is the value, unless batch statistics are pooled."""
        if provenance_of(landscape).pooled or not isinstance(landscape, Sampled):
            return
        loss, _, _ = landscape.batch_gradient(w, torch.arange(landscape.samples))
        _close(loss, landscape.value(w), _dtype(landscape, w))

    def test_value_and_gradient_are_both(self, landscape: Trainable, w: Tensor) -> None:
        """In one pass, what two calls give."""
        value, gradient = landscape.value_and_gradient(w)
        dtype = _dtype(landscape, w)
        _close(value, landscape.value(w), dtype)
        _close(gradient, landscape.gradient(w), dtype)


class SteppedContract:
    """What training asks of a `Stepped` landscape."""

    def test_steps_are_the_same_inside(self, landscape: Stepped, w: Tensor) -> None:
        """Step and value are those outside, inside of the block and after it."""
        _has(landscape, Stepped)
        batch, dtype = torch.tensor([0]), _dtype(landscape, w)
        value, gradient = landscape.value(w), landscape.batch_gradient(w, batch)[2].clone()
        with landscape.stepping():
            _close(landscape.batch_gradient(w, batch)[2], gradient, dtype)
            _close(landscape.value(w), value, dtype)
        _close(landscape.batch_gradient(w, batch)[2], gradient, dtype)
        _close(landscape.value(w), value, dtype)


class ScoredContract:
    """What surfaces and lines ask of a `Scored` landscape."""

    def test_evaluates_the_value(self, landscape: Scored, w: Tensor) -> None:
        """``loss`` is the value, ``error`` a share."""
        _has(landscape, Scored)
        scores = landscape.evaluate(w)
        _close(scores["loss"], landscape.value(w), _dtype(landscape, w))
        assert 0.0 <= scores.get("error", 0.0) <= 1.0

    def test_samples_average_to_what_is_evaluated(self, landscape: Scored, w: Tensor) -> None:
        """Loss by loss and error by error."""
        whole, parts = landscape.evaluate(w), landscape.evaluate_samples(w)
        assert whole.keys() == parts.keys()
        for name, values in parts.items():
            mean = values.double().mean()
            _close(mean, whole[name], _dtype(landscape, w))


class DrawableContract:
    """What surfaces to a tolerance ask of a `Drawable` landscape."""

    def test_drawn_samples_have_their_own_losses(self, landscape: Drawable, w: Tensor) -> None:
        """In the order in which they were drawn."""
        _has(landscape, Drawable)
        order = torch.randperm(landscape.samples, generator=torch_generator(2, "order"))[:5]
        drawn = landscape.draw(order)
        losses = drawn.measures(drawn.features(w)[None])["loss"]
        assert drawn.size == len(order) and losses.shape == (1, len(order))
        _close(losses[0], landscape.sample_losses(w).cpu()[order], _dtype(landscape, w))


class LeastSquaresContract:
    """What damped Gauss-Newton asks of a `LeastSquares` landscape."""

    def test_residuals_give_the_value_and_the_gradient(
        self, landscape: LeastSquares, w: Tensor
    ) -> None:
        """The value is their mean square, the gradient 2 J'r over their number."""
        _has(landscape, LeastSquares)
        r, dtype = landscape.residuals(w), landscape.dtype
        assert r.dim() == 2 and landscape.target_scale > 0
        _close(r.double().square().mean(), landscape.value(w), dtype)
        slope = landscape.pull_back(w, r.double().cpu().reshape(-1)) * 2 / r.numel()
        _close(slope, landscape.gradient(w), dtype)

    def test_the_gram_matrix_is_that_of_the_jacobian(
        self, landscape: LeastSquares, w: Tensor
    ) -> None:
        """``K y`` is the derivative of the residuals along ``J'y``."""
        y = torch.randn(
            landscape.residuals(w).numel(), generator=torch_generator(0, "y"), dtype=torch.float64
        )
        along = landscape.pull_back(w, y)
        length = float(along.norm())
        difference = _slope(landscape.residuals, w, (along / length).to(w), landscape)
        product = landscape.gram(w).double() @ y / length
        assert _agree(
            difference, product.view_as(difference.value), float(product.norm()), landscape.dtype
        )


class CurvedContract:
    """What spectra ask of a `Curved` landscape: that its Hessian is the value's."""

    def test_the_hessian_is_an_operator(self, landscape: Curved, w: Tensor) -> None:
        """Square, of the size of ``w``, and plain about itself."""
        _has(landscape, Curved)
        op = landscape.hessian(w)
        _has(op, LinearOperator)
        assert tuple(op.shape) == (len(w), len(w))
        product = op @ _vectors(op, 1)[0]
        assert (product.shape, product.dtype) == (w.shape, op.dtype) and not product.requires_grad
        _is_plain(words_of(op))

    def test_products_are_the_gradients_differences(self, landscape: Curved, w: Tensor) -> None:
        """Along random directions, and along the gradient."""
        op = landscape.hessian(w)
        _judge(
            lambda v: _slope(landscape.gradient, w, v, landscape),
            lambda v: (op @ v.to(op.device, op.dtype)).double().cpu(),
            w,
            along=landscape.gradient(w).double().cpu(),
            dtype=op.dtype,
        )

    def test_products_are_symmetric(self, landscape: Curved, w: Tensor) -> None:
        """``u'Hv`` is ``v'Hu``."""
        op = landscape.hessian(w)
        u, v = _vectors(op, 2)
        hu, hv = op @ u, op @ v
        scale = float(hu.norm() * v.norm())
        limit = _SUMS[op.dtype] * scale
        assert abs(float(u @ hv) - float(v @ hu)) <= limit, "u'Hv and v'Hu differ"

    def test_products_are_linear(self, landscape: Curved, w: Tensor) -> None:
        """A matrix is multiplied column by column, and sums are sums."""
        op = landscape.hessian(w)
        u, v = _vectors(op, 2)
        columns = op @ torch.stack([u, v, 2 * u - v], 1)
        expected = torch.stack([op @ u, op @ v, 2 * (op @ u) - op @ v], 1)
        _close(columns, expected, op.dtype)

    def test_it_stays_at_its_point(self, landscape: Curved, w: Tensor) -> None:
        """Whatever the landscape is asked afterwards."""
        op = landscape.hessian(w)
        (v,) = _vectors(op, 1)
        before = (op @ v).clone()
        for direction in _around(w, 1):
            landscape.value(w + direction)
            landscape.hessian(w + direction) @ v
            landscape.gradient(w - direction)
        _close(op @ v, before, op.dtype)

    def test_other_lengths_are_refused(self, landscape: Curved, w: Tensor) -> None:
        """A vector of another length raises a ValueError, and so does another w."""
        op = landscape.hessian(w)
        _refuses(op.__matmul__, torch.zeros(len(w) + 1, dtype=op.dtype))
        _refuses(landscape.hessian, w[:-1])


class StatefulContract:
    """What points that are whole states ask of a `Stateful` landscape, one that has some state."""

    def test_state_is_given_as_copies(self, landscape: Stateful, w: Tensor) -> None:
        """Writing to what was given changes nothing."""
        _has(landscape, Stateful)
        before, state = landscape.value(w), _copied(landscape.fixed())
        for given in (*landscape.fixed().values(), *landscape.buffers().values()):
            given.copy_(_changed(given))
        _same(landscape.fixed(), state)
        assert landscape.value(w) == before

    def test_buffers_are_part_of_the_state(self, landscape: Stateful) -> None:
        """By the same names, and no weight of the space is among them."""
        fixed, buffers = landscape.fixed(), landscape.buffers()
        assert fixed, "there is no state to test; give a landscape with some"
        assert all(name in fixed and torch.equal(fixed[name], t) for name, t in buffers.items())
        assert not set(fixed) & set(landscape.space.names)

    def test_state_comes_back(self, landscape: Stateful, w: Tensor) -> None:
        """What was set is given, name by name; set back, the value is what it was."""
        before, fixed = landscape.value(w), _copied(landscape.fixed())
        changed = {name: _changed(tensor) for name, tensor in fixed.items()}
        for name, tensor in changed.items():
            landscape.set_fixed({name: tensor})
            assert torch.equal(landscape.fixed()[name], tensor)
        landscape.set_fixed(fixed)
        _same(landscape.fixed(), fixed)
        assert landscape.value(w) == before

    def test_buffers_come_back(self, landscape: Stateful, w: Tensor) -> None:
        """As training leaves them and sets them back."""
        before, buffers = landscape.value(w), _copied(landscape.buffers())
        changed = {name: _changed(tensor) for name, tensor in buffers.items()}
        landscape.set_buffers(changed)
        _same(landscape.buffers(), changed)
        landscape.set_buffers(buffers)
        _same(landscape.buffers(), buffers)
        assert landscape.value(w) == before


class RemakeableContract:
    """What workers ask of a `Remakeable` landscape."""

    def test_the_spec_is_plain(self, landscape: Remakeable) -> None:
        """It can be written into a file."""
        _has(landscape, Remakeable)
        _is_plain(landscape.spec())

    def test_the_fingerprint_follows_the_state(self, landscape: Remakeable) -> None:
        """The same while the state is, another where it is another."""
        before, fixed = landscape.fingerprint(), _copied(landscape.fixed())
        assert landscape.fingerprint() == before
        for name, tensor in fixed.items():
            landscape.set_fixed({name: _changed(tensor)})
            assert landscape.fingerprint() != before
            landscape.set_fixed({name: tensor})
        assert landscape.fingerprint() == before


def _has(subject: Any, protocol: type) -> None:
    missing = [name for name in members(protocol) if not hasattr(subject, name)]
    assert not missing, f"{type(subject).__name__} has no {', '.join(missing)}"
    assert isinstance(subject, protocol)


def _is_plain(words: dict[str, Any]) -> None:
    try:
        again = json.loads(json.dumps(words))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{words} cannot be written as JSON: {error}") from error
    assert again == words, f"{words} comes back from JSON as {again}"


def _dtype(landscape: Any, w: Tensor) -> torch.dtype:
    return landscape.dtype if isinstance(landscape, Placed) else w.dtype


def _around(w: Tensor, count: int = 4) -> list[Tensor]:
    """Directions of the size of the weights, or of 1 where these are zero."""
    size = float(w.double().square().mean().sqrt()) or 1.0
    return [0.3 * size * _gaussian(len(w), i).to(w) for i in range(count)]


def _vectors(op: LinearOperator, count: int) -> list[Tensor]:
    return [_gaussian(op.shape[0], i).to(op.device, op.dtype) for i in range(count)]


def _gaussian(size: int, number: int) -> Tensor:
    return torch.randn(size, generator=torch_generator(number, "contract"), dtype=torch.float64)


def _slope(function: Any, w: Tensor, v: Tensor, landscape: Any) -> Difference:
    """Differentiate along the unit vector v, in steps that suit the weights."""
    dtype, size = _dtype(landscape, w), max(float(w.double().norm()), 1e-3)
    start = w.to(dtype).double()

    def along(t: float) -> Any:
        return function((start + t * v.double()).to(dtype))

    # The point itself is rounded, and so is what a sum over many numbers gives.
    return difference(along, _STEP[dtype] * size, 8 * torch.finfo(dtype).eps)


def _judge(seen: Any, claimed: Any, w: Tensor, *, along: Tensor, dtype: torch.dtype) -> None:
    """Compare claimed derivatives with differences along several unit vectors."""
    length = float(along.norm())
    directions = [_gaussian(len(w), i).to(w) for i in range(_DIRECTIONS)]
    if length > 0:
        directions.insert(0, along.to(w))
    decided = 0
    for direction in directions:
        v = direction / direction.norm()
        difference, wanted = seen(v), claimed(v)
        scale = max(float(difference.value.norm()), length / len(w) ** 0.5)
        if difference.error > _JUDGED[dtype] * scale and scale > 0:
            continue
        assert _agree(difference, wanted, scale, dtype), (
            f"differences give {difference.value.tolist()} with error {difference.error:.1e},"
            f" claimed is {wanted.tolist()}"
        )
        decided += 1
    assert decided >= _DECIDED, (
        f"differences decide along {decided} of {len(directions)} directions only: the function is"
        " rough or flat at this w; give the contract a point where it is smooth"
    )


def _agree(difference: Difference, wanted: Tensor, scale: float, dtype: torch.dtype) -> bool:
    most = float((difference.value - wanted.double().cpu()).abs().max())
    return most <= 10 * difference.error + _SUMS[dtype] * scale


def _close(left: Tensor | float, right: Tensor | float, dtype: torch.dtype) -> None:
    left, right = (torch.as_tensor(t, dtype=torch.float64).detach().cpu() for t in (left, right))
    assert left.shape == right.shape, f"shapes {tuple(left.shape)} and {tuple(right.shape)}"
    scale = max(float(left.norm()), float(right.norm()))
    assert float((left - right).norm()) <= _SUMS[dtype] * scale, f"{left} and {right} differ"


def _refuses(function: Any, wrong: Tensor) -> None:
    shape = f"{tuple(wrong.shape)}, {wrong.dtype}"
    try:
        function(wrong)
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(
            f"{shape} raised {type(error).__name__}, expected ValueError"
        ) from error
    raise AssertionError(f"{shape} was taken for a point")


def _copied(tensors: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _changed(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.bool:
        return ~tensor
    return tensor + 1


def _same(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
