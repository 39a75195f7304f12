"""Which functions may make a problem: those that give back a `Problem`, looked at before a call."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

from thalweg.errors import InvalidProblem
from thalweg.problems.problem import Problem

_HOW = (
    "an entry is a function of your own that ends with `return Problem(model, loss, train, test)`"
)


def check_place(entry: str) -> None:
    """
    Refuse an entry in Python's own library, before anything of it is imported.

    Raises
    ------
    InvalidProblem
        If it is, as ``os:system``.
    """
    if entry.partition(":")[0].partition(".")[0] in sys.stdlib_module_names:
        raise InvalidProblem(f"{entry} is of Python's own library; {_HOW}.")


def check_maker(entry: str, make: Callable[..., Any]) -> None:
    """
    Refuse what cannot be a function that returns a `Problem`, without calling it.

    It is one if its annotation says so; without an annotation, if its code or its module knows
    Thalweg, itself or by the functions and modules that it names.

    Raises
    ------
    InvalidProblem
        Otherwise: a builtin, a function of Python's library, one that returns something else.
    """
    function = _function(make)
    if function is None or _root(function) in sys.stdlib_module_names:
        raise InvalidProblem(f"{entry} is no function written to make a problem; {_HOW}.")
    if inspect.isclass(make):
        fits = issubclass(make, Problem) or _knows_thalweg(function)
        stated: Any = Any
    else:
        stated = inspect.get_annotations(function).get("return", Any)
        fits = _is_problem(stated) if _says(stated) else _knows_thalweg(function)
    if not fits:
        reason = f"says that it returns {_name(stated)}" if _says(stated) else "knows no Problem"
        raise InvalidProblem(
            f"{entry} {reason}, and is not called; {_HOW}: let it be annotated `-> Problem`."
        )


def _function(make: Any) -> FunctionType | None:
    """Give the Python function behind a partial, a wrapper, a method, a class or an instance."""
    while isinstance(make, partial):
        make = make.func
    make = inspect.unwrap(make)
    make = getattr(make, "__func__", make)
    if inspect.isclass(make):
        make = make.__init__ if isinstance(make.__init__, FunctionType) else make.__new__
    elif not isinstance(make, FunctionType):
        make = getattr(type(make), "__call__", None)  # noqa: B004
    return make if isinstance(make, FunctionType) else None


def _root(function: FunctionType) -> str:
    return str(function.__module__).partition(".")[0]


def _says(annotation: Any) -> bool:
    return annotation not in (Any, "Any", "typing.Any")


def _is_problem(annotation: Any) -> bool:
    if inspect.isclass(annotation):
        return issubclass(annotation, Problem)
    return "Problem" in str(annotation)


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


def _knows_thalweg(function: FunctionType) -> bool:
    if any(name.partition(".")[0] == "thalweg" for name in _names(function.__code__)):
        return True
    own = function.__globals__
    named = [own[name] for name in _names(function.__code__) if name in own]
    beside = [
        scope
        for value in named
        if (scope := getattr(value, "__globals__", None) or _variables(value)) is not None
    ]
    return any(_is_ours(value) for scope in (own, *beside) for value in list(scope.values()))


def _variables(value: Any) -> dict[str, Any] | None:
    return vars(value) if isinstance(value, ModuleType) else None


def _is_ours(value: Any) -> bool:
    place = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return isinstance(place, str) and place.partition(".")[0] == "thalweg"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
