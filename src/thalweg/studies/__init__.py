"""The paper's studies: one file per claim, composed from instruments."""

from thalweg.studies.presets import PRESETS, configure
from thalweg.studies.registry import STUDIES
from thalweg.studies.reproduce import complete, reproduce, resume

__all__ = ["PRESETS", "STUDIES", "complete", "configure", "reproduce", "resume"]
