"""Factors that cannot be measured here: from published pairs and from devices' peaks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from precisionbench.devices import Device, Peak
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.gap.pairs import Step, factor_of_pairs, family
from precisionbench.diagnosis.unlike import Conditions
from precisionbench.published.record import Record
from precisionbench.statistics import Interval

_MIXED = {"mixed": "fp16"}
_SPARSE = 2.0


def derived_factors(
    measured: Conditions,
    target: Record,
    records: Sequence[Record],
    devices: tuple[Device | None, Device | None],
) -> tuple[tuple[Factor, ...], tuple[str, ...]]:
    """What the conditions that still differ are worth, and for which ones nobody knows.

    Args:
        measured: conditions of the row that the way through measured rows ends at.
        target: the published number.
        records: published numbers to take pairs from.
        devices: the measured one and the published one; None where its peaks are not known.

    Returns:
        The factors, and a sentence for each difference that no figure is known for.
    """
    found: list[Factor] = []
    unknown: list[str] = []
    if measured.device != target.device:
        device = _device(measured, *devices)
        found += [device] if device else []
        unknown += [] if device else ["the device: peaks of both are not known"]
    for step in _steps(measured, target):
        factor = (
            factor_of_pairs(step, records, target)
            or _from_peaks(step, devices[1])
            or factor_of_pairs(step, records, target, of_others=True)
        )
        if factor is None:
            unknown.append(f"{step.name}: no published pair that differs in it alone")
        else:
            found.append(factor)
    if target.sparsity == "2:4":
        found.append(_sparsity())
    return tuple(found), tuple(unknown)


def _steps(measured: Conditions, target: Record) -> Iterator[Step]:
    """The conditions that differ, in the order in which one would change them."""
    mine, theirs = measured.framework or "", target.framework
    if theirs and family(mine) != family(theirs):
        yield Step("framework", family(mine), family(theirs), f"{family(mine)} to {family(theirs)}")
    ours = _MIXED.get(measured.precision or "", measured.precision)
    if ours and target.precision and ours != target.precision:
        yield Step("precision", ours, target.precision, f"{ours} to {target.precision}")
    if measured.batch and target.batch and measured.batch != target.batch:
        yield Step(
            "batch", measured.batch, target.batch, f"batch {measured.batch} to {target.batch}"
        )
    if target.dlas and target.gpus and not measured.dlas:
        yield Step("engines", (1, 0), (1, target.dlas), f"{target.dlas} DLAs beside the GPU")


def _device(measured: Conditions, mine: Device | None, theirs: Device | None) -> Factor | None:
    """Between the ratios of peaks and of bandwidths, whichever the model is bound by."""
    rate = _MIXED.get(measured.precision or "", measured.precision or "fp16")
    if mine is None or theirs is None:
        return None
    pairs = [(mine.peaks.get(name), theirs.peaks.get(name)) for name in (rate, "bandwidth")]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return None
    ratios = [b.value / a.value for a, b in known]
    return Factor(
        f"device: {mine.name} to {theirs.name}",
        Kind.DERIVED,
        _range(ratios),
        f"peaks: {'; '.join(_told(peak) for pair in known for peak in pair)}",
        f"between the ratios of the {rate} peak and of the memory's bandwidth",
    )


def _told(peak: Peak) -> str:
    return f"{peak.source} [{peak.status}]"


def _range(ratios: Sequence[float]) -> Interval:
    low, high = min(ratios), max(ratios)
    return Interval(math.sqrt(low * high), low, high)


def _from_peaks(step: Step, device: Device | None) -> Factor | None:
    """A precision brings from nothing to the ratio of the peaks."""
    if step.condition != "precision" or device is None:
        return None
    before, after = (device.peaks.get(str(p)) for p in (step.before, step.after))
    if before is None or after is None:
        return None
    ratio = after.value / before.value
    return Factor(
        step.name,
        Kind.DERIVED,
        _range([1.0, ratio]),
        f"peaks of {device.name}: {_told(before)}; {_told(after)}",
        "no published pair: anything between nothing and the ratio of the peaks",
    )


def _sparsity() -> Factor:
    return Factor(
        "2:4 sparsity",
        Kind.ASSUMED,
        _range([1.0, _SPARSE]),
        "sparse tensor cores skip every second product (NVIDIA A100 whitepaper)",
        "anything between nothing and twice",
    )
