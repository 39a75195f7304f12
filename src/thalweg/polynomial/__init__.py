"""Polynomial fits of scalar activations, and networks that use them."""

from __future__ import annotations

from thalweg.polynomial.activation import PolynomialActivation
from thalweg.polynomial.excursion import Excursion
from thalweg.polynomial.fit import PolynomialFit, fit_polynomial
from thalweg.polynomial.replace import (
    check_excursions,
    excursions,
    replace_activations,
    reset_excursions,
)

__all__ = [
    "Excursion",
    "PolynomialActivation",
    "PolynomialFit",
    "check_excursions",
    "excursions",
    "fit_polynomial",
    "replace_activations",
    "reset_excursions",
]
