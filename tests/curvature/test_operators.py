from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import thalweg as tw
from thalweg.curvature import vector_products
from thalweg.errors import InvalidArgument, InvalidWeights, NotDefined
from thalweg.geometry.spectrum import top_eigenvalues

METHODS = ["trace", "graph", "recompute"]


def _data(*shape, classes=3, regression=False, samples=64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, *shape, generator=generator)
    y = torch.randint(0, classes, (samples,), generator=generator)
    return x, (F.one_hot(y, classes).float() if regression else y)


def _mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def _conv(norm):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(6)] if norm else []
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1),
        *middle,
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4, 3),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()
MODELS = {
    "mlp, cross-entropy": (_mlp, CE, (5,), False, "recalibrate"),
    "mlp, squared": (_mlp, MSE, (5,), True, "recalibrate"),
    "conv, cross-entropy": (
        lambda: _conv(False),
        nn.CrossEntropyLoss(),
        (2, 7, 7),
        False,
        "frozen",
    ),
    "batch norm, frozen": (lambda: _conv(True), CE, (2, 7, 7), False, "frozen"),
    "batch norm, held": (lambda: _conv(True), MSE, (2, 7, 7), True, "held"),
    "batch norm, batch": (lambda: _conv(True), CE, (2, 7, 7), False, "batch"),
}


def _risk(name, dtype=torch.float64, batch_size=64, samples=64, **options):
    make, loss, shape, regression, policy = MODELS[name]
    problem = tw.Problem(make(), loss, _data(*shape, regression=regression, samples=samples))
    risk = tw.EmpiricalRisk(
        problem, batchnorm=policy, dtype=dtype, batch_size=batch_size, **options
    )
    return problem, risk, risk.space.pack(problem.model).to(dtype)


def _cases(*methods):
    """All models by all methods; traces of statistics that stay are alike, and take long."""

    def marks(name, method):
        return [pytest.mark.slow] if (name, method) == ("batch norm, held", "trace") else []

    return [pytest.param(*case, marks=marks(*case)) for case in product(MODELS, methods)]


def _rows(name, method):
    """Batches whose last is shorter; of one length where each of two lengths is traced for long."""
    return 32 if method == "trace" and not name.startswith("mlp") else 20


def _oracle(problem, policy):
    """The network and the whole set's loss as plain functions of a flat vector, in float64."""
    model = copy.deepcopy(problem.model).double().train(policy == "batch")
    x, y = problem.train
    x, y = x.double(), y.double() if y.is_floating_point() else y
    for module in model.modules():
        if policy == "held" and isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(_hold_statistics_of_the_first_input)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    seen: list[torch.Tensor] = [torch.cat([p.detach().reshape(-1) for p in model.parameters()])]
    with torch.no_grad():
        model(x)

    def network(w):
        parts = w.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return functional_call(model, weights, (x,))

    return network, lambda w: problem.loss(network(w), y), seen[0]


def _hold_statistics_of_the_first_input(module, inputs):
    if not hasattr(module, "held"):
        module.held = True
        module.running_mean = inputs[0].mean((0, 2, 3))
        module.running_var = inputs[0].var((0, 2, 3), correction=0)


def _dense(problem, policy):
    network, loss, w = _oracle(problem, policy)
    hessian = torch.autograd.functional.hessian(loss, w)
    jacobian = torch.autograd.functional.jacobian(network, w).flatten(0, 1)
    out = network(w).detach()
    y = problem.train[1]
    y = y.double() if y.is_floating_point() else y
    inner = torch.autograd.functional.hessian(lambda z: problem.loss(z.view(out.shape), y), out)
    inner = inner.reshape(out.numel(), out.numel())
    return hessian, jacobian, inner


@pytest.fixture(scope="module")
def dense():
    answers = {}

    def give(name):
        if name not in answers:
            problem, _, _ = _risk(name)
            answers[name] = _dense(problem, MODELS[name][4])
        return answers[name]

    return give


def _close(found, true, close=1e-10):
    assert found.shape == true.shape
    assert float((found - true).abs().max()) <= close * float(true.abs().max())


def _matches(op, true, close=1e-10):
    """Compare products with a dense matrix, which as many random vectors as it has rank would."""
    assert op.shape == true.shape
    generator = torch.Generator().manual_seed(2)
    block = torch.randn(true.shape[1], 10, dtype=torch.float64, generator=generator)
    _close(op @ block, true @ block, close)


@pytest.mark.parametrize(("name", "method"), _cases(*METHODS))
def test_hessian_is_the_dense_one(name, method, dense):
    _, risk, w = _risk(name, batch_size=_rows(name, method))
    assert w.numel() < 2000
    op = risk.hessian(w, method=method)
    assert op.shape == (w.numel(),) * 2 and op.dtype == torch.float64
    _matches(op, dense(name)[0])
    if method == "trace":
        found = op.to_dense()
        _close(found, dense(name)[0])
        _close(found, found.T)


@pytest.mark.parametrize(("name", "method"), _cases("trace", "recompute"))
def test_gauss_newton_and_its_factors_are_the_dense_ones(name, method, dense):
    _, risk, w = _risk(name, batch_size=_rows(name, method))
    _, jacobian, inner = dense(name)
    op = risk.gauss_newton(w, method=method)
    _matches(op, jacobian.T @ inner @ jacobian)
    _matches(op.loss_hessian, inner)
    if method == "trace":
        found = op.to_dense()
        assert float(torch.linalg.eigvalsh(found)[0]) > -1e-12 * float(found.norm())
    v = torch.randn(w.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _close(op.jacobian.T @ (op.loss_hessian @ (op.jacobian @ v)), op @ v)


@pytest.mark.parametrize(("name", "method"), _cases("trace", "recompute"))
def test_jacobian_and_its_transpose_are_the_dense_ones(name, method, dense):
    _, risk, w = _risk(name, batch_size=20)
    jacobian = risk.jacobian(w, method=method)
    assert jacobian.shape == (64 * 3, w.numel()) and jacobian.T.T is jacobian
    _matches(jacobian, dense(name)[1])
    _matches(jacobian.T, dense(name)[1].T)


@pytest.mark.parametrize("name", MODELS)
def test_no_split_changes_a_product(name):
    v = None
    products = []
    for batch_size in (122, 120, 14, 2):  # of 61 samples: all at once, two parts, uneven, single
        _, risk, w = _risk(name, batch_size=batch_size, samples=61)
        v = torch.linspace(-1, 1, w.numel(), dtype=torch.float64) if v is None else v
        products.append((risk.hessian(w) @ v, risk.gauss_newton(w) @ v, risk.jacobian(w) @ v))
    for others in products[1:]:
        for found, whole in zip(others, products[0], strict=True):
            _close(found, whole, 1e-12)


def test_a_linear_network_has_its_closed_form():
    x, y = _data(4, regression=True)
    problem = tw.Problem(nn.Linear(4, 3), nn.MSELoss(), (x, y))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    inputs = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    # Loss = mean over samples and outputs: H = 2/3 I (x) [x; 1][x; 1]'/N, kernel before bias.
    block = 2 / 3 * inputs.T @ inputs / len(x)
    order = [4 * c + i for c in range(3) for i in range(4)] + [12 + c for c in range(3)]
    place = [5 * c + i for c in range(3) for i in range(4)] + [5 * c + 4 for c in range(3)]
    true = torch.zeros(15, 15, dtype=torch.float64)
    true[np.ix_(order, order)] = torch.kron(torch.eye(3).double(), block)[np.ix_(place, place)]
    _close(risk.hessian(w).to_dense(), true, 1e-12)
    _close(risk.gauss_newton(w).to_dense(), true, 1e-12)
    values = top_eigenvalues(risk.hessian(w), 5, rtol=1e-6).values
    _close(values, torch.linalg.eigvalsh(true).flip(0)[:5], 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_float32_sums_in_float64_and_is_close(method, dense):
    _, risk, w = _risk("mlp, cross-entropy", dtype=torch.float32, batch_size=9)
    op = risk.hessian(w, method=method)
    v = torch.randn(w.numel(), generator=torch.Generator().manual_seed(0))
    assert (op @ v).dtype == torch.float32
    _close((op @ v).double(), dense("mlp, cross-entropy")[0] @ v.double(), 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_products_are_deterministic_and_blocks_equal_vectors(method):
    _, risk, w = _risk("conv, cross-entropy", dtype=torch.float32)
    op = risk.hessian(w, method=method)
    block = torch.randn(w.numel(), 3, generator=torch.Generator().manual_seed(0))
    first = op @ block
    assert torch.equal(first, op @ block)
    assert torch.equal(first[:, 1], op @ block[:, 1])
    assert torch.equal(first, risk.hessian(w, method=method) @ block)


def test_blocks_of_layers(dense):
    _, risk, w = _risk("conv, cross-entropy")
    hessian, jacobian, _ = dense("conv, cross-entropy")
    for layers in (["0"], ["2", "5"], ["5", "0"]):
        for method in METHODS:
            op = risk.hessian(w, layers=layers, method=method)
            _matches(op, hessian[op.entries][:, op.entries])
        columns = risk.jacobian(w, layers=layers)
        _matches(columns, jacobian[:, columns.entries])
    expected = torch.arange(w.numel())[risk.space.layers["2"]]
    assert torch.equal(risk.hessian(w, layers=["2"]).entries, expected)


@pytest.mark.parametrize("memory", [0, 10_000])
def test_a_small_memory_budget_changes_nothing_but_time(memory):
    _, free, w = _risk("conv, cross-entropy", batch_size=8)
    _, tight, _ = _risk("conv, cross-entropy", batch_size=8, memory=memory)
    v = torch.linspace(-1, 1, w.numel(), dtype=torch.float64)
    for method in METHODS:
        ops = free.hessian(w, method=method), tight.hessian(w, method=method)
        assert torch.equal(ops[0] @ v, ops[1] @ v)
        assert len(ops[1]._products._kept) < len(ops[0]._products._kept) == 16


def test_an_operator_stays_at_its_point(dense):
    problem, risk, w = _risk("batch norm, held")
    before = copy.deepcopy(problem.model.state_dict())
    op, v = risk.hessian(w), torch.linspace(-1, 1, w.numel(), dtype=torch.float64)
    risk.value(2 * w)
    _close(op @ v, dense("batch norm, held")[0] @ v)
    value = risk.value(w)
    risk.hessian(2 * w) @ v
    assert risk.value(w) == value
    assert all(torch.equal(before[k], t) for k, t in problem.model.state_dict().items())


def test_a_trace_is_made_only_where_it_pays(monkeypatch):
    _, risk, w = _risk("mlp, squared")
    monkeypatch.setattr(vector_products, "_WORTH_TRACING", 0.0)
    for seconds, made in ((1e6, False), (0.0, True)):
        monkeypatch.setattr(vector_products, "_SECONDS_A_NODE", seconds)
        risk.hessian(w) @ torch.ones_like(w)
        assert bool(risk._traces) == made


def test_a_trace_serves_other_points():
    _, risk, w = _risk("batch norm, held")
    v = torch.linspace(-1, 1, w.numel(), dtype=torch.float64)
    risk.hessian(w, method="trace") @ v
    traced = dict(risk._traces)
    assert list(traced.values()) != [None]
    _close(risk.hessian(1.1 * w, method="trace") @ v, risk.hessian(1.1 * w, method="graph") @ v)
    assert risk._traces == traced


class _Branching(nn.Module):
    """Control flow that depends on values: what tracing cannot see."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        y = self.layer(x)
        return y**3 if float(y.detach().sum()) > 0 else y**2


def test_models_that_cannot_be_traced_are_still_right():
    problem = tw.Problem(_Branching(), nn.CrossEntropyLoss(), _data(5))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    graph = risk.hessian(w, method="graph").to_dense()
    _, loss, _ = _oracle(problem, "frozen")
    _close(graph, torch.autograd.functional.hessian(loss, w))
    _close(risk.hessian(w).to_dense(), graph)


class _Unusual(nn.Module):
    """Layers whose second derivative torch gets wrong or lacks: weight norm, fused attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x).unsqueeze(1).unsqueeze(-1)
        return self.head(F.scaled_dot_product_attention(y, y, y).flatten(1))


@pytest.mark.parametrize(
    "loss", [nn.HuberLoss(), pytest.param(nn.MSELoss(), marks=pytest.mark.slow)]
)
def test_what_torch_cannot_differentiate_twice_is_right_all_the_same(loss):
    problem = tw.Problem(_Unusual(), loss, _data(5, regression=True, samples=16))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64, batch_size=16)
    w = risk.space.pack(problem.model).double()
    reference = risk.hessian(w, method="graph").to_dense()
    step = 1e-5 * torch.eye(len(w), dtype=torch.float64)
    columns = [(risk.gradient(w + s) - risk.gradient(w - s)) / 2e-5 for s in step]
    _close(reference, torch.stack(columns, 1), 1e-6)
    for method in ("trace", "recompute"):
        _matches(risk.hessian(w, method=method), reference)
        op = risk.gauss_newton(w, method=method)
        dense = op.jacobian.to_dense()
        _matches(op, dense.T @ op.loss_hessian.to_dense() @ dense)


def test_scipy_view():
    _, risk, w = _risk("mlp, cross-entropy")
    view = risk.hessian(w).to_scipy()
    v = np.linspace(-1, 1, len(w))
    np.testing.assert_array_equal(view @ v, (risk.hessian(w) @ torch.as_tensor(v)).numpy())
    jacobian = risk.jacobian(w)
    view, u = jacobian.to_scipy(), np.linspace(-1, 1, 192)
    assert view.shape == (192, len(w)) and view.dtype == np.float64
    np.testing.assert_array_equal(view.T @ u, (jacobian.T @ torch.as_tensor(u)).numpy())
    assert (view @ np.eye(len(w))[:, :2]).shape == (192, 2)


def test_losses_of_model_and_batch_have_a_hessian_but_no_jacobian(dense):
    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    problem = tw.Problem(_mlp(), loss, _data(5))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(problem.model).double()
    _close(risk.hessian(w).to_dense(), dense("mlp, cross-entropy")[0])
    with pytest.raises(NotDefined, match="criterion"):
        risk.jacobian(w)


def test_bad_input():
    _, risk, w = _risk("mlp, cross-entropy")
    with pytest.raises(InvalidArgument, match="expected"):
        risk.hessian(w) @ w[:-1]
    with pytest.raises(InvalidArgument, match="method"):
        risk.hessian(w, method="fast")
    with pytest.raises(InvalidArgument, match="list of names"):
        risk.hessian(w, layers="0")
    with pytest.raises(InvalidWeights, match="no layer"):
        risk.hessian(w, layers=["head"])
    with pytest.raises(InvalidWeights, match="NaN"):
        risk.hessian(w * float("nan"))


def test_described_says_which_function():
    _, risk, w = _risk("batch norm, held")
    described = risk.hessian(w).described
    assert described["operator"] == "Hessian" and "held" in described["batchnorm"]
    assert risk.jacobian(w).T.described["operator"] == "transposed Jacobian"
