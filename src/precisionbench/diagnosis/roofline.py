"""Rates that a row reaches in each category of its time, compared with the device's peaks."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import RooflinePoint
from precisionbench.diagnosis.parts import BYTES, MATRIX, Part
from precisionbench.results.dtypes import SHORT_NAMES


def roofline_points(facts: Facts) -> tuple[RooflinePoint, ...]:
    """The rates that a row reaches in each category of its time.

    Bytes are those of operands and results, which kernels must move at least.

    Args:
        facts: facts of the row.
    """
    return tuple(
        _point(facts, category, time_s) for category, time_s in facts.by_category.items() if time_s
    )


def _point(facts: Facts, category: str, time_s: float) -> RooflinePoint:
    flops = _flops(facts) if category == MATRIX else None
    moved = _bytes([part for part in facts.parts if part.category == category])
    bandwidth, peak = facts.peak("bandwidth"), facts.peak(peak_name(facts))
    flop_rate = flops / time_s if flops else None
    byte_rate = moved / time_s if moved else None
    return RooflinePoint(
        category=category,
        time_s=time_s,
        share=time_s / facts.busy_s,
        flop_rate=flop_rate,
        of_peak=flop_rate / peak if flop_rate and peak else None,
        byte_rate=byte_rate,
        of_bandwidth=byte_rate / bandwidth if byte_rate and bandwidth else None,
    )


def _flops(facts: Facts) -> float | None:
    """FLOPs of the matrix operations; None where some are not known."""
    found = [work.flops for work in facts.work if work.time_s]
    return sum(f for f in found if f) if found and all(found) else None


def peak_name(facts: Facts) -> str:
    """The peak rate to compare a row's matrix operations with: of the precision most ran in.

    Args:
        facts: facts of the row.

    Returns:
        Its name for `Facts.peak`; empty where the precision is not known.
    """
    shares = {name: facts.kernel_share_of(name) for name in SHORT_NAMES}
    return SHORT_NAMES[max(shares, key=lambda name: shares[name])] if any(shares.values()) else ""


def _bytes(parts: list[Part]) -> float:
    """Bytes of the operands and results of the parts' operations."""
    operations = {id(part.operation): part.operation for part in parts}
    total = 0.0
    for operation in operations.values():
        sizes = [BYTES.get(tensor.dtype, 4) for tensor in operation.inputs]
        total += operation.elements * (sum(sizes) / len(sizes) if sizes else 0)
    return total
