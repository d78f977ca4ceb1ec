"""What tests hold a comparison to: thresholds, assertions and baselines."""
