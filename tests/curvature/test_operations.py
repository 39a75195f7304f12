"""Operations are counted as they are known to be, forward, backward and under transforms."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.func import grad

from thalweg.curvature.operations import CountOperations
from thalweg.curvature.vector_products import Products
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

ROWS, INNER, COLUMNS = 7, 5, 3
PRODUCT = 2 * ROWS * INNER * COLUMNS


def test_a_backward_pass_of_a_product_is_two_products():
    a, b = torch.ones(ROWS, INNER, requires_grad=True), torch.ones(INNER, COLUMNS)
    b.requires_grad_()
    with CountOperations() as forward:
        product = a @ b
    with CountOperations() as backward:
        product.sum().backward()
    assert forward.multiplications == PRODUCT
    assert forward.bytes == 4 * ROWS * COLUMNS
    assert backward.multiplications == 2 * PRODUCT


def test_a_gradient_by_a_transform_is_counted_too():
    a, b = torch.ones(ROWS, INNER), torch.ones(INNER, COLUMNS)
    with CountOperations() as counted:
        grad(lambda x: (x @ b).sum())(a)
    assert counted.multiplications == 2 * PRODUCT


def test_a_convolution_is_counted_by_its_outputs_and_views_are_free():
    layer, x = nn.Conv2d(2, 4, 3, bias=False), torch.ones(1, 2, 5, 5)
    with CountOperations() as counted:
        layer(x).flatten().view(-1, 1)
    assert counted.multiplications == 2 * (4 * 3 * 3) * (2 * 3 * 3)
    assert counted.calls == 1


def test_sparse_matrices_are_counted_as_if_they_were_dense():
    a, b = torch.eye(ROWS).to_sparse(), torch.ones(ROWS, COLUMNS)
    with CountOperations() as counted:
        product = torch.sparse.mm(a, b)
        a.coalesce() * 2
    assert torch.equal(product, b) and counted.calls >= 2
    assert counted.bytes >= 4 * (ROWS * COLUMNS + ROWS * ROWS)


def test_what_is_counted_gives_what_it_gave_before():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(6, 3)
    with CountOperations():
        counted = model(x)
    assert torch.equal(counted, model(x))


def test_how_products_are_taken_does_not_hang_on_how_long_they_took(monkeypatch):
    model = nn.Sequential(nn.Linear(40, 200), nn.Tanh(), nn.Linear(200, 200), nn.Linear(200, 2))
    data = torch.randn(8000, 40), torch.arange(8000) % 2
    prepare, chosen = Products._prepare, set()
    for delayed in (None, "graph", "trace"):

        def at_leisure(products, method, *rest, delayed=delayed):
            apply, size = prepare(products, method, *rest)
            pause = 0.02 if method == delayed else 0.0
            return lambda v: (time.sleep(pause), apply(v))[1], size

        monkeypatch.setattr(Products, "_prepare", at_leisure)
        risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), data))
        operator = risk.hessian(risk.space.pack(model))
        operator @ torch.ones(risk.space.size)
        chosen.add(operator.method)
    assert chosen == {"trace"}
