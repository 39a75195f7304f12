"""Risks of networks that are made by the same code: the first is looked at for all."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from thalweg.problems import Problem, load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.risk.self_check import SelfCheck


class _Looked(NamedTuple):
    plain: frozenset[str]
    checked: SelfCheck | None


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
        Alike are Thalweg's own networks of the same layers, whatever their widths, under one loss;
        and other models of the same classes that print the same, of one entry with the same
        settings but for ``seed``. Those of a user's file are never alike.
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
        _LOOKED[kind] = _Looked(problem.find_plain_splits(), risk.checked)
        return risk
    problem.take_plainly(before.plain)
    return EmpiricalRisk(problem, check=before.checked or False, **options)


def _kind(problem: Problem, code: str, options: Mapping[str, Any]) -> Hashable | None:
    """Tell problems of one code; None for those of a file, which is read anew for each."""
    classes = tuple(type(module) for module in problem.model.modules())
    how = classes, str(problem.loss), tuple(sorted(options.items()))
    if code or classes[0].__module__.startswith("thalweg."):
        return (code, re.sub("[0-9.]+", "", str(problem.model)), *how)
    spec = problem.spec or {"entry": problem.name, "settings": {}}
    if spec["entry"].rpartition(":")[0].endswith(".py"):
        return None
    settings = {name: value for name, value in spec["settings"].items() if name != "seed"}
    made = json.dumps([spec["entry"], settings], sort_keys=True, default=repr)
    return (made, str(problem.model), *how)
