"""Holds a comparison to what tests ask: thresholds, assertions, baselines."""
