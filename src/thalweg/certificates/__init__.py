"""Proofs about a trained network: what is certified holds, whatever the picture says."""

from thalweg.certificates.margin import MarginCertificate, certify_margin

__all__ = ["MarginCertificate", "certify_margin"]
