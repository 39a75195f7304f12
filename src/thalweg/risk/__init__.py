"""The empirical risk of a network on its data, as a function of one flat vector."""

from thalweg.risk.risk import EmpiricalRisk

__all__ = ["EmpiricalRisk"]
