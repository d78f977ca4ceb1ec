"""TF32: whether float32 matmuls, convolutions and RNNs compute in IEEE float32 or in TF32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from precisionbench.results.dtypes import AMPERE
from precisionbench.torchtools.global_state.flags import (
    LEGACY_TF32_SWITCHES,
    OPERATION_PRECISIONS,
    flags_restored,
    read_flag,
    read_flags,
    write_flag,
)


@contextlib.contextmanager
def fp32_precision(precision: str) -> Iterator[None]:
    """Compute float32 matmuls, convolutions and RNNs in one precision within the context.

    Args:
        precision: `ieee` (true float32) or `tf32` (tensor cores with a 10-bit mantissa).
    """
    with flags_restored():
        for path in LEGACY_TF32_SWITCHES:
            if read_flag(path) is not None:  # a flag that cannot be read could not be restored
                write_flag(path, precision == "tf32")
        if isinstance(read_flag("fp32_precision"), str):
            for path in OPERATION_PRECISIONS:
                # Most CPUs have no TF32, so oneDNN is only ever set to ieee.
                write_flag(path, "ieee" if path.startswith("mkldnn") else precision)
        yield


def has_tf32(device: torch.device | None = None) -> bool:
    """Whether a device computes in TF32.

    Args:
        device: None is the current GPU.
    """
    if not torch.cuda.is_available() or torch.version.hip:
        return False
    if device is not None and device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


def tf32_operations() -> tuple[str, ...]:
    """Which of `convolutions` and `matmuls` torch's settings let a GPU compute in TF32."""
    flags = read_flags()
    settings = {
        "convolutions": ("cudnn.conv.fp32_precision", "cudnn.fp32_precision", "cudnn.allow_tf32"),
        "matmuls": ("cuda.matmul.fp32_precision", "fp32_precision", "cuda.matmul.allow_tf32"),
    }
    return tuple(name for name, paths in settings.items() if _allows_tf32(flags, *paths))


def _allows_tf32(flags: Mapping[str, Any], own: str, parent: str, legacy: str) -> bool:
    for path in (own, parent, "fp32_precision"):
        if flags.get(path, "none") != "none":  # `none` leaves the decision to the next one
            return bool(flags[path] == "tf32")
    return bool(flags.get(legacy, False))
