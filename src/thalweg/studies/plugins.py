"""The studies that installed packages add, and what each of them must have."""

from __future__ import annotations

from types import ModuleType

from thalweg.errors import InvalidArgument
from thalweg.run.plugins import STUDIES, installed, load_plugin

_NEEDED = ("SIZES", "tasks", "assemble", "claims")


def _loaded(name: str) -> ModuleType | None:
    module: ModuleType = load_plugin(STUDIES, name)
    # A process that imports the study itself, as workers do, comes here in the midst of it: such a
    # process runs its tasks, and lists no studies.
    if getattr(module.__spec__, "_initializing", False):
        return None
    if missing := [attribute for attribute in _NEEDED if not hasattr(module, attribute)]:
        raise InvalidArgument(
            f"the study {name!r} has no {', '.join(missing)}; a study is a module with"
            f" {', '.join(_NEEDED)}, as thalweg.studies.registry.Study says."
        )
    return module


PLUGINS = {name: module for name in installed(STUDIES) if (module := _loaded(name)) is not None}
"""By name. ``rules``, ``faults``, and ``section`` with ``RESULTS`` for the report, may be there."""
