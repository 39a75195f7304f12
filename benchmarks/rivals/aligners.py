"""Tools that align networks, each in its own environment: both are imported as `rebasin`.

python -m rivals.aligners NAME PAIR OUT: PAIR is a file with the layers of two dense ReLU networks,
inputs and targets; OUT gets the layers of the second in its new order.
"""

from __future__ import annotations

import sys
from copy import deepcopy

import torch
from torch import Tensor, nn

ALIGNERS = ("rebasin", "sinkhorn-rebasin")
# As its authors' example for dense networks has them: 20 epochs of 9000 images there.
_RATE, _BATCH, _STEPS = 0.1, 1000, 180

Layers = list[tuple[Tensor, Tensor]]


def network_of(layers: Layers) -> nn.Sequential:
    """Put layers into a plain network, ReLUs between."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def layers_of(network: nn.Module) -> Layers:
    """Read them back."""
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    return [(part.weight.detach(), part.bias.detach()) for part in linear]


def by_coordinate_descent(first: nn.Module, second: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """rebasin: weight matching of a traced graph."""
    from rebasin import PermutationCoordinateDescent

    PermutationCoordinateDescent(first, second, x[:1]).rebasin()
    return second


def by_sinkhorn(first: nn.Module, second: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """sinkhorn-rebasin: soft orders, descended on the loss at the mean; the best of all epochs."""
    from rebasin import RebasinNet
    from rebasin.loss import MidLoss

    torch.manual_seed(0)
    soft = RebasinNet(second, input_shape=x[:1].shape)
    soft.identity_init()
    middle = MidLoss(first, criterion=nn.CrossEntropyLoss())
    optimizer = torch.optim.AdamW(soft.p.parameters(), lr=_RATE)
    lowest, best = float("inf"), second
    batches = -(-len(x) // _BATCH)
    for _ in range(_STEPS // batches):
        soft.train()
        for part in torch.randperm(len(x)).split(_BATCH):
            loss = middle(soft(), x[part], y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        soft.eval()
        moved = deepcopy(soft())
        with torch.no_grad():
            loss = float(middle(deepcopy(moved), x, y))
        if loss < lowest:
            lowest, best = loss, moved
    return best


if __name__ == "__main__":
    name, pair, out = sys.argv[1:]
    data = torch.load(pair)
    first, second = (network_of(data[key]) for key in ("first", "second"))
    align = {"rebasin": by_coordinate_descent, "sinkhorn-rebasin": by_sinkhorn}[name]
    torch.save(layers_of(align(first, second, data["x"], data["y"])), out)
