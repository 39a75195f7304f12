"""
Arguments as people guess them, where all public functions are called and classes are made.

What an argument may be is read off its annotation. A guess that can mean one thing only is taken
(``progress=True``, a path for a run, a NumPy array for weights); another is refused in words: what
was got, what was expected, and what to write instead. Functions are wrapped, and classes changed,
when ``tw.NAME`` is first asked for: imports from the rooms give functions as they are written, and
classes as they are written until then.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.errors import InvalidArgument, InvalidProblem, InvalidWeights
from thalweg.landscape.protocols import Function, Landscape, require
from thalweg.landscape.space import Parameter
from thalweg.problems import Problem, open_point
from thalweg.problems.checkpoints import Point
from thalweg.run import Run
from thalweg.run.progress import on_screen, silent
from thalweg.tracing.chain import Network

C = TypeVar("C", bound=Callable[..., Any])

_PROTOCOLS: dict[str, Any] = {"Function": Function, "EmpiricalRisk": Network}
_LANDSCAPES = ("Landscape", "Function", "EmpiricalRisk", "_CurvedBatched")
_NO_LANDSCAPES = (Tensor, np.ndarray, numbers.Number, Point, dict, list, tuple)
_PROBLEMS = ("Problem", "Problem | EmpiricalRisk")
_RUNS = ("Run | None", "Run | str | os.PathLike[str] | None", "Run | str | os.PathLike[str]")
# What is to be written where something else than an object of this class was given.
_WRITE = {
    "ParameterSpace": "give risk.space",
    "nn.Module": "give the torch.nn.Module that is trained",
    "xr.Dataset": "give what the function that measures it returned, such as tw.barrier(...)",
    "Signature": "give what tw.signature(landscape, starts) returned",
    "torch.Generator": "write torch.Generator().manual_seed(0)",
}


def guarded(function: C) -> C:
    """Let a public function take arguments as people guess them, or refuse them in words."""
    called = _settling(function, function.__name__)
    called.__module__, called.__qualname__ = "thalweg", function.__name__  # where pickle finds it
    return called


def guard(public: type) -> None:
    """
    Let a public class be made of arguments as people guess them, or refuse them in words.

    The class stays the object that it is, and its signature what it was: ``__init__`` is replaced.
    """
    made = vars(public).get("__init__")
    if isinstance(made, FunctionType) and not getattr(public, "_is_protocol", False):
        settled = _settling(made, public.__name__, _SAID_BY_CLASSES)
        setattr(public, "__init__", settled)  # noqa: B010, mypy refuses an assignment


# Annotations of what the classes themselves refuse in words of their own.
_SAID_BY_CLASSES = ("nn.Module",)


def _settling(function: C, name: str, left: Sequence[str] = ()) -> C:
    """Wrap a function so that its arguments are settled by their annotations, but those left."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **keywords: Any) -> Any:
        try:
            bound = signature.bind(*args, **keywords)
        except TypeError:
            return function(*args, **keywords)  # Python says itself what is missing
        subject = next(iter(bound.arguments.values()), None)
        # A run may be made at a path: last, so that what is refused leaves no folder behind.
        for key in sorted(bound.arguments, key=lambda argument: argument == "run"):
            value = bound.arguments[key]
            wanted = signature.parameters[key].annotation
            if isinstance(wanted, str) and wanted not in left:
                place = f"{key} of tw.{name}"
                bound.arguments[key] = _settled(wanted, value, place, subject)
        return function(*bound.args, **bound.kwargs)

    return called  # type: ignore[return-value]


def _settled(wanted: str, value: Any, place: str, subject: Any) -> Any:
    """Give an argument as its annotation wants it."""
    if value is None and wanted.endswith("| None"):
        return value
    if wanted in _LANDSCAPES:
        return _landscape(value, place, wanted)
    if wanted in _PROBLEMS:
        return _problem(value, place, wanted)
    if wanted.startswith("Tensor"):
        return _tensor(wanted, value, place, subject)
    if wanted == "Sequence[Tensor | Point]":
        return _tensors(value, place, subject)
    if wanted == "Progress":
        return _progress(value, place)
    if wanted in _RUNS:
        return _run(wanted, value, place)
    if wanted in ("int", "int | None"):
        return _integer(value, place)
    if wanted == "int | Sequence[int]":
        return value if isinstance(value, Sequence) else _integer(value, place)
    if wanted == "Mapping[str, Any] | Sequence[Any]":
        return _points(value, place)
    if wanted in ("float", "float | None"):
        return _number(value, place)
    if wanted in ("str", "str | os.PathLike[str]"):
        return _text(wanted, value, place)
    if wanted == "Mapping[str, Any]":
        return _mapping(value, place)
    if wanted in _OF_CLASSES:
        return _OF_CLASSES[wanted](value, place)
    if place.startswith("op of "):
        return _operator(value, place)
    if wanted in _WRITE:
        return _instance(wanted, value, place)
    return value


def _landscape(value: Any, place: str, wanted: str) -> Any:
    if isinstance(value, nn.Module):
        user = place.rpartition("tw.")[2]
        protocol = _PROTOCOLS.get(wanted, Landscape)
        return require(value, protocol, user, "give an EmpiricalRisk(problem)")
    if isinstance(value, Problem):
        write = "write tw.EmpiricalRisk(problem)"
    elif isinstance(value, str | PathLike):
        write = "write tw.EmpiricalRisk(tw.load_problem(entry))"
    elif value is None or isinstance(value, _NO_LANDSCAPES):
        write = "the landscape comes first: tw.EmpiricalRisk(problem)"
    else:
        return value  # the function says which of a landscape's members it lacks
    raise InvalidArgument(f"{place} is {_said(value)}; expected a landscape: {write}.")


def _problem(value: Any, place: str, wanted: str) -> Any:
    if isinstance(value, Problem) or ("EmpiricalRisk" in wanted and _is_risk(value)):
        return value
    if _is_risk(value):
        write = "write risk.problem"
    elif isinstance(value, str | PathLike):
        write = "write tw.load_problem(entry)"
    else:
        write = "write tw.Problem(model, loss, data) or tw.load_problem(entry)"
    raise InvalidProblem(f"{place} is {_said(value)}; expected a {wanted}: {write}.")


def _is_risk(value: Any) -> bool:
    return isinstance(getattr(value, "problem", None), Problem)


def _tensor(wanted: str, value: Any, place: str, subject: Any) -> Any:
    """Give weights, directions or points as a tensor, or whole states as a point."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        dtype = getattr(subject, "dtype", None)
        given = torch.from_numpy(np.array(value))
        return given.to(dtype) if isinstance(dtype, torch.dtype) else given
    if wanted == "Tensor | PointsPlane | int":
        return _directions(value, place)
    states = "Point" in wanted
    if states and isinstance(value, Point):
        return value
    problem = subject if isinstance(subject, Problem) else getattr(subject, "problem", None)
    if states and isinstance(value, str | PathLike | dict) and isinstance(problem, Problem):
        return open_point(problem, value)
    raise InvalidWeights(
        f"{place} is {_said(value)}; expected a tensor of weights"
        f"{', a point or a path' if states else ''}: {_weights_to_write(value)}."
    )


def _weights_to_write(value: Any) -> str:
    """Say how weights are had of what was given."""
    if isinstance(value, Point):
        return "write point.load_into(risk), which also sets frozen weights and buffers"
    if isinstance(value, str | PathLike | dict):
        return "write tw.open_point(risk.problem, source).load_into(risk)"
    if isinstance(value, nn.Module):
        return "write risk.space.pack(model)"
    if isinstance(value, list | tuple) and all(isinstance(row, Tensor) for row in value):
        return "write torch.stack(points)"
    return "write risk.space.pack(model), or torch.tensor(numbers)"


def _tensors(value: Any, place: str, subject: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return _tensor("Tensor", value, place, subject)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_tensor("Tensor | Point", point, place, subject) for point in value]
    raise InvalidWeights(
        f"{place} is {_said(value)}; expected a list of tensors, points or paths: write [w0, w1]."
    )


def _points(value: Any, place: str) -> Any:
    if isinstance(value, Mapping | Sequence | Tensor) and not isinstance(value, str):
        return value
    raise InvalidArgument(
        f"{place} is {_said(value)}; expected checkpoints by name or in a list: write"
        ' ["a.pt", "b.pt"] or {"a": state}.'
    )


def _directions(value: Any, place: str) -> Any:
    if hasattr(value, "origin") and hasattr(value, "directions"):
        return value
    if not isinstance(value, bool) and isinstance(value, numbers.Integral):
        return int(value)
    if value == "principal":
        write = (
            "write principal_directions(weights).directions of thalweg.geometry, where weights are"
            " those of a trajectory, a row each"
        )
    elif value == "random":
        write = "write a number of random directions, directions=2"
    else:
        write = (
            "write a number of random directions, a tensor of shape (W, k), or"
            " through_points(w0, w1, w2) of thalweg.geometry"
        )
    raise InvalidArgument(f"{place} is {_said(value)}; expected directions: {write}.")


def _progress(value: Any, place: str) -> Any:
    if value is None or value is False:
        return silent
    if value is True:
        return on_screen
    if callable(value):
        return value
    raise InvalidArgument(
        f"{place} is {_said(value)}; write True for a bar on the screen, or a function of"
        " (total, label) that opens one."
    )


def _run(wanted: str, value: Any, place: str) -> Any:
    from thalweg.dynamics.checkpoint_writer import as_run

    if isinstance(value, Run):
        return value
    if isinstance(value, str | PathLike):
        return value if "str" in wanted else as_run(value)
    raise InvalidArgument(
        f'{place} is {_said(value)}; expected a run or the path of one: write run="runs/mine".'
    )


def _integer(value: Any, place: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return int(value)
    raise InvalidArgument(f"{place} is {_said(value)}; write a whole number.")


def _number(value: Any, place: str) -> Any:
    if isinstance(value, numbers.Real):
        return value
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        return float(value)
    raise InvalidArgument(f"{place} is {_said(value)}; write a number.")


def _text(wanted: str, value: Any, place: str) -> Any:
    if isinstance(value, str) or ("PathLike" in wanted and isinstance(value, PathLike)):
        return value
    expected = "a path" if "PathLike" in wanted else "text in quotes"
    raise InvalidArgument(f"{place} is {_said(value)}; write {expected}.")


def _mapping(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return value
    raise InvalidArgument(f"{place} is {_said(value)}; write a dict of names and values, or {{}}.")


def _operator(value: Any, place: str) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value))
    if hasattr(value, "hessian"):
        write = "write risk.hessian(w) or risk.gauss_newton(w)"
    elif hasattr(type(value), "__matmul__") and hasattr(value, "shape"):
        return value
    else:
        write = "write risk.hessian(w), or give a symmetric matrix"
    raise InvalidArgument(f"{place} is {_said(value)}; expected an operator: {write}.")


def _instance(wanted: str, value: Any, place: str) -> Any:
    last = wanted.removesuffix(" | None").rpartition(".")[2]
    if any(base.__name__ == last for base in type(value).__mro__):
        return value
    raise InvalidArgument(f"{place} is {_said(value)}; expected a {wanted}: {_WRITE[wanted]}.")


def _dtype(value: Any, place: str) -> torch.dtype:
    """Give a precision, also by its name or as NumPy's."""
    named = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    dtype = getattr(torch, str(named).rpartition(".")[2], None)
    if value is not float and isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    raise InvalidArgument(f"{place} is {_said(value)}; write torch.float32 or torch.float64.")


def _device(value: Any, place: str) -> Any:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        device = None
    if device is not None and (device.type != "cuda" or torch.cuda.is_available()):
        return value
    why = "there is no such device here" if device is not None else "torch knows none of that name"
    raise InvalidArgument(f"{place} is {_said(value)}; {why}: write 'cpu', or leave it out.")


def _criterion(value: Any, place: str) -> Any:
    """Make a criterion of a class that needs no arguments."""
    if isinstance(value, type) and issubclass(value, nn.modules.loss._Loss):
        return value()
    return value  # the problem says what a loss is


def _function(value: Any, place: str) -> Any:
    if callable(value):
        return value
    raise InvalidProblem(f"{place} is {_said(value)}; write a function, or leave it out.")


def _parameters(value: Any, place: str) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(part, Parameter) for part in value):
        return tuple(value)
    write = "write ParameterSpace.of(model), or ParameterSpace.euclidean(size) for a plain vector"
    raise InvalidArgument(f"{place} is {_said(value)}; expected named weights: {write}.")


def _path(value: Any, place: str) -> Any:
    if isinstance(value, str | PathLike):
        return Path(value)
    raise InvalidArgument(f'{place} is {_said(value)}; write tw.open_run("runs/mine").')


# What arguments of constructors alone are annotated with.
_OF_CLASSES: dict[str, Callable[[Any, str], Any]] = {
    "torch.dtype | None": _dtype,
    "torch.device | str | None": _device,
    "Callable[..., Any]": _criterion,
    "Callable[[Any], Any] | None": _function,
    "Callable[[Tensor, Any], Tensor] | None": _function,
    "tuple[Parameter, ...]": _parameters,
    "Path": _path,
}


def _said(value: Any) -> str:
    """Name what was given: its value where that is short, else what it is."""
    if value is None or isinstance(value, str | PathLike | numbers.Number):
        return repr(value)[:80]
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
    return f"a {type(value).__name__}"
