"""Where a row's time goes against what its device can do."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Roof
from precisionbench.diagnosis.labels import RATES
from precisionbench.diagnosis.parts import BYTES, MATRIX, Part


def roofs_of(facts: Facts) -> tuple[Roof, ...]:
    """Each category of a row's time with the rates that it reaches.

    Bytes are what operands and results take: what a kernel must move at least.

    Args:
        facts: of the row.
    """
    return tuple(
        _roof(facts, category, time_s) for category, time_s in facts.by_category.items() if time_s
    )


def _roof(facts: Facts, category: str, time_s: float) -> Roof:
    flops = _flops(facts) if category == MATRIX else None
    moved = _bytes([part for part in facts.parts if part.category == category])
    bandwidth, peak = facts.peak("bandwidth"), facts.peak(rate_of(facts))
    flop_rate = flops / time_s if flops else None
    byte_rate = moved / time_s if moved else None
    return Roof(
        category=category,
        time_s=time_s,
        share=time_s / facts.busy_s,
        flop_rate=flop_rate,
        of_peak=flop_rate / peak if flop_rate and peak else None,
        byte_rate=byte_rate,
        of_bandwidth=byte_rate / bandwidth if byte_rate and bandwidth else None,
    )


def _flops(facts: Facts) -> float | None:
    """Of matrix work, where all of it is known."""
    found = [work.flops for work in facts.work if work.time_s]
    return sum(f for f in found if f) if found and all(found) else None


def rate_of(facts: Facts) -> str:
    """The peak that a row's matrix work is held against: of the precision that most of it ran in.

    Args:
        facts: of the row.

    Returns:
        Its name, as `Facts.peak` takes it; empty where nothing tells.
    """
    shares = {name: facts.kernel_share_of(name) for name in RATES}
    return RATES[max(shares, key=lambda name: shares[name])] if any(shares.values()) else ""


def _bytes(parts: list[Part]) -> float:
    """Of the operations whose time is in this category alone."""
    operations = {id(part.operation): part.operation for part in parts}
    total = 0.0
    for operation in operations.values():
        sizes = [BYTES.get(tensor.dtype, 4) for tensor in operation.inputs]
        total += operation.elements * (sum(sizes) / len(sizes) if sizes else 0)
    return total
