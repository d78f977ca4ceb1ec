"""The gap between a measured rate and a published one, factor by factor; no torch, no GPU."""
