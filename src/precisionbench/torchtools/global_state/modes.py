"""Modes that a call runs in: autocast, gradients, cuDNN's choice of algorithms, threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from precisionbench.torchtools.global_state.flags import flags_restored


@contextlib.contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Set cuDNN's benchmark mode within the context.

    Args:
        enabled: time the algorithms on each new shape; otherwise choose by heuristics.
    """
    with flags_restored():
        torch.backends.cudnn.benchmark = enabled
        yield


@contextlib.contextmanager
def autocast_off(device_type: str) -> Iterator[None]:
    """Disable an autocast that surrounds the context: it would change every row.

    Args:
        device_type: `cpu`, `cuda`, ...
    """
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device_type}:
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def gradients_off(mode: str) -> Iterator[None]:
    """Compute no gradients within the context.

    Args:
        mode: `inference_mode` or `no_grad`.
    """
    with torch.inference_mode() if mode == "inference_mode" else torch.no_grad():
        yield


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch's operations on the CPU within the context.

    Args:
        count: 1 or more.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
