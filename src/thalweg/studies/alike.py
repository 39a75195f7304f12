"""Risks of networks that are made by the same code: the first is looked at for all."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from thalweg.problems import Problem, load_stored
from thalweg.problems.criteria import is_torchs
from thalweg.risk import EmpiricalRisk
from thalweg.risk.self_check import SelfCheck


class _Looked(NamedTuple):
    plain: frozenset[str]
    checked: SelfCheck


_LOOKED: dict[Hashable, _Looked] = {}


def load_risk(arguments: Mapping[str, Any], **settings: Any) -> EmpiricalRisk:
    """
    Load the problem of a task and make its risk.

    Parameters
    ----------
    arguments : mapping
        ``problem``, ``entry`` and ``settings`` as `load_stored` takes them, and
        ``evaluation_batch``, samples evaluated at once.
    **settings
        Of the problem, besides these: its seed.
    """
    problem = load_stored(arguments["problem"], **settings)
    return risk_alike(problem, batch_size=arguments["evaluation_batch"])


def risk_alike(problem: Problem, *, code: str = "", **options: Any) -> EmpiricalRisk:
    """
    Make the risk of a problem, and look at it only where none like it was looked at before.

    A study trains hundreds of networks, from as many seeds. Whether the
    loss draws random numbers or depends on batches, whether a copy of the model is the model, and
    whether derivatives equal differences, is a matter of its code: it is found out on the first of
    them in each process (40 ms each on digits, a tenth of a short training), and holds for all.

    Parameters
    ----------
    problem : Problem
        Alike are Thalweg's own networks of the same layers, whatever their widths, under one loss
        of torch's; and other models of the same classes that print the same, of one entry with the
        same settings but for ``seed``. Those of a user's file are never alike.
    code : str
        Of a study's own function: a name for all problems that it makes.
    **options
        Of `EmpiricalRisk`, but for ``check``.
    """
    kind = _kind(problem, code, options)
    if kind is None:
        return EmpiricalRisk(problem, **options)
    before = _LOOKED.get(kind)
    if before is None:
        risk = EmpiricalRisk(problem, **options)
        assert risk.checked is not None
        # All say the same of the check, whichever was the first in its process.
        risk.checked = replace(risk.checked, alike=True)
        _LOOKED[kind] = _Looked(problem.find_plain_splits(), risk.checked)
        return risk
    problem.take_plainly(before.plain)
    return EmpiricalRisk(problem, check=before.checked, **options)


def _kind(problem: Problem, code: str, options: Mapping[str, Any]) -> Hashable | None:
    """Tell problems of one code; None for those whose code nothing here tells."""
    classes = tuple(type(module) for module in problem.model.modules())
    how = classes, str(problem.loss), tuple(sorted(options.items()))
    if code or _is_own(problem):
        return (code, re.sub("[0-9.]+", "", str(problem.model)), *how)
    # A file is read anew for each problem, and may have changed.
    if problem.spec is None or problem.spec["entry"].rpartition(":")[0].endswith(".py"):
        return None
    settings = {name: value for name, value in problem.spec["settings"].items() if name != "seed"}
    made = json.dumps([problem.spec["entry"], settings], sort_keys=True, default=repr)
    return (made, str(problem.model), *how)


def _is_own(problem: Problem) -> bool:
    """Say whether all code of a problem is Thalweg's or torch's, and nobody has hooked into it."""
    modules = list(problem.model.modules())
    return (
        type(problem.model).__module__.startswith("thalweg.")
        and all(type(module).__module__.startswith(("thalweg.", "torch.")) for module in modules)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        and is_torchs(problem.loss)
        and problem.weight is None
        and problem.draws is None
    )
