"""Sections of the report: one file a study or instrument, listed in `registry`."""
