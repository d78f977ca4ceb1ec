"""The ladder: from a user's own row to the fastest one, one change at a time."""
