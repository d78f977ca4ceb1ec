"""Measures the rows of a comparison: which rows, in which rounds, and until when."""
