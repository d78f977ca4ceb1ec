"""Checks of comparisons in tests: thresholds, assertions and baselines."""
