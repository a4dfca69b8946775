"""Measures beside the bit probe: labels, and ranking of predictions."""
