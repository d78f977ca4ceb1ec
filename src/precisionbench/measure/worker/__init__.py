"""Backends that are prepared in a worker process or in this one, and timed block by block."""
