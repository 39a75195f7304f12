"""The mean of two models, as a whole state that loads like any other."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point
from thalweg.problems.state_names import unwrapped
from thalweg.risk.risk import EmpiricalRisk


def mean_state(
    risk: EmpiricalRisk, w0: Tensor | Point, w1: Tensor | Point, *, share: float = 0.5
) -> dict[str, Tensor]:
    """
    Give the state of the model between two others, batch-norm statistics re-estimated there.

    Parameters
    ----------
    risk : EmpiricalRisk
        Whose models these are; statistics are estimated on its training data, as everywhere on the
        line that `barrier` measures.
    w0, w1 : Tensor or Point
        As for `barrier`: frozen weights and buffers of whole states are averaged too.
    share : float
        Of ``w1``; one half is the mean.

    Returns
    -------
    dict of str to Tensor
        By the names of the model's ``state_dict``, in its dtypes, on the CPU: for
        ``model.load_state_dict``, or a file. Entries of it that are no tensors are left out.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg.problems import Problem
    >>> problem = Problem(nn.Linear(2, 1), nn.MSELoss(), (torch.zeros(3, 2), torch.zeros(3, 1)))
    >>> w0, w1 = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([2.0, 4.0, 1.0])
    >>> mean_state(EmpiricalRisk(problem), w0, w1)
    {'weight': tensor([[1., 2.]]), 'bias': tensor([1.])}
    """
    states = States.of(risk, (w0, w1))
    first, last = (w.detach().to(risk.device, risk.dtype) for w in states.weights)
    with states.visited(risk):
        states.go(risk, (1 - share, share))
        w = torch.lerp(first, last, share)
        there = risk.held(w) if risk.normalized else risk
        named = there.fixed() | risk.space.unpack(w)
    own = risk.problem.model.state_dict()
    return {
        name: named.get(unwrapped(name), tensor).detach().to("cpu", tensor.dtype, copy=True)
        for name, tensor in own.items()
        if isinstance(tensor, Tensor)
    }
