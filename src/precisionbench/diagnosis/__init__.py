"""Explains why a number is what it is: labels, causes, ceiling, gap ledger."""
