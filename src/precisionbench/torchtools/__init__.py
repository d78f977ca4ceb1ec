"""What PyTorch leaves to do: the timer, global settings, nested tensors, agreement of outputs."""
