"""Runs a user's benchmark script under observation, and reports the problems found.

`child` runs the script in a process of its own, `observer` watches it there, `observations` is what
was seen, `reading` what stands in the text; `gates` turns both into breaches, `text` into words,
and `running` does it all. Only the observer and the device need torch.
"""
