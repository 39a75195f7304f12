"""Polynomial fits of scalar activations, and networks that use them."""
