"""What every instrument takes: functions of one flat vector, and the space of their points."""

from thalweg.landscape.deep_linear import DeepLinear
from thalweg.landscape.protocols import (
    Batched,
    Blocked,
    Curved,
    Described,
    Documented,
    Drawable,
    Function,
    HeldOut,
    Landscape,
    LeastSquares,
    LinearOperator,
    Parallel,
    Placed,
    Remakeable,
    Replicable,
    Sampled,
    Scored,
    Stateful,
    Stepped,
    Trainable,
    Vectorized,
)
from thalweg.landscape.provenance import Provenance
from thalweg.landscape.quadratic import Quadratic
from thalweg.landscape.space import Parameter, ParameterSpace
from thalweg.landscape.two_minima import TwoMinima

__all__ = [
    "Batched",
    "Blocked",
    "Curved",
    "DeepLinear",
    "Described",
    "Documented",
    "Drawable",
    "Function",
    "HeldOut",
    "Landscape",
    "LeastSquares",
    "LinearOperator",
    "Parallel",
    "Parameter",
    "ParameterSpace",
    "Placed",
    "Provenance",
    "Quadratic",
    "Remakeable",
    "Replicable",
    "Sampled",
    "Scored",
    "Stateful",
    "Stepped",
    "Trainable",
    "TwoMinima",
    "Vectorized",
]
