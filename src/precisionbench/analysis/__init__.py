"""Pure functions of results: speed-ups, data quality, comparability, differences of two runs."""
