"""How much memory a call takes at its peak, in a pass of its own."""

from __future__ import annotations

import torch

from precisionbench.torchtools.timer import Call


def peak_bytes(device: torch.device, call: Call) -> tuple[int | None, int | None]:
    """The peak memory that torch's allocator allocates, and reserves, during one call.

    Memory of engines that bypass it (TensorRT, ONNX Runtime) is not included.

    Args:
        device: where the call runs.
        call: one forward pass.

    Returns:
        Allocated and reserved bytes; None where torch does not track them.
    """
    if device.type != "cuda":
        return None, None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
