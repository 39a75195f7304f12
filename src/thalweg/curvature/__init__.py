"""Derivatives of an evaluation as linear operators."""
