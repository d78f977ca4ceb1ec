"""The user's model and inputs, and how each backend gets a private copy of them."""
