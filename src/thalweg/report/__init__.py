"""The report of a run: a page that stands alone, made from the run directory and only that."""

from thalweg.report.page import write_report

__all__ = ["write_report"]
