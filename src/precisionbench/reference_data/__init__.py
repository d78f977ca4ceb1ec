"""Peaks of devices and FLOPs of known models, with their sources."""
