"""Where a prepared backend lives while it is measured.

A launcher opens a session for a backend: the model is prepared, called once, and ready to be
timed block by block; closing it undoes everything. The Runner knows sessions only.
"""
