"""Building blocks on PyTorch: timer, global state, tensors in nested values, agreement."""
