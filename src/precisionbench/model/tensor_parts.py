"""What identifies the values of a tensor."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_SAMPLES = 1 << 16  # elements of each tensor that are read one by one
_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)


def shape_of(tensor: torch.Tensor) -> bytes:
    """The shape and dtype of a tensor.

    Args:
        tensor: any.
    """
    return f"{tuple(tensor.shape)} {tensor.dtype}".encode()


def values_of(tensor: torch.Tensor) -> Iterator[bytes]:
    """The shape, dtype and values of a tensor; of a large one samples, and the sum of all.

    Args:
        tensor: of any layout, on any device.
    """
    tensor = tensor.detach()
    yield shape_of(tensor)
    if not tensor.numel() or tensor.is_meta:
        return
    if tensor.layout != torch.strided:
        for part in _dense_parts(tensor):
            yield from values_of(part)
        return
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    flat = tensor.resolve_conj().resolve_neg().reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    sample = flat[::step].cpu().contiguous()
    yield sample.view(torch.uint8).numpy().tobytes()
    if step > 1 and not tensor.is_complex():
        yield str(float(flat.sum(dtype=torch.float64))).encode()


def _dense_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The dense tensors of which a sparse one consists; none where they are not known."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in _COMPRESSED_ROWS:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []
