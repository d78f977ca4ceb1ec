"""Chains comparisons: diagnosis with experiments, and the precision ladder."""
