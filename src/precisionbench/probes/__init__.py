"""Measures a prepared call beyond its latency: passes, kernels, numerical error."""
