"""What follows from results alone: speed-ups, data quality, and whether two runs are comparable."""
