"""attrs validators of what a measurement must be, wherever it comes from; `limits` has the ranges
of what files may hold."""

from __future__ import annotations

import math


def check_samples(_: object, __: object, samples: tuple[float, ...]) -> None:
    """Accept times in seconds.

    Raises:
        ValueError: a sample is zero, negative, infinite, NaN, or shorter than a cycle of any clock.
    """
    if not all(1e-11 < sample < 1e12 for sample in samples):
        raise ValueError("a sample must be a time above 0, in seconds")


def check_batch_size(_: object, __: object, batch_size: int | None) -> None:
    """Accept numbers of items, or None.

    Raises:
        ValueError: it is not such a number.
    """
    if batch_size is not None and not 0 < batch_size < 2**63:
        raise ValueError(f"a batch size cannot be {batch_size:.3g}")


def check_shape(_: object, __: object, shape: tuple[int, ...]) -> None:
    """Accept shapes of tensors that can exist.

    Raises:
        ValueError: it has more elements, or more dimensions, than any tensor.
    """
    if len(shape) > 64 or math.prod(max(1, size) for size in shape) >= 2**63:
        raise ValueError("a shape has fewer than 2**63 elements, and 64 dimensions at most")
