"""Proofs about a trained network: what is certified holds, whatever the picture says."""

from thalweg.certificates.certificate import Certificate
from thalweg.certificates.margin import MarginCertificate, certify_margin
from thalweg.certificates.path import PathCertificate, certify_path
from thalweg.certificates.zero import certify_zero

__all__ = [
    "Certificate",
    "MarginCertificate",
    "PathCertificate",
    "certify_margin",
    "certify_path",
    "certify_zero",
]
