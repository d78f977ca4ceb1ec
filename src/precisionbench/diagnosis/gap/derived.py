"""Factors that cannot be measured here: from published pairs and from peak rates of devices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.gap.pairs import Step, factor_of_pairs, family
from precisionbench.diagnosis.published_conditions import Conditions
from precisionbench.published.record import Record
from precisionbench.reference_data.peaks import DeviceSpec, Peak, name_key
from precisionbench.statistics import Interval

# The precision whose peak rate limits a mixed one.
_MIXED = {"mixed": "fp16"}
_SPARSE = 2.0
_MIDDLE = "the factor is the middle of its range (log scale)"


def derived_factors(
    measured: Conditions,
    target: Record,
    records: Sequence[Record],
    devices: tuple[DeviceSpec | None, DeviceSpec | None],
) -> tuple[tuple[Factor, ...], tuple[tuple[str, str], ...]]:
    """The factors of the conditions that still differ, and which of them have none.

    Published pairs of the published number's own device come first, then peaks, then published
    pairs of other devices.

    Args:
        measured: conditions of the last row of the measured path.
        target: the published number.
        records: published numbers to take pairs from.
        devices: the measured one and the published one; None where its peaks are not known.

    Returns:
        The factors, and each difference without a factor: its name and the reason.
    """
    found: list[Factor] = []
    unknown: list[tuple[str, str]] = []
    if not _is_same_device(measured, target, devices[1]):
        device = _device(measured, *devices)
        found += [device] if device else []
        unknown += [] if device else [("device", "the peaks of one of the devices are not known")]
    for step in _steps(measured, target):
        factor = (
            factor_of_pairs(step, records, target)
            or _from_peaks(step, devices[1])
            or factor_of_pairs(step, records, target, of_others=True)
            or _from_sparsity(step)
        )
        if factor is None:
            unknown.append((step.name, "no published pair differs only in it"))
        else:
            found.append(factor)
    return tuple(found), tuple(unknown)


def _is_same_device(measured: Conditions, target: Record, theirs: DeviceSpec | None) -> bool:
    ours = measured.device
    if ours is None:
        return False
    return ours == (theirs.id if theirs else None) or name_key(ours) == name_key(target.device)


def _steps(measured: Conditions, target: Record) -> Iterator[Step]:
    """The conditions that differ, in the order in which a user would change them."""
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
        dlas = "1 DLA" if target.dlas == 1 else f"{target.dlas} DLAs"
        yield Step("engines", (1, 0), (1, target.dlas), f"{dlas} in addition to the GPU")
    if target.sparsity == "2:4" and measured.sparsity != "2:4":
        yield Step("sparsity", "dense", "2:4", "2:4 sparsity")


def _device(
    measured: Conditions, mine: DeviceSpec | None, theirs: DeviceSpec | None
) -> Factor | None:
    """Between the ratios of peak rates and of bandwidths, for models limited by one of them."""
    rate = _MIXED.get(measured.precision or "", measured.precision or "")
    if mine is None or theirs is None:
        return None
    pairs = [_peaks_of_both(name, mine, theirs) for name in (rate, "bandwidth")]
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return None
    return Factor(
        f"device: {mine.name} to {theirs.name}",
        _kind(*known[0], *known[1]),
        _range([b.value / a.value for a, b in known]),
        f"peaks: {_sources(*(peak for pair in known for peak in pair))}",
        f"between the ratio of the {rate} peaks and the ratio of the memory bandwidths, if one of "
        f"them limits the model on both devices; {_MIDDLE}",
    )


def _peaks_of_both(name: str, mine: DeviceSpec, theirs: DeviceSpec) -> tuple[Peak, Peak] | None:
    a, b = mine.peaks.get(name), theirs.peaks.get(name)
    return None if a is None or b is None else (a, b)


def _kind(*peaks: Peak) -> Kind:
    """`DERIVED`, unless one of the cited figures is unverified."""
    return Kind.ASSUMED if any(peak.status == "unverified" for peak in peaks) else Kind.DERIVED


def _sources(*peaks: Peak) -> str:
    """The sources of peaks, each once."""
    return "; ".join(
        dict.fromkeys(f"{peak.source or 'no source'} [{peak.status}]" for peak in peaks)
    )


def _range(ratios: Sequence[float]) -> Interval:
    low, high = min(ratios), max(ratios)
    return Interval(math.sqrt(low * high), low, high)


def _from_peaks(step: Step, device: DeviceSpec | None) -> Factor | None:
    """Between 1 and the ratio of the peak rates of the two precisions."""
    if step.condition != "precision" or device is None:
        return None
    before, after = (device.peaks.get(str(p)) for p in (step.before, step.after))
    if before is None or after is None:
        return None
    ratio = after.value / before.value
    return Factor(
        step.name,
        Kind.ASSUMED,
        _range([1.0, ratio]),
        f"peaks of {device.name}: {_sources(before, after)}",
        f"no published pair: between 1x and the ratio of the peaks; {_MIDDLE}",
    )


def _from_sparsity(step: Step) -> Factor | None:
    if step.condition != "sparsity":
        return None
    return Factor(
        step.name,
        Kind.ASSUMED,
        _range([1.0, _SPARSE]),
        "sparse tensor cores skip half of the multiplications (NVIDIA A100 whitepaper)",
        f"no published pair: between 1x and 2x; {_MIDDLE}",
    )
