"""What every instrument takes: functions of one flat vector, and the space of their points."""

from thalweg.landscape.protocols import Landscape
from thalweg.landscape.quadratic import Bowl
from thalweg.landscape.space import Parameter, ParameterSpace

__all__ = ["Bowl", "Landscape", "Parameter", "ParameterSpace"]
