"""The user's model and inputs, and the private copy of them that each backend gets."""
