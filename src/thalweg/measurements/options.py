"""Options of a measurement: fields of one dataclass, which say all that is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class About:
    """
    What is known of an option beside its type and its default.

    Attributes
    ----------
    help : str
        One sentence.
    least, most : float or None
        Bounds of a number.
    flag : str
        On the command line, where it is not the name.
    metavar : str
        What stands for its value in the help.
    open : bool
        Whether the default is chosen by other options, and stands in ``help``.
    parse : callable or None
        Reads each text of a list; what it cannot read is a `ValueError`.
    hidden : bool
        Whether only configurations may have it.
    """

    help: str
    least: float | None = None
    most: float | None = None
    flag: str = ""
    metavar: str = ""
    open: bool = False
    parse: Callable[[str], Any] | None = None
    hidden: bool = False


def option(default: Any, help: str, **more: Any) -> Any:
    """
    Make a field of a dataclass of options.

    Parameters
    ----------
    default : object
        Its value where it is not given.
    help : str
        One sentence, with the unit.
    **more
        Of `About`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Noise:
    ...     noise: float = option(0.05, "Size of noise, relative to the weights.")
    >>> defaults(Noise), about_options(Noise)["noise"].help
    ({'noise': 0.05}, 'Size of noise, relative to the weights.')
    """
    return field(default=default, metadata={"about": About(help, **more)})


def defaults(options: type) -> dict[str, Any]:
    """Give the default of each option that has one of its own."""
    return {one.name: one.default for one in fields(options) if not one.metadata["about"].open}


def about_options(options: type) -> dict[str, About]:
    """Give what is known of each option, in order."""
    return {one.name: one.metadata["about"] for one in fields(options)}
