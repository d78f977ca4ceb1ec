"""Looks at one prepared call beyond its latency, each in a pass of its own and none in a block."""
