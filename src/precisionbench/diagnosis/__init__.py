"""The diagnosis of a comparison: labels, causes, ceiling, gap ledger."""
