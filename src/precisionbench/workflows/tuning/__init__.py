"""`tune`: the fastest configuration that is accurate enough.

Read in this order: `tune` -> `space` -> `search` -> `bench` -> `accuracy`, and `tuned` for what a
user gets.
"""
