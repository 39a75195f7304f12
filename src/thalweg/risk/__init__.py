"""The empirical risk as a function of one flat vector, and its parameter space."""

from thalweg.risk.landscape import Landscape
from thalweg.risk.risk import EmpiricalRisk
from thalweg.risk.space import Parameter, ParameterSpace

__all__ = ["EmpiricalRisk", "Landscape", "Parameter", "ParameterSpace"]
