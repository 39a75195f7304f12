"""Every error Thalweg raises: our base class and the builtin that each of them is."""

from __future__ import annotations

from typing import Any


class ThalwegError(Exception):
    """Base of all errors raised by Thalweg; the CLI prints them without a traceback."""


class InvalidArgument(ThalwegError, ValueError):
    """An argument has a value that the call cannot use."""


class RunNotFound(ThalwegError, FileNotFoundError):
    """A folder is not a run directory."""


class RunConflict(ThalwegError, FileExistsError):
    """A run directory exists and belongs to another configuration."""


class TaskFailed(ThalwegError, RuntimeError):
    """A task failed at every attempt it was allowed."""


class NotTrusted(ThalwegError, PermissionError):
    """A file names a function to call, and the user has neither named nor trusted it."""


class LeavesRun(ThalwegError, PermissionError):
    """A name or a link in a run directory leads out of it."""


class DamagedFile(ThalwegError, ValueError):
    """A file of a run is not what was written there."""


class EntryNotFound(ThalwegError, ImportError):
    """An entry string names nothing that can be imported."""


class InvalidProblem(ThalwegError, TypeError):
    """A problem is made of parts that do not fit together."""


class DependsOnBatches(InvalidProblem):
    """A loss is no mean over samples: its value depends on how they are put into batches."""


class CheckpointRefused(ThalwegError, ValueError):
    """A checkpoint could only be read by running code from it, or is not a checkpoint."""


class CheckpointMismatch(ThalwegError, ValueError):
    """A checkpoint holds other weights than the model has."""


class DataUnavailable(ThalwegError, FileNotFoundError):
    """A data set cannot be found or read."""


class MissingExtra(ThalwegError, ImportError):
    """An optional dependency is needed and not installed."""


class NotDeterministic(ThalwegError, RuntimeError):
    """Model or data answer differently when asked twice."""


class SelfCheckFailed(ThalwegError, ArithmeticError):
    """What would be measured is not the user's function, or its derivatives are not its own."""


class InvalidWeights(ThalwegError, ValueError):
    """A weight vector has the wrong shape, dtype, device or values that are not finite."""


class NotDefined(ThalwegError, TypeError):
    """A quantity is not defined for this problem (classification error of a regression, ...)."""


class OutOfBudget(ThalwegError, MemoryError):
    """A computation would need more memory than it was given."""


class NotElementwise(ThalwegError, TypeError):
    """A function given as an activation does not act on each element by itself."""


class NothingReplaced(ThalwegError, ValueError):
    """A model has no activation module to replace."""


class LeftInterval(ThalwegError, ArithmeticError):
    """Pre-activations left the interval on which a polynomial approximates its activation."""

    excursions: dict[str, Any]  # the record of every layer that left, by its name


class NotPolynomial(ThalwegError, TypeError):
    """A network is not a polynomial in its weights."""


class SystemTooLarge(ThalwegError, OverflowError):
    """A polynomial system is too large to be written down or solved."""


class ContradictorySamples(ThalwegError, ValueError):
    """Samples with the same input have different targets."""


class ProgramFailed(ThalwegError, RuntimeError):
    """An optional external program was called and did not give an answer."""


class NotSymmetric(ThalwegError, ValueError):
    """An operator that must be symmetric is not."""


class NotFinite(ThalwegError, ArithmeticError):
    """A computation gave NaN or an infinite number where it can go no further."""


def first_line(error: BaseException) -> str:
    """Quote what an error says, by its first line; its class where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
